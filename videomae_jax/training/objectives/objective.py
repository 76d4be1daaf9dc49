"""What a run is trained for, as the steps and the loop see it."""

from typing import Any, ClassVar, Protocol, runtime_checkable

import jax
from jaxtyping import Array, Float

from videomae_jax.config import RunConfig
from videomae_jax.data.clips.readers import Reader

Arrays = dict[str, jax.Array]
"""What the readers make of videos, by name, each with a leading axis of clips."""
Batch = Any
"""Arrays, in any tree, with a leading axis of clips."""
Metrics = dict[str, jax.Array]
Params = Any


@runtime_checkable
class Objective(Protocol):
    """Masked pixels or classes: weights, clips, loss and scores. Hashable, and without state."""

    best: ClassVar[str | None]
    """The validation score whose best checkpoint is kept (higher is better); None keeps the last ones."""

    @property
    def config(self) -> RunConfig: ...

    @property
    def train_clips(self) -> Reader:
        """What is read of a video to train on."""
        ...

    @property
    def validation_clips(self) -> Reader:
        """What is read of a validation video."""
        ...

    def init_params(self, key: jax.Array) -> Params:
        """Fresh parameters."""
        ...

    def start_params(self, source: str, key: jax.Array) -> tuple[Params, dict[str, str]]:
        """Parameters from a checkpoint, and facts about them for the user; raises InputError on a misfit."""
        ...

    def lr_scales(self, params: Params) -> Params:
        """Factors on the learning rates, or None."""
        ...

    def draw(self, arrays: Arrays, key: jax.Array) -> Batch:
        """What the loss takes, with all that is drawn for the whole batch at once."""
        ...

    def loss(self, params: Params, batch: Batch, key: jax.Array) -> jax.Array:
        """Mean loss over clips."""
        ...

    def validation_sums(
        self, params: Params, arrays: Arrays, weights: Float[Array, " b"], key: jax.Array
    ) -> Metrics:
        """Weighted sums over clips of each score, and `count`, the sum of the weights."""
        ...
