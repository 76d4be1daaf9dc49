"""Moves of frames as Pillow makes them: rotation, shears and translations, by its bicubic weights.

Weights are whole numbers of a unit small enough that every sum of products is exact, so that flat parts come
out exactly, which matters as results are cut to whole numbers, and in whichever order a device adds up.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float, Int, Shaped

from videomae_jax.models.compiled_for import hardware
from videomae_jax.training.augmentation.frames import Amount, Size, Video

FILL = 128
"""Grey that comes in from outside when frames are moved."""
STEEPEST = 30.0
"""Degrees to which frames are turned, at most."""
_GRID = 4096
"""Places to which pixels are moved, per pixel."""
_UNIT = 2**15
"""Weights are whole numbers of 1 / _UNIT: two numbers of bfloat16 hold one, and float32 holds the sums."""
_SQUARE = 16
"""Side of the squares in which a TPU turns frames."""
_WINDOW = 26
"""Side of the part from which such a square comes, at the steepest: 15 (cos 30° + sin 30°) and four taps."""


class Line(NamedTuple):
    """Places along one axis from which pixels are taken."""

    before: Int[Array, "..."]
    """The pixel before the place."""
    weights: Float[Array, "4 ..."]
    """Of that pixel's neighbour, itself and the two beyond, in units of 1 / _UNIT."""
    found: Array
    """Whether the place is in the frame."""
    length: Array
    """Pixels of the frame along the axis."""

    def taps(self) -> list[Int[Array, "..."]]:
        """The four pixels; those outside are the outermost ones."""
        return [jnp.clip(self.before + step, 0, self.length - 1) for step in range(-1, 3)]


def rotate(video: Video, size: Size, degrees: Amount) -> Video:
    """Turn frames about their middle, counter-clockwise."""
    height, width = size[0] / 2, size[1] / 2
    cos, sin = jnp.cos(jnp.deg2rad(degrees)), -jnp.sin(jnp.deg2rad(degrees))
    down, across = _grid(video)
    x = _line(cos * across + sin * down + (width - cos * width - sin * height), size[1])
    y = _line(-sin * across + cos * down + (height + sin * width - cos * height), size[0])
    turned = _turned_by_products if hardware().platform == "tpu" else _turned_by_gathers
    return _cut(turned(video, x, y), (x.found & y.found), video)


def shear_x(video: Video, size: Size, factor: Amount) -> Video:
    """Shift rows to the left by `factor` times their distance from the top."""
    down, across = _grid(video)
    return _slide(video, _line(across + factor * down, size[1]))


def shear_y(video: Video, size: Size, factor: Amount) -> Video:
    """Shift columns upwards by `factor` times their distance from the left."""
    return _on_its_side(shear_x, video, size, factor)


def translate_x(video: Video, size: Size, share: Amount) -> Video:
    """Shift frames to the left by a share of their width."""
    across = _grid(video)[1]
    return _slide(video, _line(across + share * size[1], size[1]))


def translate_y(video: Video, size: Size, share: Amount) -> Video:
    """Shift frames upwards by a share of their height."""
    return _on_its_side(translate_x, video, size, share)


def _on_its_side(
    move: Callable[[Video, Size, Amount], Video], video: Video, size: Size, amount: Amount
) -> Video:
    return move(video.swapaxes(0, 1), size[::-1], amount).swapaxes(0, 1)


def _grid(video: Video) -> tuple[Float[Array, "H 1"], Float[Array, "1 W"]]:
    """Middles of pixels, which Pillow counts from the outer edge of the first one."""
    height, width = video.shape[:2]
    return jnp.arange(height)[:, None] + 0.5, jnp.arange(width)[None, :] + 0.5


def _line(places: Float[Array, "..."], length: Array) -> Line:
    """The pixels and weights of places, with the cubic that Pillow's transforms take.

    Its slope is twice that of the usual bicubic kernel (a = -1).
    """
    # Whole numbers of a fine grid: compilers may compute a float twice, and not alike, so that the pixel
    # found and the distance from it would not belong together.
    fine = jnp.round(places * _GRID).astype(int)
    before, beyond = jnp.divmod(fine - _GRID // 2, _GRID)
    t = beyond / _GRID
    outer = -t * (1 - t) ** 2, t * (1 + t * (1 - t)), -(t**2) * (1 - t)
    first, third, last = (jnp.round(weight * _UNIT) for weight in outer)
    weights = jnp.stack([first, _UNIT - first - third - last, third, last])
    return Line(before, weights, (fine >= 0) & (fine < length * _GRID), length)


def _cut(moved: Float[Array, "H W p"], found: Array, video: Video) -> Video:
    """Whole numbers, and grey where nothing was found."""
    whole = jnp.clip(moved / _UNIT, 0, 255).astype(jnp.uint8)
    return jnp.where(found[..., None], whole, jnp.uint8(FILL)).reshape(video.shape)


def _slide(video: Video, x: Line) -> Video:
    """Take each pixel from another place of its row; the line is of one row if all rows slide alike."""
    height, width = video.shape[:2]
    pixels = rearrange(video, "H W T c -> H W (T c)")
    if hardware().platform == "tpu":
        form = "yup,uyx->yxp" if len(x.before) > 1 else "yup,uzx->yxp"
        return _cut(_product(form, pixels, _band(x, width)), x.found, video)
    rows, flat = jnp.arange(height)[:, None] * width, pixels.reshape(height * width, -1)
    taps = (weight[..., None] * flat[rows + tap] for tap, weight in zip(x.taps(), x.weights, strict=True))
    return _cut(sum(taps, start=jnp.zeros(())), x.found, video)


def _band(line: Line, length: int, start: Array | int = 0) -> Float[Array, "n ..."]:
    """The weights of `length` pixels from `start` on for each place: a band, the others being 0."""
    pixels = jnp.arange(length).reshape(-1, *[1] * line.before.ndim) + start
    taps = zip(line.taps(), line.weights, strict=True)
    return sum((jnp.where(pixels == tap, weight, 0) for tap, weight in taps), start=jnp.zeros(()))


def _product(form: str, pixels: Array, band: Float[Array, "..."]) -> Float[Array, "..."]:
    """An exact product of pixels with weights. A TPU rounds factors to bfloat16, which holds all of these."""
    upper = jnp.round(band / 256) * 256
    product = partial(jnp.einsum, form, pixels.astype(jnp.float32), precision=jax.lax.Precision.DEFAULT)
    return product(upper) + product(band - upper)


def _turned_by_gathers(video: Video, x: Line, y: Line) -> Float[Array, "H W p"]:
    height, width = video.shape[:2]
    flat = video.reshape(height * width, -1)
    moved = jnp.zeros(())
    for row, of_row in zip(y.taps(), y.weights, strict=True):
        taps = (
            weight[..., None] * flat[row * width + tap]
            for tap, weight in zip(x.taps(), x.weights, strict=True)
        )
        moved += of_row[..., None] / _UNIT * sum(taps, start=jnp.zeros(()))
    return moved


def _turned_by_products(video: Video, x: Line, y: Line) -> Float[Array, "H W p"]:
    """Square by square, a row of them at a time, each from the window in which its pixels lie."""
    height, width = video.shape[:2]
    pixels = rearrange(video, "H W T c -> H W (T c)")
    rows, columns = min(_WINDOW, height), min(_WINDOW, width)

    def turn(*of_square: Array) -> Float[Array, "n p"]:
        left, across, top, down = of_square
        x_here, y_here = Line(left, across, left, x.length), Line(top, down, top, y.length)
        first_row = jnp.clip(jnp.min(y_here.taps()[0]), 0, height - rows)
        first_column = jnp.clip(jnp.min(x_here.taps()[0]), 0, width - columns)
        corner, shape = (first_row, first_column, 0), (rows, columns, pixels.shape[-1])
        window = jax.lax.dynamic_slice(pixels, corner, shape)
        by_row = _product("vup,un->vnp", window, _band(x_here, columns, first_column))
        return jnp.sum(by_row * _band(y_here, rows, first_row)[..., None] / _UNIT, axis=0)

    grids = (_squares(each) for each in (x.before, x.weights, y.before, y.weights))
    turned = jax.lax.map(lambda of_row: jax.vmap(turn)(*of_row), tuple(grids))
    turned = rearrange(turned, "i j (a e) p -> (i a) (j e) p", a=_SQUARE)
    return turned[:height, :width]


def _squares(grid: Shaped[Array, "*taps H W"]) -> Shaped[Array, "i j *taps n"]:
    """Squares in rows; what is added at the edges is like its neighbours, so that windows suffice."""
    sides = [(0, 0)] * (grid.ndim - 2) + [(0, -side % _SQUARE) for side in grid.shape[-2:]]
    grid = jnp.pad(grid, sides, mode="edge")
    return rearrange(grid, "... (i a) (j e) -> i j ... (a e)", a=_SQUARE, e=_SQUARE)
