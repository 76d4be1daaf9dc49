"""Maps of a clip by a checkpoint of any kind, as overlays, and how much they depend on its weights."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from videomae_jax.errors import InputError
from videomae_jax.inference.features.clip_encoder import Model, load_model
from videomae_jax.inference.normalization import Normalization, read_normalization
from videomae_jax.model_config import Dtype, VideoMAEConfig, check_rgb
from videomae_jax.models.classification import VideoMAEForVideoClassification
from videomae_jax.models.maps import attention_rollout, class_map, randomized, token_pca

Clip = UInt8[np.ndarray, "T H W 3"]
Grid = Float[np.ndarray, "t h w"]
Colours = Float[np.ndarray, "t h w 3"]


@dataclass(frozen=True)
class Explanation:
    """Maps of one clip on the grid of its tokens (t h w), and a check of each."""

    rollout: Grid
    """How much each token reaches what is pooled, times the number of tokens: 1 on average."""
    class_map: Grid | None
    """How strongly each token bears on a class; None without a classifier."""
    pca: Colours
    """The first three principal components of the last tokens, from 0 to 1."""
    label: int | None
    """The class of the class map."""
    random: dict[str, float]
    """The rank correlation of each map with that of the same weights in another order, by the map's name."""


class Explainer:
    """A checkpoint ready to explain clips. `config` is its model's."""

    def __init__(self, model: Model, params: Any, normalization: Normalization) -> None:
        check_rgb("explaining", model.config)
        self.config, self._params = model.config, params
        self.classifies = isinstance(model, VideoMAEForVideoClassification) and model.config.num_labels > 0
        self._other = randomized(params, jax.random.key(0))
        self._maps = jax.jit(partial(_maps, model, normalization, self.classifies))

    @classmethod
    def from_pretrained(cls, source: str | Path, dtype: Dtype = "auto") -> "Explainer":
        """From a Hugging Face folder or hub id, a work folder or a step folder, of a classifier or not."""
        return cls(*load_model(source, None, dtype), read_normalization(source))

    def number_of(self, name: str) -> int:
        """The number of a class; raises InputError, where there is none of this name."""
        if not self.classifies or name not in self.config.id2label:
            known = ", ".join(self.config.id2label[:20]) if self.classifies else "none: it is no classifier"
            raise InputError(f"the model has no class {name!r}; its classes are {known}")
        return self.config.id2label.index(name)

    def explain(self, clip: Clip, label: int | None = None) -> Explanation:
        """Maps of a clip; the class map is of `label`, by default of the class with the highest score."""
        best, found = self._of(self._params, clip, label)
        _, other = self._of(self._other, clip, best)
        random = {name: rank_correlation(found[name], other[name]) for name in found}
        return Explanation(found["rollout"], found.get("class_map"), found["pca"], best, random)

    def _of(self, params: Any, clip: Clip, label: int | None) -> tuple[int | None, dict[str, np.ndarray]]:
        given = jax.device_get(self._maps(params, clip[None], -1 if label is None else label))
        found = {
            "rollout": given["rollout"][0] * given["rollout"].shape[1],
            "pca": token_pca(given["tokens"][0]),
        }
        if self.classifies:
            found["class_map"] = given["class_map"][0]
        grids = {name: each.reshape(*self.config.grid, *each.shape[1:]) for name, each in found.items()}
        return int(given["label"][0]) if self.classifies else None, grids


def _maps(
    model: Model,
    normalization: Normalization,
    classifies: bool,
    params: Any,
    clips: jax.Array,
    label: jax.Array,
) -> dict[str, jax.Array]:
    """A negative label stands for the class with the highest score."""
    output = model.apply({"params": params}, normalization(clips), output_hidden_states=True)
    states = output.hidden_states  # type: ignore[union-attr]
    tokens = states[-1].astype(jnp.float32)
    found = {"tokens": tokens, "rollout": attention_rollout(model.config, params, states)}
    if classifies:
        best = output.logits[0].argmax()  # type: ignore[union-attr]
        chosen = jnp.where(label < 0, best, label)
        found |= {"class_map": class_map(model.config, params, states, chosen), "label": chosen[None]}
    return found


def rank_correlation(one: Float[np.ndarray, "..."], other: Float[np.ndarray, "..."]) -> float:
    """The absolute value of Spearman's rank correlation, from 0 (unrelated) to 1 (the same order)."""
    ranks = [each.reshape(-1).argsort().argsort() for each in (one, other)]
    return float(abs(np.asarray(np.corrcoef(np.stack(ranks)))[0, 1]))


def heat(clip: Clip, grid: Grid, config: VideoMAEConfig) -> Clip:
    """A map over the grey clip: dark where it is low, yellow where it is high, between its 1st and 99th
    percentile."""
    from matplotlib import colormaps

    low, high = np.percentile(grid, (1, 99))
    level = np.clip((grid - low) / max(high - low, 1e-12), 0, 1)
    coloured = 255 * colormaps["inferno"](_enlarged(level[..., None], clip, config)[..., 0])[..., :3]
    return _over_grey(clip, coloured, 0.6)


def colours(clip: Clip, grid: Colours, config: VideoMAEConfig) -> Clip:
    """Three values of each token as red, green and blue over the grey clip."""
    return _over_grey(clip, 255 * _enlarged(grid, clip, config), 0.75)


def _over_grey(clip: Clip, colour: Float[np.ndarray, "T H W 3"], share: float) -> Clip:
    grey = clip.mean(axis=-1, keepdims=True)
    return np.rint(share * colour + (1 - share) * grey).astype(np.uint8)


def _enlarged(
    grid: Float[np.ndarray, "t h w c"], clip: Clip, config: VideoMAEConfig
) -> Float[np.ndarray, "T H W c"]:
    """Linear between the centres of tokens in space; a tubelet's frames are alike."""
    size = clip.shape[2], clip.shape[1]
    frames = [
        np.stack(
            [
                np.asarray(
                    Image.fromarray(channel.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
                )
                for channel in np.moveaxis(frame, -1, 0)
            ],
            axis=-1,
        )
        for frame in grid
    ]
    return np.clip(np.stack(frames).repeat(config.tubelet_size, axis=0), 0, 1)
