"""Distillation of a classifier: the student learns what a frozen teacher says of the same clips."""

from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from videomae_jax.models.blocks import compute_dtype
from videomae_jax.models.classification import VideoMAEForVideoClassification
from videomae_jax.models.pixels import denormalize
from videomae_jax.models.teacher import teacher_config, teacher_pixels
from videomae_jax.training.objectives.finetuning import Finetuning
from videomae_jax.training.objectives.objective import Arrays, Params


def distillation_losses(
    logits: Float[Array, "b y"], teacher: Float[Array, "b y"], temperature: float
) -> Float[Array, " b"]:
    """T² KL(softmax(teacher / T) || softmax(logits / T)) of each clip; no gradient flows to the teacher.

    By T² the gradient keeps its size at any temperature (Hinton et al., 2015).
    """
    theirs = jax.nn.log_softmax(jax.lax.stop_gradient(teacher).astype(jnp.float32) / temperature)
    ours = jax.nn.log_softmax(logits.astype(jnp.float32) / temperature)
    return temperature**2 * jnp.sum(jnp.exp(theirs) * (theirs - ours), axis=1)


@dataclass(frozen=True)
class Distillation(Finetuning):
    """See `objective.Objective`. Labels count in validation only."""

    @property
    def teacher(self) -> VideoMAEForVideoClassification:
        config = teacher_config(self.config)
        assert config
        return VideoMAEForVideoClassification(config)

    def init_teacher(self, key: jax.Array) -> Params:
        dtype = compute_dtype(self.config.model)
        return jax.tree.map(lambda leaf: leaf.astype(dtype), self.teacher.init_params(key))

    def loss_beside(self, teacher: Params) -> Any:
        return partial(self._loss, teacher)

    def _loss(self, teacher: Params, params: Params, batch: Arrays, key: jax.Array) -> Float[Array, ""]:
        """The mean over clips, mixed as in fine-tuning, which both see alike."""
        clips, _ = self.augmented(batch, key)
        logits = self.training_logits(params, clips, key)
        shown = clips
        if pixels := teacher_pixels(self.config.teacher):
            mean, std = (jnp.asarray(values, jnp.float32) for values in pixels[:2])
            shown = (denormalize(clips) * pixels[2] - mean) / std
        said = cast(Any, self.teacher.apply({"params": teacher}, shown)).logits
        return distillation_losses(logits, said, self.config.teacher_temperature).mean()
