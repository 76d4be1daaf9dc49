"""Pixels in and out: the ImageNet normalisation of inputs and the targets that the decoder predicts."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from videomae_jax import processing

IMAGENET_MEAN = np.array(processing.IMAGENET_MEAN, np.float32)
IMAGENET_STD = np.array(processing.IMAGENET_STD, np.float32)


def normalize(pixels: Num[Array | np.ndarray, "... c"]) -> Float[Array, "... c"]:
    """uint8 pixels in [0, 255] to float32 with ImageNet's mean and standard deviation removed.

    The last axis holds the channels of one pixel, or those of many pixels in a row, as in a tubelet.
    """
    mean, std = (np.tile(each, pixels.shape[-1] // 3) for each in (IMAGENET_MEAN, IMAGENET_STD))
    return (jnp.asarray(pixels, jnp.float32) / 255 - mean) / std


def denormalize(pixels: Float[Array | np.ndarray, "... c"]) -> Float[Array, "... c"]:
    """The inverse of `normalize`, float32 in uint8 units, not rounded."""
    mean, std = (np.tile(each, pixels.shape[-1] // 3) for each in (IMAGENET_MEAN, IMAGENET_STD))
    return (jnp.asarray(pixels, jnp.float32) * std + mean) * 255


def tubelet_targets(
    tubelets: Num[Array, "b m p"], num_channels: int, norm_pix_loss: bool
) -> Float[Array, "b m p"]:
    """What the decoder should say of each masked tubelet, from pixels in uint8 units; no gradient flows.

    With `norm_pix_loss`, each channel of a tubelet loses its mean and is divided by its unbiased standard
    deviation + 1e-6 (here 255e-6, in uint8 units). Values are first taken relative to the tubelet's first
    pixel, which changes nothing in exact arithmetic and makes a flat tubelet exactly 0: dividing its rounding
    noise by 1e-6 gives targets up to 0.36. Without, the pixels in [0, 1].
    """
    tubelets = jax.lax.stop_gradient(jnp.asarray(tubelets, jnp.float32))
    if not norm_pix_loss:
        return tubelets / 255
    size = tubelets.shape[-1]
    # A TPU fills an axis of three channels up to 128, so products with 0 and 1 sum and spread instead.
    channel = np.eye(num_channels, dtype=np.float32)[np.arange(size) % num_channels]
    summed, spread = (
        partial(jnp.einsum, form, precision=jax.lax.Precision.HIGHEST)
        for form in ("bmp,pc->bmc", "bmc,pc->bmp")
    )
    count = size // num_channels
    centred = tubelets - spread(tubelets[..., :num_channels], channel)
    centred = centred - spread(summed(centred, channel) / count, channel)
    variance = summed(centred**2, channel) / (count - 1)
    return centred / spread(jnp.sqrt(variance) + 255e-6, channel)
