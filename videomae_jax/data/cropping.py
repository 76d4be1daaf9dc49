"""Which part of a frame a clip takes, and at what size: the reference's crops, on uint8 frames.

A crop is a box (left, top, right, bottom) in pixels. What is trained on is resized by Pillow's bilinear
filter, validation and tests by OpenCV's; see resizing.py.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

from videomae_jax.data.resizing import resize_sampled, resize_smooth

Box = tuple[int, int, int, int]


def multi_scale_boxes(height: int, width: int, size: int, scales: Sequence[float]) -> list[Box]:
    """Every crop that MultiScaleCrop may take: pairs of neighbouring sides, times 13 fixed places.

    Sides within 3 pixels of `size` become `size`, so that no resizing blurs them, except in smaller frames.
    """
    short = min(height, width)
    sides = [max(1, int(short * scale)) for scale in scales]
    sides = [size if abs(side - size) < 3 and size <= short else side for side in sides]
    quarters = [(x, y) for y in (0, 2, 4) for x in (0, 2, 4)] + [(x, y) for y in (1, 3) for x in (1, 3)]
    boxes = []
    for i, crop_height in enumerate(sides):
        for j, crop_width in enumerate(sides):
            if abs(i - j) > 1:
                continue
            for x, y in quarters:
                left = x * ((width - crop_width) // 4)
                top = y * ((height - crop_height) // 4)
                boxes.append((left, top, left + crop_width, top + crop_height))
    return boxes


def draw_box(rng: np.random.Generator, height: int, width: int, size: int, scales: Sequence[float]) -> Box:
    """One of MultiScaleCrop's crops, all equally likely: first a pair of sides, then a place."""
    boxes = multi_scale_boxes(height, width, size, scales)
    return boxes[rng.integers(len(boxes))]


def crop_resized(frame: UInt8[np.ndarray, "H W 3"], box: Box, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """Cut a box out of a frame and resize it to a square, bilinear as Pillow does it."""
    left, top, right, bottom = box
    return resize_smooth(frame[top:bottom, left:right], size, size)


def centre_square(frame: UInt8[np.ndarray, "H W 3"], size: int) -> UInt8[np.ndarray, "size size 3"]:
    """The view for validation: the short side scaled to `size`, then the centre crop."""
    scaled = scale_short_side(frame, size)
    left, top, right, bottom = view_boxes(scaled.shape[0], scaled.shape[1], num_crops=1)[0]
    return scaled[top:bottom, left:right]


def fit_canvas(
    frame: UInt8[np.ndarray, "H W 3"], canvas: tuple[int, int]
) -> tuple[UInt8[np.ndarray, "h w 3"], bool]:
    """Scale a frame to the largest size that fits into `canvas` (height, width); the aspect is kept.

    An upright frame is transposed first, so that it lies on its side; the second result says whether.
    """
    upright = frame.shape[0] > frame.shape[1]
    if upright:
        frame = frame.transpose(1, 0, 2)
    height, width = frame.shape[:2]
    scale = min(canvas[0] / height, canvas[1] / width)
    return resize_smooth(frame, max(1, round(height * scale)), max(1, round(width * scale))), upright


def scale_short_side(frame: UInt8[np.ndarray, "H W 3"], size: int) -> UInt8[np.ndarray, "h w 3"]:
    """Scale a frame so that its short side is `size`; the longer one is rounded down, as in the reference."""
    height, width = frame.shape[:2]
    short = min(height, width)
    return resize_sampled(frame, size * height // short, size * width // short)


def view_boxes(height: int, width: int, num_crops: int) -> list[Box]:
    """The spatial crops of a test: squares as large as the short side, evenly spaced along the longer side.

    A single one, for which the reference divides by zero, is the centre crop, as in its validation: halves of
    a pixel are rounded to an even place.
    """
    size = min(height, width)
    room = max(height, width) - size
    starts = [i * room // (num_crops - 1) for i in range(num_crops)] if num_crops > 1 else [round(room / 2)]
    places = [(0, start) if height > width else (start, 0) for start in starts]
    return [(left, top, left + size, top + size) for left, top in places]
