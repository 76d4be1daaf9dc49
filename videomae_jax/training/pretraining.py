"""Masked pre-training as a task: masks drawn on the device, and the mean squared error of hidden pixels."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from einops import repeat
from jaxtyping import Array, Float

from videomae_jax.config import PretrainConfig
from videomae_jax.data.clips import CentreClip, PretrainClips
from videomae_jax.models.masking import Mask, sample_mask
from videomae_jax.models.pretraining import VideoMAEForPreTraining, init_params, masked_losses
from videomae_jax.training.steps import Metrics, Params
from videomae_jax.training.tasks import Arrays


@dataclass(frozen=True)
class Pretraining:
    """See `training.tasks.Task`."""

    config: PretrainConfig
    best: ClassVar[str | None] = None
    next_command: ClassVar[str] = "videomae-jax reconstruct VIDEO --checkpoint"

    @property
    def train_clips(self) -> PretrainClips:
        return PretrainClips(self.config.model, self.config.data)

    @property
    def held_out_clips(self) -> CentreClip:
        return CentreClip(self.config.model, self.config.data)

    def init_params(self, key: jax.Array) -> Params:
        return init_params(self.config.model, key)

    def start_params(self, source: str, key: jax.Array) -> tuple[Params, dict[str, str]]:
        return VideoMAEForPreTraining(self.config.model).start_from(source), {}

    def lr_scales(self, params: Params) -> None:
        return None

    def prepare(self, arrays: Arrays, key: jax.Array) -> tuple[jax.Array, Mask]:
        video = repeat(arrays["video"], "b ... -> (b copies) ...", copies=self.config.num_masks)
        return video, self._mask(key, len(video))

    def loss(self, params: Params, batch: tuple[jax.Array, Mask], key: jax.Array) -> Float[Array, ""]:
        return masked_losses(VideoMAEForPreTraining(self.config.model), params, *batch)[0].mean()

    def held_out_sums(
        self, params: Params, arrays: Arrays, weights: Float[Array, " b"], key: jax.Array
    ) -> Metrics:
        """The masked loss, and the score of predicting zero everywhere."""
        video = arrays["video"]
        model, mask = VideoMAEForPreTraining(self.config.model), self._mask(key, len(video))
        loss, zero = masked_losses(model, params, video, mask)
        return {
            "loss": jnp.sum(loss * weights),
            "zero_loss": jnp.sum(zero * weights),
            "count": jnp.sum(weights),
        }

    def _mask(self, key: jax.Array, batch: int) -> Mask:
        return sample_mask(self.config.mask_type, key, batch, self.config.model.grid, self.config.mask_ratio)

    def summary(self, row: Mapping[str, Any]) -> list[str]:
        zero = row["val_zero_loss"]
        return [f"validation loss {row['val_loss']:.4f} (predicting zero scores {zero:.4f})"]

    def describe(self) -> dict[str, str]:
        config = self.config
        hidden = f"{config.mask_ratio:.0%} of {config.model.num_tokens} tokens"
        decoder = f"{config.model.decoder_num_hidden_layers} layers of {config.model.decoder_hidden_size}"
        return {"decoder": decoder, "mask": f"{config.mask_type}, hides {hidden}"}
