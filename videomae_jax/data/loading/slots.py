"""What one slot holds: which video, what a reader makes of it, and what happened on the way.

A *slot* is one video's place in one step. Its video comes from a permutation keyed by (seed, epoch, turn),
its reader's draws from (seed, epoch, place, attempt). A video that cannot be read is replaced by one drawn
from the same key, so a slot never disappears. Nothing has state: a slot is a pure function of its number.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from videomae_jax.data.clips.readers import Arrays, Reader
from videomae_jax.data.records import VideoRecord
from videomae_jax.data.video.frames import VideoError
from videomae_jax.errors import RunError

_ATTEMPTS = 20
# The first number of every key, so that no two kinds of draw share a stream; those of readers start with 3.
_ORDER, _SUBSTITUTE, _SOURCE = 1, 2, 4


@dataclass(frozen=True)
class Failure:
    """A video that was asked for and could not be read."""

    path: str
    reason: str
    error: str


class Slot(NamedTuple):
    """What was read for one slot."""

    arrays: Arrays | None
    """None in a pass over all videos, where there is no video or it cannot be read."""
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


Share = tuple[int, float]
"""How many videos a source has, and its weight."""


def video_of_mixture(shares: tuple[Share, ...], seed: int, epoch: int, place: int) -> int:
    """Which video stands at this place of an epoch that takes from each source by its weight.

    The videos of a source all come once, over as many epochs as it takes, before any comes twice.
    """
    turn, position = divmod(place, sum(count for count, _ in shares))
    return int(_mixture(shares, seed, epoch, turn)[position])


@lru_cache(maxsize=4)
def _mixture(shares: tuple[Share, ...], seed: int, epoch: int, turn: int) -> Int64[np.ndarray, " n"]:
    total, first, parts = sum(count for count, _ in shares), 0, []
    for source, ((count, _), quota) in enumerate(zip(shares, _quotas(shares, total), strict=True)):
        # Of the endless row of this source's permutations, the stretch that belongs to this epoch.
        rounds, places = np.divmod(epoch * quota + np.arange(quota), count)
        for number in np.unique(rounds):
            order = np.random.default_rng([_SOURCE, seed, turn, source, number]).permutation(count)
            parts.append(first + order[places[rounds == number]])
        first += count
    shuffled = np.random.default_rng([_ORDER, seed, epoch, turn]).permutation(total)
    return np.concatenate(parts)[shuffled]


def _quotas(shares: tuple[Share, ...], total: int) -> list[int]:
    """Videos of each source in an epoch: its share, rounded so that the sum is right."""
    weights = np.array([weight for _, weight in shares])
    ends = np.rint(np.cumsum(weights) / weights.sum() * total).astype(int)
    return np.diff(ends, prepend=0).tolist()


@dataclass(frozen=True)
class TrainingSlots:
    """Reads the n-th slot of this host."""

    videos: tuple[VideoRecord, ...]
    read: Reader
    seed: int
    batch_size: int
    start_step: int
    first: int
    per_host: int
    shares: tuple[Share, ...] = ()
    """Of the sources that `videos` has one after the other, where they have weights."""

    def __call__(self, n: int) -> Slot:
        count = len(self.videos)
        step, place = self.start_step + n // self.per_host, self.first + n % self.per_host
        epoch, step_of_epoch = divmod(step, steps_per_epoch(count, self.batch_size))
        place += step_of_epoch * self.batch_size
        failures: list[Failure] = []
        tried: list[int] = []
        for attempt in range(min(_ATTEMPTS, count)):
            key = (self.seed, epoch, place, attempt)
            tried.append(
                substitute(tried, count, np.random.default_rng([_SUBSTITUTE, *key]))
                if attempt
                else self._video(epoch, place)
            )
            try:
                return Slot(self.read(self.videos[tried[-1]], key), tried[-1], tuple(failures))
            except VideoError as error:
                failures.append(_failure(error))
        raise RunError(
            f"none of the {len(tried)} videos tried for one place in step {step} could be read, the last "
            f"being {failures[-1].error}. See which can be with: videomae-jax check-data LIST"
        )

    def _video(self, epoch: int, place: int) -> int:
        if self.shares:
            return video_of_mixture(self.shares, self.seed, epoch, place)
        return video_of_slot(len(self.videos), self.seed, epoch, place)


@dataclass(frozen=True)
class EachVideoSlots:
    """Reads the n-th slot of this host in a pass over all videos."""

    videos: tuple[VideoRecord, ...]
    read: Reader
    batch_size: int
    first: int
    per_host: int

    def __call__(self, n: int) -> Slot:
        record_id = n // self.per_host * self.batch_size + self.first + n % self.per_host
        if record_id >= len(self.videos):
            return Slot(None, -1, ())
        try:
            return Slot(self.read(self.videos[record_id], None), record_id, ())
        except VideoError as error:
            return Slot(None, -1, (_failure(error),))


def _failure(error: VideoError) -> Failure:
    return Failure(error.path, error.reason, str(error))
