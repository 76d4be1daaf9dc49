"""Runs a function in worker processes, in order, and finds the item over which a process dies."""

from collections.abc import Callable, Iterator, Sequence
from multiprocessing import connection
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from videomae_jax.data.loading.process import Process, WorkerDied, make_task
from videomae_jax.data.records import VideoRecord
from videomae_jax.data.video import VideoError

Item = TypeVar("Item")
Result = TypeVar("Result")
_AHEAD = 3
"""Items given out for each worker: so many results may wait for one slow item before them."""
_SECONDS_BETWEEN_LOOKS = 0.5


def map_in_processes(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int,
    crashed: Callable[[Item], Result],
) -> Iterator[Result]:
    """function(item) for each item in order; `crashed(item)` where it ends the process that runs it.

    A process may die for want of memory that others hold, so that its item is tried once more with nothing
    beside it. Raises WorkerDied when a process ends before it has an item, and what `function` raises.
    """
    workers = max(1, min(workers, len(items)))
    results: dict[int, Result] = {}
    suspects: list[int] = []
    given = 0
    pool = _Pool(make_task(_work, function), workers)
    try:
        for n in range(len(items)):
            while n not in results:
                if suspects and not pool.busy:
                    position = suspects[0]
                    pool.give(position, items[position])
                while not suspects and pool.idle and given < min(len(items), n + workers * _AHEAD):
                    pool.give(given, items[given])
                    given += 1
                for position, result in pool.take():
                    if not isinstance(result, WorkerDied):
                        results[position] = result
                    elif position in suspects:
                        results[position] = crashed(items[position])
                    else:
                        suspects.append(position)
                        continue
                    if position in suspects:
                        suspects.remove(position)
            yield results.pop(n)
    finally:
        pool.close()


def crashed(record: VideoRecord) -> VideoError:
    """The message for a video that ends the process that reads it."""
    detail = "reading it ends the process, by a crash of the decoder or for want of memory"
    return VideoError(record.path, "crashes-decoder", detail)


class _Pool:
    """Processes that are starting, idle, or busy with one item each."""

    def __init__(self, task: bytes, workers: int) -> None:
        self._task = task
        self.idle: list[Process] = []
        self.busy: dict[Process, int] = {}
        self._starting: list[Process] = []
        try:
            for _ in range(workers):
                self._starting.append(Process())
            for process in self._starting:
                process.begin(task)
        except BaseException:
            self.close()
            raise

    def give(self, position: int, item: Any) -> None:
        """Let an idle process work on an item, once there is one."""
        while not self.idle:
            self._wait()
        process = self.idle.pop()
        self.busy[process] = position
        process.expect()
        process.send(item)

    def take(self) -> Iterator[tuple[int, Any]]:
        """Wait, and give the results that have come by the positions of their items."""
        for process in self._wait():
            position = self.busy.pop(process)
            try:
                result = process.receive()
            except WorkerDied as error:
                process.close()
                result = error
                self._starting.append(Process())
                self._starting[-1].begin(self._task)
            except BaseException:
                process.close()
                raise
            else:
                self.idle.append(process)
            yield position, result

    def _wait(self) -> list[Process]:
        """The busy processes that have sent something; those that have started become idle."""
        waiting: dict[Any, Process] = {each.pipe: each for each in (*self.busy, *self._starting)}
        # Looked at again and again: an endless wait would miss a Ctrl-C that comes just before it begins.
        ready = [waiting[pipe] for pipe in connection.wait(list(waiting), _SECONDS_BETWEEN_LOOKS)]
        for process in [each for each in ready if each in self._starting]:
            process.receive()
            self._starting.remove(process)
            self.idle.append(process)
        for process in (*self.busy, *self._starting):
            process.say_if_silent()
        return [process for process in ready if process in self.busy]

    def close(self) -> None:
        for process in (*self.idle, *self.busy, *self._starting):
            process.close()


def _work(pipe: Connection, function: Callable[[Any], Any]) -> None:
    """Say that it has started, then apply the function to what comes."""
    pipe.send(None)
    while True:
        pipe.send(function(pipe.recv()))
