"""Clips of the last frames of a source, each as soon as it is whole."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from videomae_jax.data.video.live import LiveFrame

Image = UInt8[np.ndarray, "h w 3"]


class Window(NamedTuple):
    """A clip and when its first and its last frame were shown, in seconds of the source."""

    start: float
    end: float
    clip: UInt8[np.ndarray, "T H W 3"]


def sliding(
    frames: Iterable[LiveFrame],
    num_frames: int,
    rate: int,
    stride: int,
    prepare: Callable[[Image], Image],
) -> Generator[Window, None, None]:
    """Clips of every `rate`-th frame, `stride` frames apart, from the first frame on.

    They are those of `Windows` with a chunk of `num_frames` x `rate` frames in a video that is at hand. Only
    the frames of one window are held. After a gap in the source windows start anew.
    """
    chunk = num_frames * rate
    held: deque[tuple[float, Image]] = deque(maxlen=chunk)
    count = 0
    for frame in frames:
        if frame.first:
            held.clear()
            count = 0
        held.append((frame.seconds, prepare(frame.image)))
        count += 1
        if count >= chunk and (count - chunk) % stride == 0:
            taken = [held[n] for n in range(0, chunk, rate)]
            yield Window(held[0][0], held[-1][0], np.stack([image for _, image in taken]))
