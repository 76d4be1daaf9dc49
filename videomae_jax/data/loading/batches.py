"""Batches of what a reader makes of videos, each a pure function of its step: no iterator state is kept.

Worker processes read slots in turn and batches are put together from them in order, one batch ahead of its
use, so the number of workers changes nothing.
"""

import threading
import time
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from inspect import GEN_RUNNING, getgeneratorstate

import numpy as np
from jaxtyping import Float32, Int64

from videomae_jax.data.clips.readers import Arrays, Reader
from videomae_jax.data.loading.pool import ReadSlot, Stopped, read_in_workers
from videomae_jax.data.loading.slots import (
    EachVideoSlots,
    Failure,
    Share,
    Slot,
    TrainingSlots,
    steps_per_epoch,
)
from videomae_jax.data.records import VideoRecord

__all__ = ["ClipBatch", "Failure", "Share", "batches", "each_video", "steps_per_epoch"]

_SECONDS_BETWEEN_LOOKS = 0.5


@dataclass(frozen=True)
class ClipBatch:
    """The clips of one step on this host."""

    step: int
    arrays: Arrays
    """What the reader makes of each video, one after the other; b counts the clips in `video`."""
    weights: Float32[np.ndarray, " b"]
    """1, or 0 for a clip that only fills up a batch, with zeros in its arrays."""
    record_ids: Int64[np.ndarray, " b"]
    """Positions in `videos`; -1 where the weight is 0."""
    failures: list[Failure]
    attempts: int
    """Videos asked for, with those that failed."""


def batches(
    videos: tuple[VideoRecord, ...],
    read: Reader,
    *,
    seed: int,
    batch_size: int,
    num_workers: int,
    start_step: int,
    stop_step: int,
    shares: tuple[Share, ...] = (),
    process_index: int = 0,
    process_count: int = 1,
) -> Generator[ClipBatch, None, None]:
    """The batches of steps `start_step` to `stop_step` - 1, or this host's share of them, to train on.

    `batch_size` counts the videos of all hosts; `shares` are the counts and weights of the sources that
    `videos` come from, where they have weights. A video that cannot be read is replaced. Close the iterator
    to stop its workers early. Raises RunError when a worker process dies, or when 20 (or all) videos in a row
    cannot be read.
    """
    first, per_host = _share(batch_size, process_index, process_count)
    read_slot = TrainingSlots(videos, read, seed, batch_size, start_step, first, per_host, shares)
    blank = read.blank()
    stop = threading.Event()
    slots = _read_slots(read_slot, (stop_step - start_step) * per_host, num_workers, per_host, blank, stop)
    yield from _one_ahead(_collect(slots, range(start_step, stop_step), per_host, blank), stop)


def each_video(
    videos: tuple[VideoRecord, ...],
    read: Reader,
    *,
    batch_size: int,
    num_workers: int,
    process_index: int = 0,
    process_count: int = 1,
) -> Generator[ClipBatch, None, None]:
    """Every video exactly once, without random draws; `step` counts the batches.

    `batch_size` counts the videos of all hosts, and every host gets as many batches. Weight 0 marks what
    fills up the last one and the place of a video that cannot be read, which `failures` names. Closing and
    errors: see `batches`.
    """
    first, per_host = _share(batch_size, process_index, process_count)
    steps = -(-len(videos) // batch_size)
    read_slot = EachVideoSlots(videos, read, batch_size, first, per_host)
    blank = read.blank()
    stop = threading.Event()
    slots = _read_slots(read_slot, steps * per_host, num_workers, per_host, blank, stop)
    yield from _one_ahead(_collect(slots, range(steps), per_host, blank), stop)


def _share(batch_size: int, process_index: int, process_count: int) -> tuple[int, int]:
    """The first place of this host in a batch, and how many it has."""
    if batch_size % process_count:
        raise ValueError(f"batch_size={batch_size} cannot be shared evenly by {process_count} hosts")
    per_host = batch_size // process_count
    return process_index * per_host, per_host


def _collect(
    slots: Generator[Slot, None, None], steps: range, per_host: int, blank: Arrays
) -> Generator[ClipBatch, None, None]:
    """Put batches together from slots, in order."""
    clips = len(blank["video"])
    try:
        for step in steps:
            arrays = {name: np.zeros((per_host, *each.shape), each.dtype) for name, each in blank.items()}
            record_ids = np.full((per_host, clips), -1)
            failures: list[Failure] = []
            attempts = 0
            for place in range(per_host):
                slot = next(slots)
                if slot.arrays is not None:
                    record_ids[place] = slot.record_id
                    for name, values in slot.arrays.items():
                        arrays[name][place] = values
                failures += slot.failures
                attempts += (slot.arrays is not None) + len(slot.failures)
                del slot  # Its arrays are overwritten when the next one is taken.
            ids = record_ids.reshape(-1)
            weights = (ids >= 0).astype(np.float32)
            flat = {name: each.reshape(-1, *each.shape[2:]) for name, each in arrays.items()}
            yield ClipBatch(step, flat, weights, ids, failures, attempts)
    finally:
        slots.close()


def _one_ahead(
    source: Generator[ClipBatch, None, None], stop: threading.Event
) -> Generator[ClipBatch, None, None]:
    """The same batches; each is put together in a thread while the one before it is used.

    Whoever closes this, or is interrupted, does not wait for the batch on its way: `stop` is set.
    """
    try:
        with ThreadPoolExecutor(1, "batches") as thread:
            try:
                ahead = thread.submit(next, source, None)
                while (batch := _result(ahead)) is not None:
                    ahead = thread.submit(next, source, None)
                    yield batch
            finally:
                stop.set()
    finally:
        # A Ctrl-C in the middle of `submit` leaves a thread that nobody waits for.
        while getgeneratorstate(source) == GEN_RUNNING:
            time.sleep(0.01)
        source.close()


def _result(ahead: Future[ClipBatch | None]) -> ClipBatch | None:
    """What comes of it. A wait without an end would miss a Ctrl-C that comes just before it begins."""
    while not wait([ahead], _SECONDS_BETWEEN_LOOKS).done:
        pass
    return ahead.result()


def _read_slots(
    read: ReadSlot, count: int, num_workers: int, per_host: int, blank: Arrays, stop: threading.Event
) -> Generator[Slot, None, None]:
    """read(0), ..., read(count - 1) in this order, from worker processes when there are any."""
    num_workers = min(num_workers, count)
    if not num_workers:
        for n in range(count):
            if stop.is_set():
                raise Stopped
            yield read(n)
        return
    num_buffers = max(1, min(8, -(-per_host // num_workers)))
    yield from read_in_workers(
        read, count, num_workers=num_workers, num_buffers=num_buffers, blank=blank, stop=stop
    )
