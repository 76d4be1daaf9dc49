"""Fine-tuning of a classifier: augmentation on the device, and cross-entropy with soft targets."""

from dataclasses import dataclass
from typing import Any, ClassVar, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from videomae_jax.config import FinetuneConfig
from videomae_jax.data.clips.plane_readers import FinetunePlanes
from videomae_jax.data.clips.readers import FinetuneClips
from videomae_jax.models.classification import VideoMAEForVideoClassification
from videomae_jax.models.pixels import normalize
from videomae_jax.models.ranking import TOP, classes_ahead
from videomae_jax.training.augmentation.augment import augment
from videomae_jax.training.augmentation.mixing import mix, soft_targets
from videomae_jax.training.augmentation.planes import canvases_of_planes
from videomae_jax.training.objectives.objective import Arrays, Metrics, Objective, Params
from videomae_jax.training.optimizer import layer_scales


def soft_cross_entropy(logits: Float[Array, "b y"], targets: Float[Array, "b y"]) -> Float[Array, " b"]:
    """Cross-entropy of each clip against a distribution over the classes."""
    return -jnp.sum(targets * jax.nn.log_softmax(logits), axis=1)


@dataclass(frozen=True)
class Finetuning(Objective):
    """See `objective.Objective`."""

    config: FinetuneConfig
    best: ClassVar[str | None] = "val_top1"

    @property
    def model(self) -> VideoMAEForVideoClassification:
        return VideoMAEForVideoClassification(self.config.model, init_scale=self.config.init_scale)

    @property
    def train_clips(self) -> FinetuneClips:
        reader = FinetunePlanes if self.reads_planes else FinetuneClips
        return reader(self.config.model, self.config.data)

    def with_video(self, arrays: Arrays) -> Arrays:
        if "planes" not in arrays:
            return arrays
        planes, colour, window, box = (arrays[name] for name in ("planes", "colour", "window", "box"))
        video = canvases_of_planes(planes, colour, window, box, self.config.data.canvas)
        return {"video": video, "box": box, "label": arrays["label"]}

    def start_params(self, source: str, key: jax.Array) -> tuple[Params, dict[str, str]]:
        params, head = self.model.start_from(source, key)
        return params, {"head": head}

    def draw(self, arrays: Arrays, key: jax.Array) -> Arrays:
        return self.with_video(arrays)

    def lr_scales(self, params: Params) -> Params:
        return layer_scales(params, self.config.layer_decay)

    def loss(self, params: Params, batch: Arrays, key: jax.Array) -> Float[Array, ""]:
        """Mean loss of clips augmented and mixed here, so that an accumulated batch never is whole."""
        clips, targets = self.augmented(batch, key)
        return soft_cross_entropy(self.training_logits(params, clips, key), targets).mean()

    def training_logits(
        self, params: Params, clips: Float[Array, "b T H W c"], key: jax.Array
    ) -> Float[Array, "b y"]:
        """With paths and features dropped."""
        for_dropout = jax.random.fold_in(key, 2)
        return self._logits(params, clips, deterministic=False, rngs={"dropout": for_dropout})

    def augmented(
        self, batch: Arrays, key: jax.Array
    ) -> tuple[Float[Array, "b T H W c"], Float[Array, "b y"]]:
        """Normalised clips as the model is to see them, augmented and mixed, and their targets."""
        config = self.config
        for_augment, for_mix = jax.random.fold_in(key, 0), jax.random.fold_in(key, 1)
        clips = augment(for_augment, batch["video"], batch["box"], config.augment, config.model.frame_size)
        targets = soft_targets(batch["label"], config.model.num_labels, config.augment.label_smoothing)
        return mix(for_mix, clips, targets, config.augment)

    def _logits(
        self, params: Params, clips: Float[Array, "b T H W c"], **settings: Any
    ) -> Float[Array, "b y"]:
        return cast(Any, self.model.apply({"params": params}, clips, **settings)).logits

    def validation_sums(
        self, params: Params, arrays: Arrays, weights: Float[Array, " b"], key: jax.Array
    ) -> Metrics:
        """Cross-entropy without smoothing, and how often the class is the best, or among the best five."""
        logits = self._logits(params, normalize(arrays["video"]))
        own = jnp.take_along_axis(logits, arrays["label"][:, None], axis=1)
        losses = jax.nn.logsumexp(logits, axis=1) - own[:, 0]
        ahead = classes_ahead(logits, arrays["label"])
        sums = {"loss": jnp.sum(losses * weights), "top1": jnp.sum((ahead < 1) * weights)}
        if self.config.model.num_labels > TOP:
            sums["top5"] = jnp.sum((ahead < TOP) * weights)
        return sums | {"count": jnp.sum(weights)}
