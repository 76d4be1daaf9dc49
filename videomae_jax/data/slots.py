"""What one slot holds: which video, which clips of it, and what happened on the way.

A *slot* is one video's place in one step. Its video comes from a permutation keyed by (seed, epoch, turn),
its draws from (seed, epoch, place, attempt, clip). A video that cannot be read is replaced by one drawn from
the same key, so a slot never disappears. Nothing has state: a slot is a pure function of its number.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64, UInt8

from videomae_jax.config import PretrainConfig
from videomae_jax.data.sampling import (
    Box,
    centre_box,
    centre_start,
    crop_resized,
    draw_box,
    draw_start,
    pretrain_indices,
)
from videomae_jax.data.sources import VideoRecord
from videomae_jax.data.video import VideoError, open_video
from videomae_jax.errors import RunError

_ATTEMPTS = 20
# The first number of every key, so that no two kinds of draw share a stream.
_ORDER, _SUBSTITUTE, _CLIP = 1, 2, 3


@dataclass(frozen=True)
class Failure:
    """A video that was asked for and could not be read."""

    path: str
    reason: str
    error: str


class Slot(NamedTuple):
    """What was read for one slot."""

    clips: UInt8[np.ndarray, "s T H W 3"] | None
    """None in a validation, where there is no video or it cannot be read."""
    record_id: int
    failures: tuple[Failure, ...]


def steps_per_epoch(num_videos: int, batch_size: int) -> int:
    """Optimizer steps in one epoch: whole batches, and at least one."""
    return max(1, num_videos // batch_size)


def video_of_slot(num_videos: int, seed: int, epoch: int, place: int) -> int:
    """Which video stands at this place of an epoch; all come once before any comes twice."""
    turn, position = divmod(place, num_videos)
    return int(_permutation(num_videos, seed, epoch, turn)[position])


def substitute(tried: Sequence[int], num_videos: int, rng: np.random.Generator) -> int:
    """A video other than those tried, all equally likely."""
    drawn = int(rng.integers(num_videos - len(tried)))
    for skipped in sorted(tried):
        drawn += drawn >= skipped
    return drawn


@lru_cache(maxsize=4)
def _permutation(num_videos: int, seed: int, epoch: int, turn: int) -> Int64[np.ndarray, " n"]:
    return np.random.default_rng([_ORDER, seed, epoch, turn]).permutation(num_videos)


@dataclass(frozen=True)
class TrainingSlots:
    """Reads the n-th slot of this host."""

    videos: tuple[VideoRecord, ...]
    config: PretrainConfig
    start_step: int
    first: int
    per_host: int

    def __call__(self, n: int) -> Slot:
        config, count = self.config, len(self.videos)
        step, place = self.start_step + n // self.per_host, self.first + n % self.per_host
        epoch, step_of_epoch = divmod(step, steps_per_epoch(count, config.batch_size))
        place += step_of_epoch * config.batch_size
        failures: list[Failure] = []
        tried: list[int] = []
        for attempt in range(min(_ATTEMPTS, count)):
            key = (config.seed, epoch, place, attempt)
            tried.append(
                substitute(tried, count, np.random.default_rng([_SUBSTITUTE, *key]))
                if attempt
                else video_of_slot(count, config.seed, epoch, place)
            )
            try:
                return Slot(_read_clips(self.videos[tried[-1]], config, key), tried[-1], tuple(failures))
            except VideoError as error:
                failures.append(_failure(error))
        raise RunError(
            f"none of the {len(tried)} videos tried for one place in step {step} could be read, the last "
            f"being {failures[-1].error}. See which can be with: videomae-jax check-data LIST"
        )


@dataclass(frozen=True)
class ValidationSlots:
    """Reads the n-th slot of this host in a pass over all videos."""

    videos: tuple[VideoRecord, ...]
    config: PretrainConfig
    first: int
    per_host: int
    batch_size: int

    def __call__(self, n: int) -> Slot:
        record_id = n // self.per_host * self.batch_size + self.first + n % self.per_host
        if record_id >= len(self.videos):
            return Slot(None, -1, ())
        try:
            return Slot(_read_clips(self.videos[record_id], self.config, None), record_id, ())
        except VideoError as error:
            return Slot(None, -1, (_failure(error),))


def _failure(error: VideoError) -> Failure:
    return Failure(error.path, error.reason, str(error))


def _read_clips(
    record: VideoRecord, config: PretrainConfig, key: tuple[int, ...] | None
) -> UInt8[np.ndarray, "s T H W 3"]:
    """The clips of one video from one pass over it: drawn from `key`, or the middle one without a key."""
    data, model = config.data, config.model
    size, shape = model.image_size, (model.num_frames, data.sampling_rate)
    rngs = [np.random.default_rng([_CLIP, *key, clip]) for clip in range(data.num_sample)] if key else [None]
    with open_video(record.path) as video:
        count = _frames_in_segment(record, len(video.timestamps))
        starts = [draw_start(rng, count, *shape) if rng else centre_start(count, *shape) for rng in rngs]
        indices = np.stack([record.start + pretrain_indices(count, *shape, start) for start in starts])
        clips = np.empty((len(rngs), model.num_frames, size, size, 3), np.uint8)
        cuts = None
        for index, frame in video.read(np.unique(indices).tolist()):
            if cuts is None:
                cuts = [_draw_cut(rng, frame, config) for rng in rngs]
            for clip, (box, mirror) in enumerate(cuts):
                if (wanted := indices[clip] == index).any():
                    clips[clip, wanted] = crop_resized(frame, box, size, mirror)
    return clips


def _frames_in_segment(record: VideoRecord, frames: int) -> int:
    count = frames - record.start
    if count < 1:
        detail = f"the segment starts at frame {record.start}, but it has {frames} frames"
        raise VideoError(record.path, "segment-outside" if frames else "no-frames", detail)
    return count if record.total == -1 else min(count, record.total)


def _draw_cut(
    rng: np.random.Generator | None, frame: UInt8[np.ndarray, "H W 3"], config: PretrainConfig
) -> tuple[Box, bool]:
    """The box of a clip, and whether the clip is mirrored."""
    height, width = frame.shape[:2]
    if rng is None:
        return centre_box(height, width), False
    box = draw_box(rng, height, width, config.model.image_size, config.data.crop_scales)
    return box, config.data.flip and bool(rng.random() < 0.5)
