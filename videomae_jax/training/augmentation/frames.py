"""Frames on a canvas as RandAugment takes them, and which part of the canvas counts.

They are (H, W, T, 3), so that one place of all frames lies together: moving a clip then moves runs of T * 3
bytes. Only the valid part of a canvas counts, `size` = (height, width) at the top left.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt8

Video = UInt8[Array, "H W T 3"]
Size = Int[Array, "2"]
Amount = Float[Array, ""]
"""What an operation takes: degrees, a factor, a threshold, bits, a share of the side."""


def places(video: Video) -> tuple[Int[Array, "H 1 1 1"], Int[Array, "1 W 1 1"]]:
    """Rows and columns of the canvas."""
    height, width = video.shape[:2]
    return jnp.arange(height)[:, None, None, None], jnp.arange(width)[None, :, None, None]


def inside(video: Video, size: Size) -> Bool[Array, "H W 1 1"]:
    """Where the valid part is."""
    y, x = places(video)
    return (y < size[0]) & (x < size[1])
