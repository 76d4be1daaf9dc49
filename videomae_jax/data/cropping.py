"""Which part of a frame a clip takes, and at what size: the reference's crops, on uint8 frames.

A crop is a box (left, top, right, bottom) in pixels. What is trained on is resized by Pillow's bilinear
filter, validation and tests by OpenCV's; see resizing.py.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

from videomae_jax.data.resizing import resize_sampled, resize_smooth

Box = tuple[int, int, int, int]
Size = tuple[int, int]
"""Height and width in pixels."""


def multi_scale_boxes(height: int, width: int, size: Size, scales: Sequence[float]) -> list[Box]:
    """Every crop that MultiScaleCrop may take: pairs of neighbouring sides, times 13 fixed places.

    Sides are shares of those of the largest box of the shape of `size`: of the short side for squares. Those
    within 3 pixels of `size` become that, so that no resizing blurs them, except in smaller frames.
    """
    largest = min(height, width * size[0] // size[1]), min(width, height * size[1] // size[0])
    heights, widths = (
        [
            wanted if abs(side - wanted) < 3 and wanted <= most else side
            for side in (max(1, int(most * scale)) for scale in scales)
        ]
        for most, wanted in zip(largest, size, strict=True)
    )
    quarters = [(x, y) for y in (0, 2, 4) for x in (0, 2, 4)] + [(x, y) for y in (1, 3) for x in (1, 3)]
    boxes = []
    for i, crop_height in enumerate(heights):
        for j, crop_width in enumerate(widths):
            if abs(i - j) > 1:
                continue
            for x, y in quarters:
                left = x * ((width - crop_width) // 4)
                top = y * ((height - crop_height) // 4)
                boxes.append((left, top, left + crop_width, top + crop_height))
    return boxes


def draw_box(rng: np.random.Generator, height: int, width: int, size: Size, scales: Sequence[float]) -> Box:
    """One of MultiScaleCrop's crops, all equally likely: first a pair of sides, then a place."""
    boxes = multi_scale_boxes(height, width, size, scales)
    return boxes[rng.integers(len(boxes))]


def crop_resized(frame: UInt8[np.ndarray, "H W 3"], box: Box, size: Size) -> UInt8[np.ndarray, "h w 3"]:
    """Cut a box out of a frame and resize it, bilinear as Pillow does it."""
    left, top, right, bottom = box
    return resize_smooth(frame[top:bottom, left:right], *size)


def centre_crop(frame: UInt8[np.ndarray, "H W 3"], size: Size) -> UInt8[np.ndarray, "h w 3"]:
    """The view for validation: scaled so that it just covers `size`, then the centre crop."""
    scaled = scale_to_cover(frame, size)
    left, top, right, bottom = view_boxes(scaled.shape[0], scaled.shape[1], size, num_crops=1)[0]
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
    return resize_smooth(frame, *fitted(height, width, canvas)), upright


def fitted(height: int, width: int, canvas: tuple[int, int]) -> tuple[int, int]:
    """The largest size of this shape that fits into `canvas`."""
    scale = min(canvas[0] / height, canvas[1] / width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def scale_to_cover(frame: UInt8[np.ndarray, "H W 3"], size: Size) -> UInt8[np.ndarray, "h w 3"]:
    """Scale a frame to the least size that covers `size`: for a square, its short side becomes that.

    The side that is left over is rounded down, as in the reference.
    """
    height, width = frame.shape[:2]
    if height * size[1] <= width * size[0]:
        return resize_sampled(frame, size[0], width * size[0] // height)
    return resize_sampled(frame, height * size[1] // width, size[1])


def view_boxes(height: int, width: int, size: Size, num_crops: int) -> list[Box]:
    """The spatial crops of a test: boxes of `size`, evenly spaced along the side of the frame that is longer.

    A single one, for which the reference divides by zero, is the centre crop, as in its validation: halves of
    a pixel are rounded to an even place.
    """
    down, across = height - size[0], width - size[1]
    places = [(round(across / 2), round(down / 2))]
    if num_crops > 1:
        places = [(i * across // (num_crops - 1), i * down // (num_crops - 1)) for i in range(num_crops)]
    return [(left, top, left + size[1], top + size[0]) for left, top in places]
