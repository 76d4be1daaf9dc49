"""Clips of a video, read in one pass over its frames, with their times.

Only frames that an unfinished clip needs are in memory, so a video may be hours long, and a frame that lies
in several clips is decoded and scaled once.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float64, Int64, UInt8

from videomae_jax.data.clips.sampling import clip_seconds
from videomae_jax.data.cropping import Size, centre_crop
from videomae_jax.data.resizing import interpolate
from videomae_jax.data.sets import OpenVideo

Fit = Literal["centre", "squash"]
"""How a frame gets the size of a clip: scaled to cover it and the middle cut out, as for the single view of a
test, or all of it squashed."""
Frame = UInt8[np.ndarray, "h w 3"]


@dataclass(frozen=True)
class Windows:
    """Windows of `chunk` frames, `stride` frames apart, from each of which `num_frames` are taken evenly.

    Only whole windows are taken, except in a video shorter than one, whose last frame is repeated.
    """

    num_frames: int
    chunk: int
    stride: int

    def indices(self, start: int, count: int) -> Int64[np.ndarray, "n T"]:
        """The frames of each window in a stretch of `count` frames of a video."""
        starts = np.arange(0, max(count - self.chunk, 0) + 1, self.stride)
        offsets = np.arange(self.num_frames) * self.chunk // self.num_frames
        return start + np.minimum(starts[:, None] + offsets, count - 1)

    def seconds(self, times: Float64[np.ndarray, " t"], start: int, count: int) -> Float64[np.ndarray, "n 2"]:
        """When each window begins, and when the frame after its last one does."""
        first = start + np.arange(0, max(count - self.chunk, 0) + 1, self.stride)
        return clip_seconds(times, first, np.minimum(first + self.chunk, start + count))


def read_clips(
    video: OpenVideo, indices: Int64[np.ndarray, "n T"], prepare: Callable[[Frame], Frame]
) -> Iterator[UInt8[np.ndarray, "T H W 3"]]:
    """Yield the clip of each row of frame indices, in order, from one pass over the video.

    Args:
      prepare: what is made of each frame before it is kept.

    Raises VideoError when a frame does not decode.
    """
    last = indices.max(axis=1)
    needed_from = np.minimum.accumulate(indices.min(axis=1)[::-1])[::-1]
    held: dict[int, Frame] = {}
    row = 0
    for index, frame in video.read(np.unique(indices).tolist()):
        held[index] = prepare(frame)
        while row < len(indices) and last[row] <= index:
            yield np.stack([held[wanted] for wanted in indices[row].tolist()])
            row += 1
            if row < len(indices):
                held = {wanted: kept for wanted, kept in held.items() if wanted >= needed_from[row]}


def fitted(frame: Frame, size: Size, fit: Fit) -> UInt8[np.ndarray, "H W 3"]:
    """A frame at the size of a clip."""
    if fit == "squash":
        return np.rint(interpolate(frame, *size)).astype(np.uint8)
    return centre_crop(frame, size)
