"""RandAugment on the device, with the operations of Pillow, for one clip at a time.

Nothing outside of the valid part of a canvas reaches a pixel inside, and what is left outside has no
meaning. Results are whole numbers after each operation, as in Pillow; docs/augmentation.md has the largest
differences.

Source: timm's RandAugment in its form for videos, `rand-m7-n4-mstd0.5-inc1`.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt8

from videomae_jax.config import AugmentConfig
from videomae_jax.training.augmentation.frames import Amount, Size, Video, inside, places
from videomae_jax.training.augmentation.histogram import count_values, look_up
from videomae_jax.training.augmentation.moves import (
    STEEPEST,
    rotate,
    shear_x,
    shear_y,
    translate_x,
    translate_y,
)

APPLY_PROB = 0.5
"""Chance that a drawn operation is applied."""
MAX_LEVEL = 10.0


def auto_contrast(video: Video, size: Size, _: Amount) -> Video:
    """Stretch each channel of each frame to 0 to 255."""
    valid = inside(video, size)
    low = jnp.min(jnp.where(valid, video, 255), axis=(0, 1)).astype(jnp.float32)
    high = jnp.max(jnp.where(valid, video, 0), axis=(0, 1)).astype(jnp.float32)
    # The half keeps whole results whole: products miss them by less than that.
    stretched = ((video - low) * 255 + 0.5) * (1 / jnp.maximum(high - low, 1))
    return jnp.where(high > low, jnp.clip(stretched, 0, 255), video).astype(jnp.uint8)


def equalize(video: Video, size: Size, _: Amount) -> Video:
    """Make the histogram of each channel of each frame even."""
    counts = count_values(video, inside(video, size))
    # Mapped, as XLA otherwise merges tables and look-up and computes a table's entry anew for every pixel.
    return look_up(video, jax.lax.map(_even_table, counts))


def _even_table(counts: Int[Array, "c 256"]) -> UInt8[Array, "c 256"]:
    """The new value of each value; all stay where there are too few pixels besides the brightest."""
    values = jnp.arange(256)
    highest = jnp.max(jnp.where(counts > 0, values, 0), axis=-1, keepdims=True)
    total = jnp.sum(counts, axis=-1, keepdims=True)
    step = (total - jnp.take_along_axis(counts, highest, axis=-1)) // 255
    below = jnp.cumsum(counts, axis=-1) - counts
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
    total = jnp.sum(jnp.where(inside(video, size), _grey(video), 0), axis=(0, 1))
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
    y, x = places(video)
    border = (y == 0) | (x == 0) | (y == size[0] - 1) | (x == size[1] - 1)
    return _blend(jnp.where(border, wide, smooth).astype(jnp.int32), video, factor)


def _grey(video: Video) -> Int[Array, "H W T 1"]:
    red, green, blue = (video[..., channel : channel + 1].astype(jnp.int32) for channel in range(3))
    return (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16


def _blend(other: Int[Array, "..."], video: Video, factor: Amount) -> Video:
    """`other` where the factor is 0 and `video` where it is 1, clipped and cut to whole numbers."""
    blended = other + factor * (video.astype(jnp.int32) - other)
    return jnp.clip(blended, 0, 255).astype(jnp.uint8)


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
    "Rotate": Operation(rotate, _share(STEEPEST)),
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


def _apply(operation: Operation, size: Size, video: Video, level: Amount, sign: Amount) -> Video:
    return operation.apply(video, size, operation.amount(level, sign))


def apply_operations(video: Video, size: Size, draws: Draws) -> Video:
    """Apply drawn operations one after the other; those not drawn are not computed, unless under vmap."""
    branches = [partial(_apply, operation, size) for operation in OPERATIONS.values()]
    # Those to apply come first, in their order, as a step that does nothing would still copy the clip.
    order = jnp.argsort(draws.numbers == 0)
    numbers, levels, signs = (each[order] for each in draws)

    def apply(step: Int[Array, ""], video: Video) -> Video:
        return jax.lax.switch(numbers[step] - 1, branches, video, levels[step], signs[step])

    return jax.lax.fori_loop(0, jnp.sum(numbers > 0), apply, video)
