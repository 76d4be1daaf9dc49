"""Brightness and contrast of masked patches, guessed from visible patches and the model's patterns alone.

The guess starts from the visible patches near by, nearer ones counting more. Then patterns must meet: of all
brightnesses and contrasts, those are taken that make neighbouring patches agree best along their seams while
staying near the first guess. This is linear least squares, one small system per time slot and channel, and no
masked pixel is read. Over the demo's 64 validation clips the mean squared pixel error is 0.0125, and 0.0175
with the first guess alone.
"""

import numpy as np
from einops import rearrange
from jaxtyping import Bool, Float, Int

from videomae_jax.model_config import VideoMAEConfig

Statistics = tuple[Float[np.ndarray, "n c"], Float[np.ndarray, "n c"]]
"""Mean and standard deviation of each channel of each tubelet."""

_TRUST_IN_GUESS = (0.05, 1.0)
"""How much the first guess of the mean and of the deviation weighs against one seam."""
_TRUST_IN_VISIBLE = 1e6


def guess_statistics(
    patterns: Float[np.ndarray, "n x c"],
    statistics: Statistics,
    visible: Bool[np.ndarray, " n"],
    config: VideoMAEConfig,
) -> Statistics:
    """Mean and deviation of every tubelet.

    `patterns` are the normalised pixels, the model's where masked; of `statistics` only visible rows count.
    """
    weights = neighbour_weights(np.flatnonzero(visible), np.flatnonzero(~visible), config.grid)
    guesses = [each.astype(np.float64) for each in statistics]
    for each in guesses:
        each[~visible] = weights @ each[visible]
    t, places = config.grid[0], config.grid[1] * config.grid[2]
    prior = np.stack([rearrange(each, "(t n) c -> t c n", t=t) for each in guesses], axis=2)
    trust = np.where(visible.reshape(t, 1, 1, places), _TRUST_IN_VISIBLE, np.array(_TRUST_IN_GUESS)[:, None])
    trust, prior = (rearrange(each, "t c s n -> t c (s n)") for each in (trust, prior))
    matrix = _seam_matrix(patterns, config) + trust[..., None] * np.eye(2 * places)
    solved = np.linalg.solve(matrix, (trust * prior)[..., None])
    mean, deviation = rearrange(solved, "t c (s n) 1 -> s (t n) c", s=2)
    return mean, np.maximum(deviation, 0)


def _seam_matrix(
    patterns: Float[np.ndarray, "n x c"], config: VideoMAEConfig
) -> Float[np.ndarray, "t c u u"]:
    """The quadratic form, over (means, deviations) of a slot, of the mean squared steps across all seams."""
    (t, h, w), a, p = config.grid, config.tubelet_size, config.patch_size
    pixels = rearrange(patterns, "(t n) (a y x) c -> t c n a y x", t=t, a=a, y=p).astype(np.float64)
    places = np.arange(h * w).reshape(h, w)
    first = np.concatenate([places[:, :-1].ravel(), places[:-1].ravel()])
    second = np.concatenate([places[:, 1:].ravel(), places[1:].ravel()])
    beside = h * (w - 1)
    ends = _edges(pixels[:, :, first], beside, last=True)
    starts = _edges(pixels[:, :, second], beside, last=False)
    ones = np.ones_like(ends)
    terms = np.stack([ones, ends, -ones, -starts], axis=-1)
    forms = np.einsum("tcekr,tceks->erstc", terms, terms) / terms.shape[3]
    unknowns = np.stack([first, first + h * w, second, second + h * w], axis=-1)
    matrix = np.zeros((2 * h * w, 2 * h * w, t, config.num_channels))
    np.add.at(matrix, (unknowns[:, :, None], unknowns[:, None, :]), forms)
    return rearrange(matrix, "r s t c -> t c r s")


def _edges(pixels: Float[np.ndarray, "t c e a y x"], beside: int, last: bool) -> Float[np.ndarray, "t c e k"]:
    """Pixels at a seam: of the first `beside` tubelets the last (or first) column, of the others the row."""
    index = -1 if last else 0
    columns, rows = pixels[:, :, :beside, :, :, index], pixels[:, :, beside:, :, index, :]
    return rearrange(np.concatenate([columns, rows], axis=2), "t c e a k -> t c e (a k)")


def neighbour_weights(
    visible: Int[np.ndarray, " v"], masked: Int[np.ndarray, " m"], grid: tuple[int, int, int]
) -> Float[np.ndarray, "m v"]:
    """How much visible tubelets count for masked ones: 1 / distance^4 over (t, h, w), rows sum to 1."""
    places = [np.stack(np.unravel_index(ids, grid), -1) for ids in (masked, visible)]
    squares = ((places[0][:, None] - places[1][None]) ** 2).sum(-1)
    weights = 1.0 / squares.astype(np.float64) ** 2
    return weights / weights.sum(1, keepdims=True)
