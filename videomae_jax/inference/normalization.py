"""How pixels are normalised for a checkpoint."""

from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from videomae_jax.checkpoints.processing_json import read_processing
from videomae_jax.processing import IMAGENET_MEAN, IMAGENET_STD, Processing


@dataclass(frozen=True)
class Normalization:
    """Pixels from 0 to 255 times `scale`, less `mean`, divided by `std`; by default ImageNet's."""

    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    scale: float = 1 / 255

    def __call__(self, pixels: UInt8[Array, "... c"]) -> Float[Array, "... c"]:
        mean, std = (jnp.array(values, jnp.float32) for values in (self.mean, self.std))
        return (pixels.astype(jnp.float32) * jnp.float32(self.scale) - mean) / std


def read_normalization(source: str | Path, revision: str | None = None) -> Normalization:
    """That with which a checkpoint of any kind was trained; ImageNet's where it does not say."""
    return Normalization(*(read_processing(source, revision) or Processing()).normalization)
