"""Which video is read for each slot, and with which draws.

A *slot* is one video's place in one step. Its video comes from a permutation keyed by (seed, epoch, turn),
its reader's draws from (seed, epoch, place, attempt). A video that cannot be read is replaced by one drawn
from the same key, so a slot never disappears. Nothing has state: a slot is a pure function of its number.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64

from videomae_jax.data.clips.readers import Key
from videomae_jax.data.loading.failures import Failure
from videomae_jax.data.records import VideoRecord
from videomae_jax.errors import RunError

_ATTEMPTS = 20
# The first number of every key, so that no two kinds of draw share a stream; those of readers start with 3.
_ORDER, _SUBSTITUTE, _SOURCE = 1, 2, 4


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


class Request(NamedTuple):
    """What is to be read for a slot."""

    record_id: int
    """Position in the videos."""
    record: VideoRecord
    key: Key | None
    """For the reader's draws, where there are any."""


@runtime_checkable
class Slots(Protocol):
    """Which videos are read for the slots of this host, one after the other from 0 on."""

    def request(self, n: int, failed: Mapping[int, Failure]) -> Request | None:
        """What to read for the n-th slot, after those that failed; None where it stays empty.

        Raises RunError where too many have failed.
        """
        ...


@dataclass(frozen=True)
class TrainingSlots:
    """Slots of steps to train on."""

    videos: Sequence[VideoRecord]
    seed: int
    batch_size: int
    start_step: int
    first: int
    per_host: int
    shares: tuple[Share, ...] = ()
    """Of the sources that `videos` has one after the other, where they have weights."""

    def request(self, n: int, failed: Mapping[int, Failure]) -> Request:
        count, attempt = len(self.videos), len(failed)
        step, place = self.start_step + n // self.per_host, self.first + n % self.per_host
        if attempt == min(_ATTEMPTS, count):
            *_, last = failed.values()
            raise RunError(
                f"none of the {attempt} videos tried for one place in step {step} could be read, the last "
                f"being {last.error}. See which can be with: videomae-jax check-data LIST"
            )
        epoch, step_of_epoch = divmod(step, steps_per_epoch(count, self.batch_size))
        place += step_of_epoch * self.batch_size
        key = (self.seed, epoch, place, attempt)
        record_id = (
            substitute(tuple(failed), count, np.random.default_rng([_SUBSTITUTE, *key]))
            if attempt
            else self._video(epoch, place)
        )
        return Request(record_id, self.videos[record_id], key)

    def _video(self, epoch: int, place: int) -> int:
        if self.shares:
            return video_of_mixture(self.shares, self.seed, epoch, place)
        return video_of_slot(len(self.videos), self.seed, epoch, place)


@dataclass(frozen=True)
class ChosenClipSlots:
    """Slots of single clips, any number of times each; the key is the number of the clip in its video."""

    videos: Sequence[VideoRecord]
    positions: Int64[np.ndarray, " n"]
    """Of the clips' videos."""
    clips: Int64[np.ndarray, " n"]

    def request(self, n: int, failed: Mapping[int, Failure]) -> Request | None:
        for failure in failed.values():
            raise RunError(f"{failure.error}; it could be read when the command was started")
        if n >= len(self.positions):
            return None
        position = int(self.positions[n])
        return Request(position, self.videos[position], (int(self.clips[n]),))


@dataclass(frozen=True)
class EachVideoSlots:
    """Slots of a pass over all videos."""

    videos: Sequence[VideoRecord]
    batch_size: int
    first: int
    per_host: int

    def request(self, n: int, failed: Mapping[int, Failure]) -> Request | None:
        record_id = n // self.per_host * self.batch_size + self.first + n % self.per_host
        if failed or record_id >= len(self.videos):
            return None
        return Request(record_id, self.videos[record_id], None)
