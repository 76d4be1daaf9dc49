"""Fine-tuning of a classifier as a task: augmentation on the device, and cross-entropy with soft targets."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from videomae_jax.config import FinetuneConfig
from videomae_jax.data.clips import CentreClip, FinetuneClips
from videomae_jax.models.classification import VideoMAEForVideoClassification
from videomae_jax.models.pixels import normalize
from videomae_jax.training.augment import augment
from videomae_jax.training.mixing import mix, soft_targets
from videomae_jax.training.optim import layer_scales
from videomae_jax.training.steps import Metrics, Params
from videomae_jax.training.tasks import Arrays

TOP = 5
"""Validation accuracy is also counted among so many best classes, where there are more classes."""


def soft_cross_entropy(logits: Float[Array, "b y"], targets: Float[Array, "b y"]) -> Float[Array, " b"]:
    """Cross-entropy of each clip against a distribution over the classes."""
    return -jnp.sum(targets * jax.nn.log_softmax(logits), axis=1)


@dataclass(frozen=True)
class Finetuning:
    """See `training.tasks.Task`."""

    config: FinetuneConfig
    best: ClassVar[str | None] = "val_top1"
    next_command: ClassVar[str] = "videomae-jax classify VIDEO --checkpoint"

    @property
    def model(self) -> VideoMAEForVideoClassification:
        return VideoMAEForVideoClassification(self.config.model, self.config.init_scale)

    @property
    def train_clips(self) -> FinetuneClips:
        return FinetuneClips(self.config.model, self.config.data)

    @property
    def held_out_clips(self) -> CentreClip:
        return CentreClip(self.config.model, self.config.data)

    def init_params(self, key: jax.Array) -> Params:
        return self.model.init_params(key)

    def start_params(self, source: str, key: jax.Array) -> tuple[Params, dict[str, str]]:
        params, head = self.model.start_from(source, key)
        return params, {"head": head}

    def lr_scales(self, params: Params) -> Params:
        return layer_scales(params, self.config.layer_decay)

    def prepare(self, arrays: Arrays, key: jax.Array) -> Arrays:
        return arrays

    def loss(self, params: Params, batch: Arrays, key: jax.Array) -> Float[Array, ""]:
        """Mean loss of clips augmented and mixed here, so that an accumulated batch never is whole."""
        clips, targets = self.augmented(batch, key)
        for_dropout = jax.random.fold_in(key, 2)
        logits = self._logits(params, clips, deterministic=False, rngs={"dropout": for_dropout})
        return soft_cross_entropy(logits, targets).mean()

    def augmented(
        self, batch: Arrays, key: jax.Array
    ) -> tuple[Float[Array, "b T S S c"], Float[Array, "b y"]]:
        """Normalised clips as the model is to see them, augmented and mixed, and their targets."""
        config = self.config
        for_augment, for_mix = jax.random.fold_in(key, 0), jax.random.fold_in(key, 1)
        clips = augment(for_augment, batch["video"], batch["box"], config.augment, config.model.image_size)
        targets = soft_targets(batch["label"], config.model.num_labels, config.augment.label_smoothing)
        return mix(for_mix, clips, targets, config.augment)

    def _logits(
        self, params: Params, clips: Float[Array, "b T H W c"], **settings: Any
    ) -> Float[Array, "b y"]:
        return cast(Any, self.model.apply({"params": params}, clips, **settings)).logits

    def held_out_sums(
        self, params: Params, arrays: Arrays, weights: Float[Array, " b"], key: jax.Array
    ) -> Metrics:
        """Cross-entropy without smoothing, and how often the class is the best, or among the best five."""
        logits = self._logits(params, normalize(arrays["video"]))
        own = jnp.take_along_axis(logits, arrays["label"][:, None], axis=1)
        losses = jax.nn.logsumexp(logits, axis=1) - own[:, 0]
        # Of equal scores the class with the lowest number counts as the better.
        before = jnp.arange(logits.shape[1]) < arrays["label"][:, None]
        rank = jnp.sum((logits > own) | ((logits == own) & before), axis=1)
        sums = {"loss": jnp.sum(losses * weights), "top1": jnp.sum((rank < 1) * weights)}
        if self.config.model.num_labels > TOP:
            sums["top5"] = jnp.sum((rank < TOP) * weights)
        return sums | {"count": jnp.sum(weights)}

    def summary(self, row: Mapping[str, Any]) -> list[str]:
        top5 = f", top-5 {row['val_top5']:.1%}" if "val_top5" in row else ""
        return [f"validation top-1 {row['val_top1']:.1%}{top5} (one clip a video)"]

    def describe(self) -> dict[str, str]:
        config, augment = self.config, self.config.augment
        rand = (
            f"RandAugment {augment.rand_num_ops} x magnitude {augment.rand_magnitude:g}, "
            if augment.rand_num_ops
            else ""
        )
        return {
            "augmentation": f"{rand}crops of {augment.crop_scale[0]:.0%} to {augment.crop_scale[1]:.0%}, "
            f"{'flip' if augment.flip else 'no flip'}, erasing {augment.erase_prob:g}, mixup "
            f"{augment.mixup:g}, cutmix {augment.cutmix:g}, smoothing {augment.label_smoothing:g}",
            "decay": f"layers learn {config.layer_decay:g} times as fast as the one after them; drop path "
            f"{config.model.drop_path:g}, head dropout {config.model.head_dropout:g}"
            + (f", evaluated by the average of weights at {config.ema_decay:g}" if config.ema_decay else ""),
        }
