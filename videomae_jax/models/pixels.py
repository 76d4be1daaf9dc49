"""Pixels in and out: the ImageNet normalisation of inputs and the targets that the decoder predicts."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from einops import reduce, repeat
from jaxtyping import Array, Float, Num

from videomae_jax import processing
from videomae_jax.models.compiled_for import hardware

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
    count = tubelets.shape[-1] // num_channels
    summed, spread = _by_channel(count, num_channels)
    centred = tubelets - spread(tubelets[..., :num_channels])
    centred = centred - spread(summed(centred) / count)
    variance = summed(centred**2) / (count - 1)
    return centred / spread(jnp.sqrt(variance) + 255e-6)


def _by_channel(count: int, num_channels: int) -> tuple[Callable[..., jax.Array], Callable[..., jax.Array]]:
    """From values (b, m, p) of tubelets of `count` pixels to sums by channel (b, m, c), and back again.

    A TPU fills an axis of three channels up to 128, so products with 0 and 1 sum and spread. A GPU would
    write what goes into these products to memory.
    """
    if hardware().platform == "gpu":
        return (
            partial(reduce, pattern="b m (x c) -> b m c", reduction="sum", c=num_channels),
            partial(repeat, pattern="b m c -> b m (x c)", x=count),
        )
    channel = np.tile(np.eye(num_channels, dtype=np.float32), (count, 1))
    product = partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
    return (
        lambda values: product("bmp,pc->bmc", values, channel),
        lambda values: product("bmc,pc->bmp", values, channel),
    )
