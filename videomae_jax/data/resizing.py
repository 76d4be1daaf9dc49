"""Bilinear resizing, in the three ways of the code that each part is compared with.

`resize_smooth` averages where it reduces, as Pillow does: for clips to train on. `resize_sampled` takes
samples without averaging, as OpenCV does on uint8: for validation and tests. `interpolate` takes the same
samples in floating point, as PyTorch does: for frames squashed to the size of clips.
"""

import numpy as np
from jaxtyping import Float32, Int32, Int64, UInt8
from PIL import Image

# OpenCV's weights are multiples of 1 / 2048.
_ONE = 2048


def resize_smooth(
    frame: UInt8[np.ndarray, "H W 3"], height: int, width: int
) -> UInt8[np.ndarray, "height width 3"]:
    """Pillow's bilinear filter, which averages over as many pixels as become one."""
    image = Image.fromarray(np.ascontiguousarray(frame))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


def resize_sampled(
    frame: UInt8[np.ndarray, "H W 3"], height: int, width: int
) -> UInt8[np.ndarray, "height width 3"]:
    """`cv2.resize` with INTER_LINEAR, bit for bit: between the four nearest pixels, without averaging."""
    top, bottom, row_weights = _neighbours(frame.shape[0], height)
    left, right, weights = _neighbours(frame.shape[1], width)
    weights[:, left == right] = [[_ONE], [0]]
    first, second = weights[:, :, None]

    def between_columns(rows: Int64[np.ndarray, " height"]) -> Int32[np.ndarray, "height width 3"]:
        pixels = frame[rows]
        return pixels[:, left] * first + pixels[:, right] * second

    # Sums of 8 + 11 bits lose 4 of them, products 16 and their sum 2, which is rounded.
    upper, lower = row_weights[:, :, None, None]
    above, below = (between_columns(rows) >> 4 for rows in (top, bottom))
    return (((above * upper >> 16) + (below * lower >> 16) + 2) >> 2).astype(np.uint8)


def interpolate(
    frame: UInt8[np.ndarray, "H W 3"], height: int, width: int
) -> Float32[np.ndarray, "height width 3"]:
    """PyTorch's `interpolate` with mode "bilinear" and without antialiasing."""
    image = frame.astype(np.float32)
    for axis, (length, size) in enumerate(zip(frame.shape[:2], (height, width), strict=True)):
        places = np.clip((np.arange(size) + 0.5) * (length / size) - 0.5, 0, length - 1)
        below = np.floor(places).astype(np.int64)
        weights = np.expand_dims((places - below).astype(np.float32), (1, 2) if axis == 0 else (0, 2))
        low, high = (image.take(at, axis=axis) for at in (below, np.minimum(below + 1, length - 1)))
        image = low + weights * (high - low)
    return image


def _neighbours(
    length: int, size: int
) -> tuple[Int64[np.ndarray, " size"], Int64[np.ndarray, " size"], Int32[np.ndarray, "2 size"]]:
    """The pixels before and after each of `size` places along an axis, and their weights in 1 / 2048."""
    places = ((np.arange(size) + 0.5) * (1 / (size / length)) - 0.5).astype(np.float32)
    before = np.floor(places).astype(np.int64)
    share = places - before.astype(np.float32)
    weights = np.rint(np.stack([1 - share, share]) * np.float32(_ONE)).astype(np.int32)
    return np.clip(before, 0, length - 1), np.clip(before + 1, 0, length - 1), weights
