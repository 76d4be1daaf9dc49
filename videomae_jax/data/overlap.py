"""Videos that are both trained on and measured with, which makes the measurement too good."""

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import lru_cache

from videomae_jax.data.sources import VideoRecord


def shared_videos(train: Sequence[VideoRecord], other: Sequence[VideoRecord]) -> tuple[VideoRecord, ...]:
    """Those of `other` of which a frame is in `train` too: the same file, or the same video of a set."""
    places = lru_cache(maxsize=None)(os.path.realpath)

    def place(video: VideoRecord) -> str:
        folder, name = os.path.split(video.path)
        return os.path.join(places(folder), name)  # A look at each file would take long on a network.

    segments: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for video in train:
        segments[place(video)].append(_frames(video))
    return tuple(
        video for video in other if any(_meet(_frames(video), each) for each in segments[place(video)])
    )


def describe_overlap(train: Sequence[VideoRecord], others: Mapping[str, Sequence[VideoRecord]]) -> str:
    """What `others`, by what they are for, share with the videos that are trained on; empty for nothing."""
    said = []
    for name, videos in others.items():
        if shared := shared_videos(train, videos):
            said.append(
                f"{len(shared)} of the {len(videos)} {name} videos are among those to train on, such as "
                f"{shared[0].path}"
            )
    return "; ".join(said)


def _frames(video: VideoRecord) -> tuple[int, float]:
    return video.start, float("inf") if video.total == -1 else video.start + video.total


def _meet(one: tuple[int, float], other: tuple[int, float]) -> bool:
    return one[0] < other[1] and other[0] < one[1]


__all__ = ["describe_overlap", "shared_videos"]
