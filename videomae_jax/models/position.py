"""The fixed sine and cosine table of token positions, resized for clips of another size."""

from functools import lru_cache
from math import prod

import numpy as np
from jaxtyping import Float

from videomae_jax.model_config import Grid, VideoMAEConfig

_CUBIC = -0.75
"""The free coefficient of cubic convolution (Keys, 1981), as PyTorch's bicubic interpolation has it."""


def position_table(config: VideoMAEConfig, width: int) -> Float[np.ndarray, "n d"]:
    """The positions of a clip's tokens, float32: those that the weights learned, at the size of the clip."""
    return _position_table(config.learned_grid, config.grid, width)


@lru_cache
def _position_table(learned: Grid, grid: Grid, width: int) -> Float[np.ndarray, "n d"]:
    return resized_table(sinusoid_table(prod(learned), width), learned, grid)


@lru_cache
def sinusoid_table(num_tokens: int, width: int) -> Float[np.ndarray, "n d"]:
    """Interleaved sines and cosines of the flattened token index, float32.

    The angle of column j is n / 10000^(2 (j // 2) / d), sine where j is even (Vaswani et al., 2017). It is
    computed in float64: the arguments reach 1567, where float32 has lost the third digit.
    """
    column = np.arange(width)
    angle = np.arange(num_tokens)[:, None] / np.power(10000.0, 2 * (column // 2) / width)
    return np.where(column % 2 == 0, np.sin(angle), np.cos(angle)).astype(np.float32)


def resized_table(table: Float[np.ndarray, "n d"], before: Grid, after: Grid) -> Float[np.ndarray, "m d"]:
    """A table of the grid `before` at the grid `after`, both (t, h, w): linear in time, cubic in space.

    Rows count by their centres and the outermost are repeated beyond the edges, as in PyTorch's interpolate
    with align_corners=False; an axis that keeps its length is left as it is.
    """
    if before == after:
        return table
    volume = table.astype(np.float64).reshape(*before, -1)
    for axis, (have, want) in enumerate(zip(before, after, strict=True)):
        if have != want:
            weights = interpolation(have, want, cubic=axis > 0)
            volume = np.moveaxis(np.tensordot(weights, volume, axes=(1, axis)), 0, axis)
    return volume.reshape(prod(after), -1).astype(np.float32)


def interpolation(have: int, want: int, *, cubic: bool) -> Float[np.ndarray, "want have"]:
    """The matrix that brings `have` values to `want` places, by lines or cubic convolution between them."""
    centre = (np.arange(want) + 0.5) * have / want - 0.5
    if not cubic:
        centre = np.maximum(centre, 0)
    first = np.floor(centre).astype(int)
    part = centre - first
    weights = np.zeros((want, have))
    for step in range(-1, 3) if cubic else range(2):
        away = np.abs(step - part)
        share = _cubic_share(away) if cubic else 1 - away
        np.add.at(weights, (np.arange(want), np.clip(first + step, 0, have - 1)), share)
    return weights


def _cubic_share(away: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    near = (_CUBIC + 2) * away**3 - (_CUBIC + 3) * away**2 + 1
    far = _CUBIC * (away**3 - 5 * away**2 + 8 * away - 4)
    return np.where(away <= 1, near, far)
