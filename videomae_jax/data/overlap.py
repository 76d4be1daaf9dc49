"""Videos that are both trained on and measured with, which inflates the measurement."""

import os
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import accumulate

from videomae_jax.data.records import VideoRecord


def shared_videos(train: Sequence[VideoRecord], other: Sequence[VideoRecord]) -> tuple[VideoRecord, ...]:
    """Those of `other` of which a frame is in `train` too: the same file, or the same video of a set."""
    places = lru_cache(maxsize=None)(os.path.realpath)

    def place(video: VideoRecord) -> str:
        folder, name = os.path.split(video.path)
        return os.path.join(places(folder), name)  # A look at each file would take long on a network.

    segments: dict[str, list[tuple[int, float]]] = {place(video): [] for video in other}
    for video in train if other else ():
        if (found := segments.get(place(video))) is not None:
            found.append(_frames(video))
    trained = {where: _Segments(found) for where, found in segments.items()}
    return tuple(video for video in other if trained[place(video)].meet(*_frames(video)))


class _Segments:
    """Stretches of frames of one video, which may be thousands."""

    def __init__(self, stretches: Sequence[tuple[int, float]]) -> None:
        stretches = sorted(stretches)
        self._starts = [start for start, _ in stretches]
        self._ends = list(accumulate((end for _, end in stretches), max))
        """How far those up to each of them reach."""

    def meet(self, start: int, end: float) -> bool:
        """Whether a frame from `start` to before `end` is in one of them."""
        before = bisect_left(self._starts, end)
        return before > 0 and self._ends[before - 1] > start


def describe_overlap(train: Sequence[VideoRecord], others: Mapping[str, Sequence[VideoRecord]]) -> str:
    """What `others`, by what they are for, share with the videos that are trained on; empty for nothing."""
    found = ((name, videos, shared_videos(train, videos)) for name, videos in others.items())
    return "; ".join(
        f"{len(both)} of the {len(videos)} {name} videos are among those to train on, such as {both[0].path}"
        for name, videos, both in found
        if both
    )


def _frames(video: VideoRecord) -> tuple[int, float]:
    return video.start, float("inf") if video.total == -1 else video.start + video.total
