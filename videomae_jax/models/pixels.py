"""Pixels in and out: the ImageNet normalisation of inputs and the targets that the decoder predicts."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from videomae_jax import processing

IMAGENET_MEAN = np.array(processing.IMAGENET_MEAN, np.float32)
IMAGENET_STD = np.array(processing.IMAGENET_STD, np.float32)


def normalize(pixels: Num[Array | np.ndarray, "... c"]) -> Float[Array, "... c"]:
    """uint8 pixels in [0, 255] to float32 with ImageNet's mean and standard deviation removed."""
    return (jnp.asarray(pixels, jnp.float32) / 255 - IMAGENET_MEAN) / IMAGENET_STD


def denormalize(pixels: Float[Array | np.ndarray, "... c"]) -> Float[Array, "... c"]:
    """The inverse of `normalize`, float32 in uint8 units, not rounded."""
    return (jnp.asarray(pixels, jnp.float32) * IMAGENET_STD + IMAGENET_MEAN) * 255


def tubelet_targets(pixels: Num[Array, "b m x c"], norm_pix_loss: bool) -> Float[Array, "b m x c"]:
    """What the decoder should say of each masked tubelet, from pixels in uint8 units; no gradient flows.

    With `norm_pix_loss`, each channel of a tubelet loses its mean and is divided by its unbiased standard
    deviation + 1e-6 (here 255e-6, in uint8 units). Values are first taken relative to the tubelet's first
    pixel, which changes nothing in exact arithmetic and makes a flat tubelet exactly 0: dividing its rounding
    noise by 1e-6 gives targets up to 0.36. Without, the pixels in [0, 1].
    """
    pixels = jax.lax.stop_gradient(jnp.asarray(pixels, jnp.float32))
    if not norm_pix_loss:
        return pixels / 255
    centred = pixels - pixels[:, :, :1]
    centred = centred - centred.mean(axis=2, keepdims=True)
    variance = jnp.sum(centred**2, axis=2, keepdims=True) / (pixels.shape[2] - 1)
    return centred / (jnp.sqrt(variance) + 255e-6)
