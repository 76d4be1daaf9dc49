"""Slots read by worker processes, in order; when one of these dies, whoever waits for it gets an error.

The n-th slot is read by worker n modulo their number. Each worker has a pipe of its own and a few buffers in
shared memory; it writes only into those that the trainer has handed to it. So there is no lock that a killed
worker could keep, and the end of a worker, or of the trainer, is the end of a pipe.
"""

import multiprocessing
import signal
import sys
from collections.abc import Callable, Generator
from contextlib import suppress
from ctypes import Array, c_uint8
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection

import numpy as np

from videomae_jax.data.clips import Arrays
from videomae_jax.data.slots import Slot
from videomae_jax.errors import RunError

ReadSlot = Callable[[int], Slot]

SECONDS_BEFORE_A_WORD = 60
"""A worker that has sent nothing for this long is named on stderr."""


def read_in_workers(
    read: ReadSlot, count: int, *, num_workers: int, num_buffers: int, blank: Arrays
) -> Generator[Slot, None, None]:
    """read(0), ..., read(count - 1) in this order; the arrays of a slot are valid until the next is taken.

    Every worker reads up to `num_buffers` slots ahead; `blank` has the shapes and types of their arrays.
    Close the iterator to end the processes early. Raises RunError when one of them dies, and whatever `read`
    raises.
    """
    workers: list[_Worker] = []
    try:
        for first in range(num_workers):
            share = range(first, count, num_workers)
            workers.append(_Worker(read, share, num_buffers, blank))
        for n in range(count):
            worker = workers[n % num_workers]
            slot, buffer = worker.receive()
            yield slot
            worker.hand_over(buffer)
    finally:
        for worker in workers:
            worker.close()


class _Worker:
    """A process that reads a share of the slots, seen from the trainer."""

    def __init__(self, read: ReadSlot, share: range, num_buffers: int, blank: Arrays) -> None:
        context = multiprocessing.get_context("spawn")
        size = num_buffers * sum(each.nbytes for each in blank.values())
        memory = context.RawArray(c_uint8, size)
        self._buffers = _buffers(memory, num_buffers, blank)
        self._pipe, its_end = context.Pipe()
        arguments = read, share, its_end, memory, num_buffers, blank
        self._process = context.Process(target=_work, args=arguments, daemon=True)
        # Processes inherit blocked signals, so that Ctrl-C and SIGTERM reach only the trainer, which then
        # closes the workers. The resource tracker comes first: started later, it would unblock them again.
        resource_tracker.ensure_running()
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        its_end.close()
        for buffer in range(num_buffers):
            self.hand_over(buffer)

    def receive(self) -> tuple[Slot, int]:
        """The next slot of this worker's share, and the buffer that its arrays are in."""
        try:
            waited = 0
            while not self._pipe.poll(SECONDS_BEFORE_A_WORD):
                waited += SECONDS_BEFORE_A_WORD
                print(
                    f"videomae-jax: data worker process {self._process.pid} has sent nothing for "
                    f"{waited:g} s; is the storage stuck, or the process stopped? It is waited for.",
                    file=sys.stderr,
                    flush=True,
                )
            received, buffer = self._pipe.recv()
        except (EOFError, ConnectionError):
            raise self._death() from None
        if isinstance(received, BaseException):
            raise received
        if received.arrays is not None:
            received = received._replace(arrays=self._buffers[buffer])
        return received, buffer

    def hand_over(self, buffer: int) -> None:
        """Let the worker write into this buffer."""
        with suppress(ConnectionError):  # If it died, `receive` says so.
            self._pipe.send(buffer)

    def _death(self) -> RunError:
        self._process.join()
        return RunError(
            f"a data worker process died (exit code {self._process.exitcode}). Exit code -9 mostly means "
            "that memory ran out: use fewer with --data.num-workers. Exit code -11 is a crash, perhaps of "
            "the decoder: videomae-jax check-data LIST says over which video."
        )

    def close(self) -> None:
        self._process.kill()  # It holds nothing that anybody else needs.
        self._process.join()
        self._process.close()
        self._pipe.close()


def _work(
    read: ReadSlot, share: range, pipe: Connection, memory: Array[c_uint8], num_buffers: int, blank: Arrays
) -> None:
    """Read this share, slot after slot, each into the next buffer that the trainer hands over."""
    buffers = _buffers(memory, num_buffers, blank)
    try:
        for n in share:
            buffer = pipe.recv()
            try:
                slot = read(n)
            except Exception as error:  # It is raised where the slot is taken.
                pipe.send((error, buffer))
                break
            if slot.arrays is not None:
                for name, values in slot.arrays.items():
                    buffers[buffer][name][:] = values
                slot = slot._replace(arrays={})
            pipe.send((slot, buffer))
        while True:  # What it has sent could be lost if it went first.
            pipe.recv()
    except (EOFError, ConnectionError):
        pass  # The trainer is gone, however that ended.


def _buffers(memory: Array[c_uint8], num_buffers: int, blank: Arrays) -> list[Arrays]:
    """The shared memory seen as arrays, one set for each buffer."""
    buffers: list[Arrays] = []
    start = 0
    for _ in range(num_buffers):
        buffers.append({})
        for name, each in blank.items():
            buffers[-1][name] = np.ndarray(each.shape, each.dtype, memoryview(memory), start)
            start += each.nbytes
    return buffers
