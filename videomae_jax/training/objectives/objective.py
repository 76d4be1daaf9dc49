"""What a run is trained for, as the steps and the loop see it."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import jax
from jaxtyping import Array, Float

from videomae_jax.config import RunConfig
from videomae_jax.data.clips.readers import Reader, centre_view

Arrays = dict[str, jax.Array]
"""What the readers make of videos, by name, each with a leading axis of clips."""
Batch = Any
"""Arrays, in any tree, with a leading axis of clips."""
Metrics = dict[str, jax.Array]
Params = Any


class Objective(ABC):
    """Masked pixels or classes: weights, clips, loss and scores. Hashable, and without state."""

    config: RunConfig
    best: ClassVar[str | None]
    """The validation score whose best checkpoint is kept (higher is better); None keeps the last ones."""

    @property
    @abstractmethod
    def model(self) -> Any:
        """The module that is trained."""

    @property
    @abstractmethod
    def train_clips(self) -> Reader:
        """What is read of a video to train on."""

    def at(self, step: int, total_steps: int) -> "Objective":
        """The objective of one step, where it changes in the course of a run; each is compiled by itself."""
        return self

    @property
    def reads_planes(self) -> bool:
        """Whether that is planes as decoded, of which `with_video` makes RGB."""
        data = self.config.data
        if data.pixels != "auto":
            return data.pixels == "planes"
        return data.decoder == "pyav" and jax.default_backend() != "cpu"

    @abstractmethod
    def with_video(self, arrays: Arrays) -> Arrays:
        """What `train_clips` reads, with `video` in RGB in any case."""

    @property
    def validation_clips(self) -> Reader:
        """What is read of a validation video."""
        return centre_view(self.config.model, self.config.data)

    def init_params(self, key: jax.Array) -> Params:
        """Fresh parameters."""
        return self.model.init_params(key)

    @abstractmethod
    def start_params(self, source: str, key: jax.Array) -> tuple[Params, dict[str, str]]:
        """Parameters from a checkpoint, and facts about them for the user; raises InputError on a misfit."""

    def lr_scales(self, params: Params) -> Params:
        """Factors on the learning rates, or None."""
        return None

    def draw(self, arrays: Arrays, key: jax.Array) -> Batch:
        """What the loss takes, with all that is drawn for the whole batch at once."""
        return arrays

    def init_teacher(self, key: jax.Array) -> Params:
        """Random parameters in the shapes of a teacher's, or None where nobody teaches."""
        return None

    def loss_beside(self, teacher: Params) -> Any:
        """`loss`, or that of a student of a teacher with these parameters."""
        return self.loss

    @abstractmethod
    def loss(self, params: Params, batch: Batch, key: jax.Array) -> jax.Array:
        """Mean loss over clips."""

    @abstractmethod
    def validation_sums(
        self, params: Params, arrays: Arrays, weights: Float[Array, " b"], key: jax.Array
    ) -> Metrics:
        """Weighted sums over clips of each score, and `count`, the sum of the weights."""
