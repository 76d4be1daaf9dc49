"""Batches of what a reader makes of videos, each a pure function of its step: no iterator state is kept.

They are made ahead of their use, in worker processes or in a thread; the number of workers changes nothing.
"""

import logging
import threading
import time
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, closing
from inspect import GEN_RUNNING, getgeneratorstate

import numpy as np

from videomae_jax.data.clips.readers import Reader
from videomae_jax.data.loading.failures import Failure, read_patiently
from videomae_jax.data.loading.filling import ClipBatch, Filling
from videomae_jax.data.loading.order import (
    ChosenClipSlots,
    EachVideoSlots,
    Share,
    Slots,
    TrainingSlots,
)
from videomae_jax.data.loading.workers import Workers
from videomae_jax.data.records import VideoRecord
from videomae_jax.data.video.frames import VideoError
from videomae_jax.errors import printable

log = logging.getLogger(__name__)

_SECONDS_BETWEEN_LOOKS = 0.5


def batches(
    videos: Sequence[VideoRecord],
    read: Reader,
    *,
    seed: int,
    batch_size: int,
    num_workers: int,
    workers: Workers | None = None,
    start_step: int,
    stop_step: int,
    shares: tuple[Share, ...] = (),
    process_index: int = 0,
    process_count: int = 1,
) -> Generator[ClipBatch, None, None]:
    """The batches of steps `start_step` to `stop_step` - 1, or this host's share of them, to train on.

    `batch_size` counts the videos of all hosts; `shares` are the counts and weights of the sources that
    `videos` come from, where they have weights. `workers` read for several iterators, one after the other;
    by default an iterator starts `num_workers` of its own. A video that cannot be read is replaced. Close the
    iterator to end it early. Raises RunError when a worker process dies, or when 20 (or all) videos in a row
    cannot be read.
    """
    first, per_host = _share(batch_size, process_index, process_count)
    slots = TrainingSlots(videos, seed, batch_size, start_step, first, per_host, shares)
    steps = range(start_step, stop_step)
    yield from _tell_repeats(_read(slots, read, steps, per_host, num_workers, workers))


def each_video(
    videos: Sequence[VideoRecord],
    read: Reader,
    *,
    batch_size: int,
    num_workers: int,
    workers: Workers | None = None,
    process_index: int = 0,
    process_count: int = 1,
) -> Generator[ClipBatch, None, None]:
    """Every video exactly once, without random draws; `step` counts the batches.

    `batch_size` counts the videos of all hosts, and every host gets as many batches. Weight 0 marks what
    fills up the last one and the place of a video that cannot be read, which `failures` names. Closing and
    errors: see `batches`.
    """
    first, per_host = _share(batch_size, process_index, process_count)
    slots = EachVideoSlots(videos, batch_size, first, per_host)
    steps = range(-(-len(videos) // batch_size))
    yield from _tell_repeats(_read(slots, read, steps, per_host, num_workers, workers))


def chosen_clips(
    slots: ChosenClipSlots, read: Reader, *, batch_size: int, num_workers: int
) -> Generator[ClipBatch, None, None]:
    """These clips in order; weight 0 marks what fills up the last batch. Closing: see `batches`.

    Raises RunError when a clip cannot be read.
    """
    steps = range(-(-len(slots.positions) // batch_size))
    yield from _tell_repeats(_read(slots, read, steps, batch_size, num_workers, None))


def _tell_repeats(batches: Generator[ClipBatch, None, None]) -> Generator[ClipBatch, None, None]:
    """The same batches; now and then a line is logged on what had to be read again."""
    count, told = 0, 1
    with closing(batches):
        for batch in batches:
            count += len(batch.repeats)
            if batch.repeats and count >= told:
                last, told = batch.repeats[-1], 2 * count
                log.warning(
                    "the storage or the system failed for a moment, and videos were read again: %d times so "
                    "far, the last being %s: %s",
                    count,
                    printable(last.path),
                    last.error,
                )
            yield batch
            del batch  # Whoever waits for the next one holds no memory of this one.


def _share(batch_size: int, process_index: int, process_count: int) -> tuple[int, int]:
    """The first place of this host in a batch, and how many it has."""
    if batch_size % process_count:
        raise ValueError(f"batch_size={batch_size} cannot be shared evenly by {process_count} hosts")
    per_host = batch_size // process_count
    return process_index * per_host, per_host


def _read(
    slots: Slots, read: Reader, steps: range, per_host: int, num_workers: int, workers: Workers | None
) -> Generator[ClipBatch, None, None]:
    """The batches of these steps, from worker processes when there are any."""
    with ExitStack() as held:
        if workers is None:
            workers = held.enter_context(closing(Workers(min(num_workers, len(steps) * per_host))))
        if workers.count:
            yield from workers.read(slots, read, steps, per_host)
        else:
            stop = threading.Event()
            yield from _one_ahead(_read_here(slots, read, steps, per_host, stop), stop)


def _read_here(
    slots: Slots, read: Reader, steps: range, per_host: int, stop: threading.Event
) -> Generator[ClipBatch, None, None]:
    """The same in this process."""
    blank = read.blank()
    for step in steps:
        arrays = {name: np.zeros((per_host, *each.shape), each.dtype) for name, each in blank.items()}
        filling = Filling(step, arrays)
        for place, failed in enumerate(filling.failed):
            n = (step - steps.start) * per_host + place
            while request := slots.request(n, failed):
                if stop.is_set():
                    return
                try:
                    found = read_patiently(read, request.record, request.key, filling.repeats)
                except VideoError as error:
                    failed[request.record_id] = Failure.of(error)
                    continue
                for name, values in found.items():
                    arrays[name][place] = values
                filling.succeed(place, request.record_id)
                break
            else:
                filling.leave_empty(place)
        yield filling.batch()


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
