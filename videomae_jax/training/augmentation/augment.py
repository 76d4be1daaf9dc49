"""Augmentation of clips on the device: RandAugment, a resized crop, a flip and erasing, as pure functions.

Clips come as uint8 on a canvas, of which only the part at the top left is valid, so that videos of all shapes
fit one compiled function. Every clip has a key of its own.
"""

from functools import partial

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Bool, Float, Int, Int32, UInt8

from videomae_jax.config import AugmentConfig
from videomae_jax.model_config import FrameSize
from videomae_jax.models.compiled_for import hardware
from videomae_jax.models.pixels import normalize
from videomae_jax.training.augmentation.frames import Size, Video
from videomae_jax.training.augmentation.rand_augment import apply_operations, draw_operations
from videomae_jax.training.sharding import map_clips

Box = tuple[jax.Array, jax.Array, jax.Array, jax.Array]
"""Top, left, height and width in whole pixels."""
Neighbours = tuple[Int[Array, " _"], Int[Array, " _"], Float[Array, " _"]]
"""Two pixels that each new one lies between, and how far it is on the way to the second."""

ERASED_AREA = (0.02, 1 / 3)
"""Smallest and largest erased share of a frame."""
ERASED_RATIO = (0.3, 1 / 0.3)
_ATTEMPTS = 10


def augment(
    key: jax.Array,
    video: UInt8[Array, "b T H W 3"],
    box: Int32[Array, "b 3"],
    config: AugmentConfig,
    size: FrameSize,
) -> Float[Array, "b T {size[0]} {size[1]} 3"]:
    """Augmented and normalised float32 clips of canvases.

    `box` is (height, width, transposed) of the valid part at the top left; frames whose third number is 1 lie
    on their side and come out upright.
    """

    def one(clip: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        return augment_clip(*clip, config=config, size=size)

    # One after the other, as only then operations that are not drawn cost nothing.
    return map_clips(one, (jax.random.split(key, len(video)), video, box))


def augment_clip(
    key: jax.Array,
    video: UInt8[Array, "T H W 3"],
    box: Int32[Array, "3"],
    config: AugmentConfig,
    size: FrameSize,
) -> Float[Array, "T {size[0]} {size[1]} 3"]:
    """`augment` for one clip: RandAugment, crop, flip, erasing, in this order."""
    for_rand, for_crop, for_flip, for_erasing = jax.random.split(key, 4)
    frames, valid, transposed = rearrange(video, "T H W c -> H W T c"), box[:2], box[2] == 1
    if config.rand_num_ops:
        frames = apply_operations(frames, valid, draw_operations(for_rand, config))
    crop = draw_crop(for_crop, jnp.where(transposed, valid[::-1], valid), config, size[1] / size[0])
    mirrored = jax.random.bernoulli(for_flip) if config.flip else jnp.array(False)
    clip = resize_crop(frames, crop, size, transposed, mirrored)
    clip = normalize(rearrange(clip, "H W T c -> T H W c"))
    return erase(for_erasing, clip, config.erase_prob) if config.erase_prob else clip


def draw_crop(key: jax.Array, valid: Size, config: AugmentConfig, aspect: float = 1.0) -> Box:
    """The box of a random resized crop, or where no draw fits, the largest middle one of a ratio allowed.

    Ratios are relative to `aspect`, the width of a clip per height.
    """
    height, width = valid[0], valid[1]
    narrow, wide = (aspect * ratio for ratio in config.crop_ratio)
    for_shape, for_place = jax.random.split(key)
    fits, crop_height, crop_width = _draw_shape(
        for_shape, height * width, config.crop_scale, (narrow, wide), height, width
    )
    top, left = _draw_place(for_place, height - crop_height, width - crop_width)
    whole_height = jnp.minimum(height, jnp.round(width / narrow).astype(int))
    whole_width = jnp.minimum(width, jnp.round(height * wide).astype(int))
    drawn = (top, left, crop_height, crop_width)
    middle = ((height - whole_height) // 2, (width - whole_width) // 2, whole_height, whole_width)
    top, left, height, width = (jnp.where(fits, *pair) for pair in zip(drawn, middle, strict=True))
    return top, left, height, width


def _draw_shape(
    key: jax.Array,
    area: jax.Array | int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    largest_height: jax.Array | int,
    largest_width: jax.Array | int,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Whether any of ten draws of an area and a ratio of width to height fits, and the first that does."""
    for_area, for_ratio = jax.random.split(key)
    areas = area * jax.random.uniform(for_area, (_ATTEMPTS,), minval=scale[0], maxval=scale[1])
    low, high = jnp.log(jnp.array(ratio))
    ratios = jnp.exp(jax.random.uniform(for_ratio, (_ATTEMPTS,), minval=low, maxval=high))
    heights = jnp.round(jnp.sqrt(areas / ratios)).astype(int)
    widths = jnp.round(jnp.sqrt(areas * ratios)).astype(int)
    fit = (heights > 0) & (widths > 0) & (heights <= largest_height) & (widths <= largest_width)
    first = jnp.argmax(fit)
    return fit[first], heights[first], widths[first]


def _draw_place(key: jax.Array, most_top: jax.Array, most_left: jax.Array) -> tuple[jax.Array, jax.Array]:
    for_top, for_left = jax.random.split(key)
    return (
        jax.random.randint(for_top, (), 0, jnp.maximum(most_top, 0) + 1),
        jax.random.randint(for_left, (), 0, jnp.maximum(most_left, 0) + 1),
    )


def resize_crop(
    video: Video, box: Box, size: FrameSize, transposed: Bool[Array, ""], mirrored: Bool[Array, ""]
) -> Float[Array, "{size[0]} {size[1]} T 3"]:
    """A box of all frames scaled to `size`, bilinear without smoothing as torch's `interpolate`.

    The box is one of the upright frame, also where the frames given are `transposed`.
    """
    top, left, height, width = box
    rows = _neighbours(top, height, size[0])
    before, after, x = (jnp.where(mirrored, each[::-1], each) for each in _neighbours(left, width, size[1]))
    columns = before, after, x
    pixels = rearrange(video, "H W T c -> H W (T c)")
    cut = _cut_by_products if hardware().platform == "tpu" else _cut_by_gathers
    return rearrange(cut(pixels, rows, columns, transposed), "H W (T c) -> H W T c", c=3)


def _cut_by_gathers(
    pixels: UInt8[Array, "H W p"], rows: Neighbours, columns: Neighbours, transposed: Bool[Array, ""]
) -> Float[Array, "R C p"]:
    height, width = pixels.shape[:2]
    flat = pixels.reshape(height * width, -1)
    down, right = jnp.where(transposed, 1, width), jnp.where(transposed, width, 1)
    (above, below, y), (before, after, x) = rows, columns
    lines = []
    for row in (above, below):
        first, second = (flat[row[:, None] * down + column * right] for column in (before, after))
        lines.append(first * (1 - x[:, None]) + second * x[:, None])
    return lines[0] * (1 - y[:, None, None]) + lines[1] * y[:, None, None]


def _cut_by_products(
    pixels: UInt8[Array, "H W p"], rows: Neighbours, columns: Neighbours, transposed: Bool[Array, ""]
) -> Float[Array, "R C p"]:
    """As a TPU does it quickly: a product with a matrix of two weights in each row along either axis."""
    product = partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)

    def weights(neighbours: Neighbours, length: int) -> Float[Array, "_ {length}"]:
        first, second, way = neighbours
        one, other = (jax.nn.one_hot(each, length) for each in (first, second))
        return one * (1 - way[:, None]) + other * way[:, None]

    def cut(upright: UInt8[Array, "H W p"]) -> Float[Array, "R C p"]:
        height, width = upright.shape[:2]
        across = product("hwp,cw->hcp", upright.astype(jnp.float32), weights(columns, width))
        return product("hcp,rh->rcp", across, weights(rows, height))

    return jax.lax.cond(transposed, lambda: cut(pixels.swapaxes(0, 1)), lambda: cut(pixels))


def _neighbours(start: jax.Array, length: jax.Array, size: int) -> Neighbours:
    """For each of `size` pixels the two that it lies between, and how far it is on the way to the second."""
    # In units of 1 / (2 size) pixels, which are whole numbers: see `moves._line`.
    place = jnp.maximum((2 * jnp.arange(size) + 1) * length - size, 0)
    first, beyond = jnp.divmod(place, 2 * size)
    second = start + jnp.minimum(first + 1, length - 1)
    return start + jnp.minimum(first, length - 1), second, beyond / (2 * size)


def erase(key: jax.Array, clip: Float[Array, "T H W 3"], prob: float) -> Float[Array, "T H W 3"]:
    """With chance `prob`, put normal noise in one box, the same in all frames."""
    height, width = clip.shape[1:3]
    for_chance, for_shape, for_place, for_noise = jax.random.split(key, 4)
    fits, box_height, box_width = _draw_shape(
        for_shape, height * width, ERASED_AREA, ERASED_RATIO, height - 1, width - 1
    )
    top, left = _draw_place(for_place, height - box_height, width - box_width)
    y, x = jnp.arange(height)[:, None], jnp.arange(width)
    inside = (y >= top) & (y < top + box_height) & (x >= left) & (x < left + box_width)

    def with_noise(clip: Float[Array, "T H W 3"]) -> Float[Array, "T H W 3"]:
        noise = jax.random.normal(for_noise, clip.shape, clip.dtype)
        return jnp.where(inside[:, :, None], noise, clip)

    wanted = jax.random.bernoulli(for_chance, prob) & fits
    return jax.lax.cond(wanted, with_noise, lambda clip: clip, clip)
