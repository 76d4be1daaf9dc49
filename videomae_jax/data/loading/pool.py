"""Slots read by worker processes, in order; when one of these dies, whoever waits for it gets an error.

The n-th slot is read by worker n modulo their number. Each worker has a pipe of its own and a few buffers in
shared memory; it writes only into those that the trainer has handed to it. So there is no lock that a killed
worker could keep, and the end of a worker, or of the trainer, is the end of a pipe.
"""

import math
import mmap
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Generator
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import IO

import numpy as np

from videomae_jax.data.clips.readers import Arrays
from videomae_jax.data.loading.process import Process, make_task
from videomae_jax.data.loading.slots import Slot

ReadSlot = Callable[[int], Slot]
Layout = dict[str, tuple[tuple[int, ...], str]]
"""Shape and type of each array of a slot."""

SECONDS_BEFORE_A_WORD = 60
"""A worker that has sent nothing for this long is named on stderr."""
_SECONDS_BETWEEN_LOOKS = 0.2
_IN_MEMORY = "/dev/shm"


class Stopped(Exception):
    """Nobody wants the slots any more."""


def read_in_workers(
    read: ReadSlot,
    count: int,
    *,
    num_workers: int,
    num_buffers: int,
    blank: Arrays,
    stop: threading.Event | None = None,
) -> Generator[Slot, None, None]:
    """read(0), ..., read(count - 1) in this order; the arrays of a slot are valid until the next is taken.

    Every worker reads up to `num_buffers` slots ahead; `blank` has the shapes and types of their arrays.
    Close the iterator to end the processes early, or set `stop` where another thread waits for a slot: this
    raises Stopped there. Raises WorkerDied when one of them dies, and whatever `read` raises.
    """
    layout = {name: (each.shape, each.dtype.str) for name, each in blank.items()}
    stop = stop or threading.Event()
    workers: list[_Worker] = []
    try:
        for _ in range(num_workers):  # All of them first: a task is taken only by a worker that has started.
            workers.append(_Worker(num_buffers, layout))
        task = make_task(_work, read, num_buffers, layout)
        for first, worker in enumerate(workers):
            worker.begin(task, range(first, count, num_workers))
        for n in range(count):
            worker = workers[n % num_workers]
            slot, buffer = worker.receive(stop)
            yield slot
            worker.hand_over(buffer)
    finally:
        for worker in workers:
            worker.close()


class _Worker:
    """A process that reads a share of the slots, seen from the trainer."""

    def __init__(self, num_buffers: int, layout: Layout) -> None:
        self._memory = _shared_file(num_buffers * _bytes_of(layout))
        self._buffers = _buffers(self._memory.fileno(), num_buffers, layout)
        self._process = Process(self._memory.fileno())

    def begin(self, task: bytes, share: range) -> None:
        self._process.begin(task)
        self._process.send((share, self._memory.fileno()))
        for buffer in range(len(self._buffers)):
            self.hand_over(buffer)

    def receive(self, stop: threading.Event) -> tuple[Slot, int]:
        """The next slot of this worker's share, and the buffer that its arrays are in."""
        waited, told = 0.0, 0.0
        while not self._process.pipe.poll(_SECONDS_BETWEEN_LOOKS):
            if stop.is_set():
                raise Stopped
            waited += _SECONDS_BETWEEN_LOOKS
            if waited - told >= SECONDS_BEFORE_A_WORD:
                told = waited
                print(
                    f"videomae-jax: data worker process {self._process.pid} has sent nothing for "
                    f"{waited:.3g} s; is the storage stuck, or the process stopped? Still waiting for it.",
                    file=sys.stderr,
                    flush=True,
                )
        slot, buffer = self._process.receive()
        if slot.arrays is not None:
            slot = slot._replace(arrays=self._buffers[buffer])
        return slot, buffer

    def hand_over(self, buffer: int) -> None:
        """Let the worker write into this buffer."""
        self._process.send(buffer)

    def close(self) -> None:
        self._process.close()
        self._memory.close()


def _work(pipe: Connection, read: ReadSlot, num_buffers: int, layout: Layout) -> None:
    """Read a share, slot after slot, each into the next buffer that the trainer hands over."""
    share, memory = pipe.recv()
    buffers = _buffers(memory, num_buffers, layout)
    for n in share:
        buffer = pipe.recv()
        slot = read(n)  # What it raises is raised where the slot is taken.
        if slot.arrays is not None:
            for name, values in slot.arrays.items():
                buffers[buffer][name][:] = values
            slot = slot._replace(arrays={})
        pipe.send((slot, buffer))


def _bytes_of(layout: Layout) -> int:
    return sum(math.prod(shape) * np.dtype(kind).itemsize for shape, kind in layout.values())


def _shared_file(size: int) -> IO[bytes]:
    """A file without a name for memory that two processes share; itself in memory where that has room."""
    if os.path.isdir(_IN_MEMORY):
        with suppress(OSError):
            file = tempfile.TemporaryFile(dir=_IN_MEMORY)  # noqa: SIM115
            os.posix_fallocate(file.fileno(), 0, size)  # Without it a full one ends whoever writes.
            return file
    file = tempfile.TemporaryFile()  # noqa: SIM115
    file.truncate(size)
    return file


def _buffers(file: int, num_buffers: int, layout: Layout) -> list[Arrays]:
    """The shared memory seen as arrays, one set for each buffer."""
    memory = mmap.mmap(file, num_buffers * _bytes_of(layout))
    buffers: list[Arrays] = []
    start = 0
    for _ in range(num_buffers):
        buffers.append({})
        for name, (shape, kind) in layout.items():
            buffers[-1][name] = each = np.ndarray(shape, kind, memory, start)
            start += each.nbytes
    return buffers


__all__ = ["ReadSlot", "Stopped", "read_in_workers"]
