"""Which frames a clip takes and which part of them: the reference's draws, from a numpy Generator.

A crop is a box (left, top, right, bottom) in pixels; cutting, resizing and mirroring is `crop_resized`.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image

Box = tuple[int, int, int, int]


def num_starts(num_frames_in_video: int, num_frames: int, sampling_rate: int) -> int:
    """How many starts a clip can have; 1 for videos too short to fill it."""
    return max(0, num_frames_in_video - num_frames * sampling_rate) + 1


def pretrain_indices(
    num_frames_in_video: int, num_frames: int, sampling_rate: int, start: int
) -> Int64[np.ndarray, " T"]:
    """Every `sampling_rate`-th frame from `start`; where a video ends early its last such frame repeats.

    Like the reference, the video's very last frame is never reached by stepping.
    """
    indices = start + sampling_rate * np.arange(num_frames)
    if num_frames_in_video >= start + num_frames * sampling_rate:
        return indices
    steps = max(0, num_frames_in_video - 2 - start) // sampling_rate
    return np.minimum(indices, start + steps * sampling_rate)


def draw_start(
    rng: np.random.Generator, num_frames_in_video: int, num_frames: int, sampling_rate: int
) -> int:
    """A start drawn evenly from those that leave room for the whole clip."""
    return int(rng.integers(num_starts(num_frames_in_video, num_frames, sampling_rate)))


def centre_start(num_frames_in_video: int, num_frames: int, sampling_rate: int) -> int:
    """The start that puts the clip in the middle of the video."""
    return (num_starts(num_frames_in_video, num_frames, sampling_rate) - 1) // 2


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


def centre_box(height: int, width: int) -> Box:
    """The largest square in the middle of a frame: scaled, the short side fits and the aspect is kept."""
    side = min(height, width)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def crop_resized(
    frame: UInt8[np.ndarray, "H W 3"], box: Box, size: int, mirror: bool = False
) -> UInt8[np.ndarray, "size size 3"]:
    """Cut a box out of a frame and resize it to a square, bilinear as PIL does it."""
    left, top, right, bottom = box
    image = Image.fromarray(np.ascontiguousarray(frame[top:bottom, left:right]))
    resized = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))
    return resized[:, ::-1] if mirror else resized


def centre_clip(frames: UInt8[np.ndarray, "T H W 3"], size: int) -> UInt8[np.ndarray, "T size size 3"]:
    """The middle square of every frame, resized."""
    box = centre_box(*frames.shape[1:3])
    return np.stack([crop_resized(frame, box, size) for frame in frames])
