"""Planes as decoded made RGB on the device, cropped and scaled at once as the decoder's converter does it.

See `data/clips/plane_readers.py` for how batches hold them. Every axis is scaled by one product with a matrix
of the converter's filter: bilinear, and a mean over as many pixels as become one.
"""

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jaxtyping import Array, Bool, Float, Float32, Int, Int32, UInt8

from videomae_jax.training.sharding import map_clips

# Clips at a time: fewer leave a GPU idle between its kernels, more take memory.
_AT_ONCE = 8
# Three passes of bfloat16 on a TPU, or one of TF32 on a GPU: products are right to 0.1 grey levels.
_PRECISION = jax.lax.Precision.HIGH


def crops_of_planes(
    planes: UInt8[Array, "v T R W"],
    colour: Float32[Array, "v T 6"],
    box: Float32[Array, "b 2 4"],
    lies: Int32[Array, "b 2"],
    size: tuple[int, int],
) -> UInt8[Array, "b T {size[0]} {size[1]} 3"]:
    """The clips of pre-training: as many of each video as there are more boxes than videos.

    Only planes for squares lie on their side, and only on a canvas that is wider than it is high.
    """
    may_lie = size[0] == size[1] and planes.shape[2] < planes.shape[3] * 3 // 2

    def one(video: tuple[jax.Array, ...]) -> jax.Array:
        planes, colour, windows, lies = video
        mirrored, lying = (lies[:, place] == 1 for place in (0, 1))
        # What is mirrored is mirrored by the filter, which costs nothing.
        flips = jnp.stack([mirrored & lying, mirrored & ~lying], axis=1)
        rgb = jax.vmap(lambda *each: _to_rgb(planes, colour, each[0], jnp.array(size), size, each[1]))(
            windows, flips
        )
        if may_lie:
            rgb = jnp.where(lying[:, None, None, None, None], rgb.swapaxes(3, 4), rgb)
        return rgb

    grouped = (rearrange(each, "(v s) ... -> v s ...", v=len(planes)) for each in (box, lies))
    rgb = map_clips(one, (planes, colour, *grouped), _AT_ONCE)
    return rearrange(rgb, "v s c T H W -> (v s) T H W c")


def canvases_of_planes(
    planes: UInt8[Array, "v T R W"],
    colour: Float32[Array, "v T 6"],
    window: Float32[Array, "v 2 4"],
    box: Int32[Array, "b 3"],
    canvas: tuple[int, int],
) -> UInt8[Array, "b T H W 3"]:
    """The canvases of fine-tuning: the same for all clips of a video, with zeros beside what `box` says."""
    copies = len(box) // len(planes)

    def one(video: tuple[jax.Array, ...]) -> jax.Array:
        planes, colour, window, filled = video
        return _to_rgb(planes, colour, window, filled, canvas)

    rgb = map_clips(one, (planes, colour, window, box[::copies, :2]), _AT_ONCE)
    return rearrange(jnp.repeat(rgb, copies, axis=0), "b c T H W -> b T H W c")


def _to_rgb(
    planes: UInt8[Array, "T R W"],
    colour: Float32[Array, "T 6"],
    window: Float32[Array, "2 4"],
    filled: Int[Array, "2"],
    size: tuple[int, int],
    flips: Bool[Array, "2"] | None = None,
) -> UInt8[Array, "3 T {size[0]} {size[1]}"]:
    """The window of all frames scaled to `filled`, at the top left of `size`, with zeros elsewhere.

    `flips` says of what fills its size whether rows, and columns, come in reverse order.
    """
    height = 2 * planes.shape[1] // 3
    brightness = _scaled(planes[None, :, :height], window[0], filled, size, flips)[0]
    halves = rearrange(planes[:, height:], "T h (colour w) -> colour T h w", colour=2)
    blue, red = _scaled(halves, window[1], filled, size, flips) - 128.0
    black, gain, red_red, red_green, blue_green, blue_blue = rearrange(colour, "T c -> c T 1 1")
    brightness = gain * (brightness - black)
    rgb = jnp.stack(
        [
            brightness + red_red * red,
            brightness + red_green * red + blue_green * blue,
            brightness + blue_blue * blue,
        ]
    )
    inside = (jnp.arange(size[0])[:, None] < filled[0]) & (jnp.arange(size[1]) < filled[1])
    return jnp.where(inside, jnp.clip(jnp.round(rgb), 0, 255), 0).astype(jnp.uint8)


def _scaled(
    planes: UInt8[Array, "p T h w"],
    window: Float32[Array, "4"],
    filled: Int[Array, "2"],
    size: tuple[int, int],
    flips: Bool[Array, "2"] | None,
) -> Float[Array, "p T {size[0]} {size[1]}"]:
    top, left, height, width = window
    rows = filter_matrix(top, height, filled[0], planes.shape[2], size[0])
    columns = filter_matrix(left, width, filled[1], planes.shape[3], size[1])
    if flips is not None:
        rows, columns = (
            jnp.where(flip, matrix[::-1], matrix) for flip, matrix in zip(flips, (rows, columns), strict=True)
        )
    return jnp.einsum("ih,pthw,jw->ptij", rows, planes.astype(jnp.float32), columns, precision=_PRECISION)


def filter_matrix(
    start: jax.Array, length: jax.Array, filled: jax.Array, available: int, size: int
) -> Float32[Array, "{size} {available}"]:
    """What each of `available` pixels adds to each of `size`, the first `filled` of which are scaled from
    `length` pixels from `start` on. Pixels beyond these are taken to be as the last of them."""
    scale = length / filled
    place = start + (jnp.arange(size)[:, None] + 0.5) * scale - 0.5
    reach = jnp.maximum(scale, 1)
    first, last = jnp.ceil(start - 0.5), jnp.ceil(start + length - 0.5) - 1
    pixel = jnp.arange(available)

    def weight(at: jax.Array) -> jax.Array:
        return jnp.maximum(0, 1 - jnp.abs(at - place) / reach)

    weights = jnp.where((pixel >= first) & (pixel <= last), weight(pixel), 0)
    for beyond in range(1, _most_beyond(available, size) + 1):
        weights += jnp.where(pixel == first, weight(first - beyond), 0)
        weights += jnp.where(pixel == last, weight(last + beyond), 0)
    return weights / _weight_of_all(place, reach)


def _weight_of_all(place: Float32[Array, "size 1"], reach: Float32[Array, ""]) -> Float32[Array, "size 1"]:
    """The sum of max(0, 1 - |pixel - place| / reach) over all whole numbers.

    By its formula: where pixels are summed and then divided by the sum, XLA searches for tiles of a Triton
    kernel, which made a training step's compilation for an H100 up to 18 times as long.
    """

    def on_one_side(nearest: jax.Array) -> jax.Array:
        count = jnp.maximum(jnp.ceil(reach - nearest), 0)
        return count - count * (nearest + (count - 1) / 2) / reach

    below = place - jnp.floor(place)
    return on_one_side(below) + on_one_side(1 - below)


def _most_beyond(available: int, size: int) -> int:
    """Pixels that a filter may take beyond an edge."""
    return int(np.ceil(max(available / size, 1)))
