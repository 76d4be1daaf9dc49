"""How a pre-trained model reconstructs the masked part of a clip, without reading what is masked.

A model trained on normalised patches says only how pixels vary inside a patch. To show that as pixels takes a
brightness and a contrast for each masked patch, and these are guessed from what is visible (`brightness.py`).
The original viewer takes them from the masked patches themselves, which looks better than the model is
(MCG-NJU/VideoMAE#120); that can be chosen too, and the pictures say so.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jaxtyping import Array, Float, Int, UInt8

from videomae_jax.inference.normalization import Normalization
from videomae_jax.inference.reconstruction.brightness import Statistics, guess_statistics
from videomae_jax.model_config import VideoMAEConfig
from videomae_jax.models.masking import Mask
from videomae_jax.models.patches import patchify, unpatchify
from videomae_jax.models.pixels import tubelet_targets
from videomae_jax.models.pretraining import VideoMAEForPreTraining

GREY = 128
"""The value that stands for masked pixels."""


@dataclass(frozen=True)
class Reconstruction:
    """A clip, what the model saw of it, and the model's picture of the rest; all (T, H, W, c) uint8."""

    original: UInt8[np.ndarray, "T H W c"]
    masked: UInt8[np.ndarray, "T H W c"]
    reconstruction: UInt8[np.ndarray, "T H W c"]
    """Visible patches as they are, masked ones as predicted."""
    loss: float
    """The training loss on the masked patches."""
    zero_loss: float
    """What predicting zero everywhere scores on them."""
    pixel_error: float
    """Mean squared error of the masked pixels, which lie in [0, 1]."""


def rows_of(result: Reconstruction) -> dict[str, UInt8[np.ndarray, "T H W c"]]:
    """What pictures of it show, in order."""
    return {
        "original": result.original,
        "masked": result.masked,
        "reconstruction": result.reconstruction,
    }


def reconstruct(
    config: VideoMAEConfig,
    params: dict,
    clip: UInt8[np.ndarray, "T H W c"],
    mask: Mask,
    true_statistics: bool = False,
    normalization: Normalization | None = None,
) -> Reconstruction:
    """Mask a part of a clip and let the model fill it in.

    `mask` is the index pair of one clip, each (1, ...). With `true_statistics` the brightness and contrast of
    masked patches are the true ones, as in the original viewer; a model of raw pixels needs neither.
    """
    masked = np.asarray(mask[1])[0]
    tubelets = np.array(patchify(clip[None], config)[0])
    by_channel = partial(rearrange, pattern="n (x c) -> n x c", c=config.num_channels)
    targets = tubelet_targets(jnp.asarray(tubelets[None]), config.num_channels, config.norm_pix_loss)
    targets = by_channel(np.asarray(targets[0]))
    logits = np.asarray(
        _predict(config, normalization or Normalization(), params, tubelets[None], *mask)[0], np.float32
    )
    predicted, truth = by_channel(logits), by_channel(tubelets) / np.float32(255)
    pixels = predicted
    if config.norm_pix_loss:
        patterns = targets.copy()
        patterns[masked] = predicted
        mean, contrast = _statistics(truth, patterns, masked, config, true_statistics)
        pixels = mean[masked, None] + contrast[masked, None] * predicted
    pixels = np.clip(pixels, 0, 1)
    blank, filled = tubelets.copy(), tubelets.copy()
    blank[masked] = GREY
    filled[masked] = rearrange(np.rint(255 * pixels), "m x c -> m (x c)")
    videos = [np.asarray(unpatchify(each[None], config)[0]) for each in (tubelets, blank, filled)]
    return Reconstruction(
        videos[0],
        videos[1],
        videos[2],
        loss=float(np.mean((predicted - targets[masked]) ** 2)),
        zero_loss=float(np.mean(targets[masked] ** 2)),
        pixel_error=float(np.mean((pixels - truth[masked]) ** 2)),
    )


def _statistics(
    pixels: Float[np.ndarray, "n x c"],
    patterns: Float[np.ndarray, "n x c"],
    masked: Int[np.ndarray, " m"],
    config: VideoMAEConfig,
    true_statistics: bool,
) -> Statistics:
    """Mean and deviation of every tubelet: the true ones, or those guessed where masked."""
    statistics = pixels.mean(1), pixels.std(1, ddof=1)
    if true_statistics:
        return statistics
    visible = np.ones(len(pixels), bool)
    visible[masked] = False
    return guess_statistics(patterns, statistics, visible, config)


@partial(jax.jit, static_argnums=(0, 1))
def _predict(
    config: VideoMAEConfig,
    normalization: Normalization,
    params: dict,
    tubelets: UInt8[Array, "b n p"],
    visible: Int[Array, "b v"],
    masked: Int[Array, "b m"],
) -> Float[Array, "b m p"]:
    """The decoder's values for the masked tubelets, from the visible ones alone."""
    shown = jnp.take_along_axis(tubelets, visible[:, :, None], axis=1)
    shown = normalization(rearrange(shown, "b v (x c) -> b v x c", c=config.num_channels))
    model = VideoMAEForPreTraining(config)
    inputs = rearrange(shown, "b v x c -> b v (x c)")
    logits = model.apply({"params": params}, inputs, visible, masked, method="predict")
    assert isinstance(logits, jax.Array)
    return logits
