"""RandAugment on the device, with the operations of Pillow, for one clip at a time.

Frames are (H, W, T, 3), so that one place of all frames lies together: moving a clip then moves runs of T * 3
bytes. Only the valid part of a canvas counts, `size` = (height, width) at the top left: nothing outside of it
reaches a pixel inside, and what is left outside has no meaning. Results are whole numbers after each
operation, as in Pillow; docs/augmentation.md has the largest differences.

Source: timm's RandAugment in its form for videos, `rand-m7-n4-mstd0.5-inc1`.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt8

from videomae_jax.config import AugmentConfig

Video = UInt8[Array, "H W T 3"]
Size = Int[Array, "2"]
Row = tuple[Array | float, Array | float, Array | float]
"""One line of an affine map: factors of x and y, and a shift in pixels."""
Amount = Float[Array, ""]
"""What an operation takes: degrees, a factor, a threshold, bits, a share of the side."""

APPLY_PROB = 0.5
"""Chance that a drawn operation is applied."""
MAX_LEVEL = 10.0
FILL = 128
"""Grey that comes in from outside when frames are moved."""
_GRID = 4096
"""Places to which pixels are moved, per pixel."""


def auto_contrast(video: Video, size: Size, _: Amount) -> Video:
    """Stretch each channel of each frame to 0 to 255."""
    inside = _inside(video, size)
    low = jnp.min(jnp.where(inside, video, 255), axis=(0, 1)).astype(jnp.float32)
    high = jnp.max(jnp.where(inside, video, 0), axis=(0, 1)).astype(jnp.float32)
    # The half keeps whole results whole: products miss them by less than that.
    stretched = ((video - low) * 255 + 0.5) * (1 / jnp.maximum(high - low, 1))
    return jnp.where(high > low, jnp.clip(stretched, 0, 255), video).astype(jnp.uint8)


def equalize(video: Video, size: Size, _: Amount) -> Video:
    """Make the histogram of each channel of each frame even."""
    frames, channels = video.shape[2:]
    planes = jnp.arange(channels * frames).reshape(channels, frames).T
    places = planes * 256 + video
    nowhere = planes.size * 256
    inside = jnp.where(_inside(video, size), places, nowhere)
    counts = jnp.bincount(inside.reshape(-1), length=nowhere).reshape(channels, frames, 256)
    # Mapped, as XLA otherwise merges tables and look-up and computes a table's entry anew for every pixel.
    return jax.lax.map(_even_table, counts).reshape(-1)[places]


def _even_table(counts: Int[Array, "T 256"]) -> UInt8[Array, "T 256"]:
    """The new value of each value; all stay where there are too few pixels besides the brightest."""
    values = jnp.arange(256)
    highest = jnp.max(jnp.where(counts > 0, values, 0), axis=1, keepdims=True)
    total = jnp.sum(counts, axis=1, keepdims=True)
    step = (total - jnp.take_along_axis(counts, highest, axis=1)) // 255
    below = jnp.cumsum(counts, axis=1) - counts
    table = jnp.minimum((step // 2 + below) // jnp.maximum(step, 1), 255)
    return jnp.where(step > 0, table, values).astype(jnp.uint8)


def invert(video: Video, size: Size, _: Amount) -> Video:
    return 255 - video


def posterize(video: Video, size: Size, bits: Amount) -> Video:
    """Keep the highest bits."""
    return video & (255 << (8 - bits.astype(jnp.int32))).astype(jnp.uint8)


def solarize(video: Video, size: Size, threshold: Amount) -> Video:
    """Invert values from a threshold on."""
    return jnp.where(video < threshold.astype(jnp.int32), video, 255 - video)


def solarize_add(video: Video, size: Size, amount: Amount) -> Video:
    """Make dark values brighter."""
    brighter = jnp.minimum(video + amount.astype(jnp.int32), 255)
    return jnp.where(video < 128, brighter, video).astype(jnp.uint8)


def color(video: Video, size: Size, factor: Amount) -> Video:
    """Blend with the grey picture; 1 leaves all as it is."""
    return _blend(_grey(video), video, factor)


def contrast(video: Video, size: Size, factor: Amount) -> Video:
    """Blend with the mean grey of the frame."""
    total = jnp.sum(jnp.where(_inside(video, size), _grey(video), 0), axis=(0, 1))
    pixels = size[0] * size[1]
    return _blend((2 * total + pixels) // (2 * pixels), video, factor)


def brightness(video: Video, size: Size, factor: Amount) -> Video:
    """Blend with black."""
    return _blend(jnp.zeros((), jnp.int32), video, factor)


def sharpness(video: Video, size: Size, factor: Amount) -> Video:
    """Blend with a smooth copy, whose outermost pixels are those of the original."""
    wide = video.astype(jnp.int16)
    columns = wide + jnp.roll(wide, 1, axis=0) + jnp.roll(wide, -1, axis=0)
    around = columns + jnp.roll(columns, 1, axis=1) + jnp.roll(columns, -1, axis=1) + 4 * wide
    smooth = (2 * around + 13) // 26
    y, x = _places(video)
    border = (y == 0) | (x == 0) | (y == size[0] - 1) | (x == size[1] - 1)
    return _blend(jnp.where(border, wide, smooth).astype(jnp.int32), video, factor)


def rotate(video: Video, size: Size, degrees: Amount) -> Video:
    """Turn frames about their middle, counter-clockwise."""
    height, width = size[0] / 2, size[1] / 2
    cos, sin = jnp.cos(jnp.deg2rad(degrees)), -jnp.sin(jnp.deg2rad(degrees))
    return _affine(
        video, size, (cos, sin, width - cos * width - sin * height),
        (-sin, cos, height + sin * width - cos * height),
    )  # fmt: skip


def shear_x(video: Video, size: Size, factor: Amount) -> Video:
    """Shift rows to the left by `factor` times their distance from the top."""
    return _affine(video, size, (1, factor, 0), (0, 1, 0))


def shear_y(video: Video, size: Size, factor: Amount) -> Video:
    """Shift columns upwards by `factor` times their distance from the left."""
    return _affine(video, size, (1, 0, 0), (factor, 1, 0))


def translate_x(video: Video, size: Size, share: Amount) -> Video:
    """Shift frames to the left by a share of their width."""
    return _affine(video, size, (1, 0, share * size[1]), (0, 1, 0))


def translate_y(video: Video, size: Size, share: Amount) -> Video:
    """Shift frames upwards by a share of their height."""
    return _affine(video, size, (1, 0, 0), (0, 1, share * size[0]))


def _places(video: Video) -> tuple[Int[Array, "H 1 1 1"], Int[Array, "1 W 1 1"]]:
    height, width = video.shape[:2]
    return jnp.arange(height)[:, None, None, None], jnp.arange(width)[None, :, None, None]


def _inside(video: Video, size: Size) -> Bool[Array, "H W 1 1"]:
    y, x = _places(video)
    return (y < size[0]) & (x < size[1])


def _grey(video: Video) -> Int[Array, "H W T 1"]:
    red, green, blue = (video[..., channel : channel + 1].astype(jnp.int32) for channel in range(3))
    return (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16


def _blend(other: Int[Array, "..."], video: Video, factor: Amount) -> Video:
    """`other` where the factor is 0 and `video` where it is 1, clipped and cut to whole numbers."""
    blended = other + factor * (video.astype(jnp.int32) - other)
    return jnp.clip(blended, 0, 255).astype(jnp.uint8)


def _affine(video: Video, size: Size, to_x: Row, to_y: Row) -> Video:
    """Take each pixel from a place x = a x' + b y' + c, and likewise y, with Pillow's bicubic weights.

    Places count from the outer edge of the first pixel. Those outside of the frame give grey.
    """
    height, width, frames, channels = video.shape
    down, across = jnp.arange(height)[:, None] + 0.5, jnp.arange(width)[None, :] + 0.5
    # Whole numbers of a fine grid: compilers may compute a float twice, and not alike, so that the pixel
    # found and the distance from it would not belong together.
    x, y = (jnp.round((a * across + b * down + c) * _GRID).astype(int) for a, b, c in (to_x, to_y))
    found = (x >= 0) & (x < size[1] * _GRID) & (y >= 0) & (y < size[0] * _GRID)
    (left, x), (top, y) = (jnp.divmod(place - _GRID // 2, _GRID) for place in (x, y))
    pixels = video.reshape(height * width, frames * channels)
    rows = []
    for below in range(-1, 3):
        row = jnp.clip(top + below, 0, size[0] - 1) * width
        taps = [pixels[row + jnp.clip(left + after, 0, size[1] - 1)] for after in range(-1, 3)]
        rows.append(_cubic(taps, x[..., None] / _GRID))
    moved = jnp.clip(_cubic(rows, y[..., None] / _GRID), 0, 255).astype(jnp.uint8)
    return jnp.where(found[..., None], moved, jnp.uint8(FILL)).reshape(video.shape)


def _cubic(taps: list[Array], place: Array) -> Array:
    """The cubic through four values, at a place between the second (0) and the third (1).

    Its slope is twice that of the usual bicubic kernel (a = -1), as in Pillow's transforms. Flat parts come
    out exactly, which matters as results are cut, not rounded.
    """
    before, here, after, beyond = (tap.astype(jnp.float32) for tap in taps)
    linear = after - before
    square = 2 * (before - here) + after - beyond
    cube = here - before + beyond - after
    return here + place * (linear + place * (square + place * cube))


class Operation(NamedTuple):
    """What is done, and the amount for a level of 0 to 10 and a sign."""

    apply: Callable[[Video, Size, Amount], Video]
    amount: Callable[[Amount, Amount], Amount]


def _none(level: Amount, sign: Amount) -> Amount:
    return level


def _share(largest: float) -> Callable[[Amount, Amount], Amount]:
    return lambda level, sign: sign * level / MAX_LEVEL * largest


def _enhance(level: Amount, sign: Amount) -> Amount:
    return 1 + sign * level / MAX_LEVEL * 0.9


OPERATIONS = {
    "AutoContrast": Operation(auto_contrast, _none),
    "Equalize": Operation(equalize, _none),
    "Invert": Operation(invert, _none),
    "Rotate": Operation(rotate, _share(30)),
    "PosterizeIncreasing": Operation(posterize, lambda level, _: 4 - jnp.floor(level / MAX_LEVEL * 4)),
    "SolarizeIncreasing": Operation(solarize, lambda level, _: 256 - jnp.floor(level / MAX_LEVEL * 256)),
    "SolarizeAdd": Operation(solarize_add, lambda level, _: jnp.floor(level / MAX_LEVEL * 110)),
    "ColorIncreasing": Operation(color, _enhance),
    "ContrastIncreasing": Operation(contrast, _enhance),
    "BrightnessIncreasing": Operation(brightness, _enhance),
    "SharpnessIncreasing": Operation(sharpness, _enhance),
    "ShearX": Operation(shear_x, _share(0.3)),
    "ShearY": Operation(shear_y, _share(0.3)),
    "TranslateXRel": Operation(translate_x, _share(0.45)),
    "TranslateYRel": Operation(translate_y, _share(0.45)),
}
"""The increasing list: every operation changes more at a higher level."""


class Draws(NamedTuple):
    """The operations of one clip, in order."""

    numbers: Int[Array, " n"]
    """0 for none, else 1 + its place in OPERATIONS."""
    levels: Float[Array, " n"]
    signs: Float[Array, " n"]


def draw_operations(key: jax.Array, config: AugmentConfig) -> Draws:
    """Draw operations with replacement, each applied with a chance of one half at a level of its own."""
    shape = (config.rand_num_ops,)
    which, apply, level, sign = jax.random.split(key, 4)
    numbers = jax.random.randint(which, shape, 1, len(OPERATIONS) + 1)
    levels = config.rand_magnitude + config.rand_magnitude_std * jax.random.normal(level, shape)
    return Draws(
        jnp.where(jax.random.bernoulli(apply, APPLY_PROB, shape), numbers, 0),
        jnp.clip(levels, 0, MAX_LEVEL),
        jax.random.rademacher(sign, shape, jnp.float32),
    )


def _leave(video: Video, level: Amount, sign: Amount) -> Video:
    return video


def _apply(operation: Operation, size: Size, video: Video, level: Amount, sign: Amount) -> Video:
    return operation.apply(video, size, operation.amount(level, sign))


def apply_operations(video: Video, size: Size, draws: Draws) -> Video:
    """Apply drawn operations one after the other; those not drawn are not computed, unless under vmap."""
    branches: list[Callable[..., Video]] = [_leave]
    branches += [partial(_apply, operation, size) for operation in OPERATIONS.values()]

    def apply(video: Video, draw: Draws) -> tuple[Video, None]:
        return jax.lax.switch(draw.numbers, branches, video, draw.levels, draw.signs), None

    return jax.lax.scan(apply, video, draws)[0]
