"""How often each value of a channel occurs in a frame, and new values by a table.

A TPU scatters and gathers single numbers slowly, so there both are products: of which upper four bits a pixel
has with which lower four.
"""

import math

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Bool, Float, Int, Shaped, UInt8

from videomae_jax.models.compiled_for import hardware
from videomae_jax.training.augmentation.frames import Video

_PLANES, _PIXELS = 8, 2**14
"""What a TPU takes at a time: as many planes as fill its 128 rows with 16 values each, and so many pixels."""


def count_values(video: Video, valid: Bool[Array, "H W 1 1"]) -> Int[Array, "T c 256"]:
    """Histograms of each channel of each frame, of the valid part."""
    shape = *video.shape[2:], 256
    if hardware().platform == "tpu":
        return _counted_by_products(video, valid[:, :, 0, 0]).reshape(shape)
    nowhere = math.prod(shape)
    bins = jnp.where(valid, _bins(video), nowhere)
    return jnp.bincount(bins.reshape(-1), length=nowhere).reshape(shape)


def look_up(video: Video, table: UInt8[Array, "T c 256"]) -> Video:
    """The value that a table has for each value."""
    if hardware().platform == "tpu":
        return _found_by_products(video, table)
    return table.reshape(-1)[_bins(video)]


def _bins(video: Video) -> Int[Array, "H W T c"]:
    """The place of each value in a row of all histograms."""
    shape = video.shape[2:]
    return jnp.arange(math.prod(shape)).reshape(shape) * 256 + video


def _pieces(planes: Shaped[Array, "p H W"]) -> Shaped[Array, "pieces s g n"]:
    """Pieces of all planes; zeros fill up the last plane and piece."""
    count, pixels = len(planes), planes[0].size
    pieces = -(-pixels // _PIXELS)
    planes = jnp.pad(planes.reshape(count, pixels), ((0, -count % _PLANES), (0, -pixels % pieces)))
    return rearrange(planes, "(s g) (i n) -> i s g n", g=_PLANES, i=pieces)


def _hot(digits: UInt8[Array, "s g n"]) -> Float[Array, "s g 16 n"]:
    """1 at the place of each digit of 0 to 15. A TPU rounds factors to bfloat16, which holds what is here."""
    return (digits.astype(jnp.int32)[:, :, None] == jnp.arange(16)[:, None]).astype(jnp.float32)


def _counted_by_products(video: Video, valid: Bool[Array, "H W"]) -> Int[Array, "p 256"]:
    def count(piece: tuple[Array, Array]) -> Int[Array, "s g 16 16"]:
        values, valid = piece
        factors = _hot(values >> 4) * valid[:, :1, None], _hot(values & 15)
        pairs = jnp.einsum("sgun,skln->sgukl", *factors, precision=jax.lax.Precision.DEFAULT)
        return jnp.einsum("sgugl->sgul", pairs).astype(jnp.int32)

    planes = rearrange(video, "H W T c -> (T c) H W")
    counts = jax.lax.map(count, (_pieces(planes), _pieces(valid[None])))
    return jnp.sum(counts, axis=0).reshape(-1, 256)[: len(planes)]


def _found_by_products(video: Video, table: UInt8[Array, "T c 256"]) -> Video:
    height, width, frames, channels = video.shape
    planes = table.reshape(-1, 256)
    planes = jnp.pad(planes, ((0, -len(planes) % _PLANES), (0, 0))).astype(jnp.float32)
    rows = rearrange(planes, "(s g) (u l) -> s g u l", g=_PLANES, u=16)
    rows = jnp.einsum("sgul,gk->sgukl", rows, jnp.eye(_PLANES))

    def find(values: UInt8[Array, "s g n"]) -> UInt8[Array, "s g n"]:
        by_upper = jnp.einsum(
            "sgukl,skln->sgun", rows, _hot(values & 15), precision=jax.lax.Precision.DEFAULT
        )
        return jnp.sum(by_upper * _hot(values >> 4), axis=2).astype(jnp.uint8)

    pieces = _pieces(rearrange(video, "H W T c -> (T c) H W"))
    found = rearrange(jax.lax.map(find, pieces), "i s g n -> (s g) (i n)")
    found = found[: frames * channels, : height * width]
    return rearrange(found, "(T c) (H W) -> H W T c", c=channels, H=height)
