"""Masked pre-training: masks drawn on the device, and the mean squared error of masked pixels."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from einops import repeat
from jaxtyping import Array, Float

from videomae_jax.config import PretrainConfig, config_at
from videomae_jax.data.clips.plane_readers import PretrainPlanes
from videomae_jax.data.clips.readers import PretrainClips
from videomae_jax.models.masking import DualMask, Mask, dual_mask, sample_mask
from videomae_jax.models.pretraining import VideoMAEForPreTraining, masked_losses
from videomae_jax.training.augmentation.planes import crops_of_planes
from videomae_jax.training.objectives.objective import Arrays, Metrics, Objective, Params


@dataclass(frozen=True)
class Pretraining(Objective):
    """See `objective.Objective`."""

    config: PretrainConfig
    best: ClassVar[str | None] = None

    @property
    def model(self) -> VideoMAEForPreTraining:
        return VideoMAEForPreTraining(self.config.model)

    @property
    def train_clips(self) -> PretrainClips:
        reader = PretrainPlanes if self.reads_planes else PretrainClips
        return reader(self.config.model, self.config.data)

    def with_video(self, arrays: Arrays) -> Arrays:
        if "planes" not in arrays:
            return arrays
        planes, colour, box, lies = (arrays[name] for name in ("planes", "colour", "box", "lies"))
        return {"video": crops_of_planes(planes, colour, box, lies, self.config.model.frame_size)}

    def at(self, step: int, total_steps: int) -> "Pretraining":
        return Pretraining(config_at(self.config, step, total_steps))

    def start_params(self, source: str, key: jax.Array) -> tuple[Params, dict[str, str]]:
        return self.model.start_from(source), {}

    def draw(self, arrays: Arrays, key: jax.Array) -> tuple[jax.Array, Mask | DualMask]:
        video = repeat(
            self.with_video(arrays)["video"], "b ... -> (b copies) ...", copies=self.config.num_masks
        )
        return video, self._mask(key, video)

    def loss(
        self, params: Params, batch: tuple[jax.Array, Mask | DualMask], key: jax.Array
    ) -> Float[Array, ""]:
        return masked_losses(self.model, params, *batch)[0].mean()

    def validation_sums(
        self, params: Params, arrays: Arrays, weights: Float[Array, " b"], key: jax.Array
    ) -> Metrics:
        """The masked loss, and the score of predicting zero everywhere."""
        video = arrays["video"]
        loss, zero = masked_losses(self.model, params, video, self._mask(key, video))
        return {
            "loss": jnp.sum(loss * weights),
            "zero_loss": jnp.sum(zero * weights),
            "count": jnp.sum(weights),
        }

    def _mask(self, key: jax.Array, video: jax.Array) -> Mask | DualMask:
        config, grid = self.config, self.config.model.grid
        mask = sample_mask(config.mask_type, key, video, grid, config.mask_ratio)
        if not config.decoder_mask_ratio:
            return mask
        return dual_mask(jax.random.fold_in(key, 1), mask, grid, config.decoder_mask_ratio)
