"""The random clips on which two checkpoints are compared."""

from dataclasses import dataclass

import numpy as np

from videomae_jax.model_config import VideoMAEConfig


@dataclass(frozen=True)
class Clips:
    """`pixels` (b, T, H, W, c), normalised, and `mask` (b, n), True = hidden, as many in every row."""

    pixels: np.ndarray
    mask: np.ndarray


def random_clips(config: VideoMAEConfig, count: int, seed: int) -> Clips:
    """Clips of noise, nine tenths of each hidden, the same places in every tubelet of time."""
    rng = np.random.default_rng(seed)
    size = config.image_size
    shape = (count, config.num_frames, size, size, config.num_channels)
    t, h, w = config.grid
    hidden = min(int(0.9 * h * w), h * w - 1)
    masks = [np.tile(rng.permutation(h * w) < hidden, t) for _ in range(count)]
    return Clips(rng.normal(size=shape).astype(np.float32), np.stack(masks))
