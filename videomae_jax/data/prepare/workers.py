"""Runs a function in processes, in order, and finds the item over which a process dies."""

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection, get_context, parent_process
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
_AHEAD = 3
"""Items given out for each worker: so many results may wait for one slow item before them."""


def map_in_processes(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int,
    crashed: Callable[[Item], Result],
) -> Iterator[Result]:
    """function(item) for each item in order; `crashed(item)` where it ends the process that runs it."""
    position, careful_until = 0, 0
    while position < len(items):
        careful = position < careful_until
        part = items[position:careful_until] if careful else items[position:]
        ahead = 1 if careful else workers * _AHEAD
        try:
            for result in _map_in_pool(function, part, 1 if careful else workers, ahead):
                yield result
                position += 1
        except BrokenProcessPool:
            if careful:
                yield crashed(items[position])
                position += 1
            else:  # Any of those given out may be the culprit: try them again one at a time.
                careful_until = position + ahead


def _map_in_pool(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int, ahead: int
) -> Iterator[Result]:
    """function(item) in order, with at most `ahead` items given out; raises BrokenProcessPool."""
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_start_worker)
    pending: deque[Future[Any]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) >= ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    """Leave Ctrl-C to the parent, and end when it is gone, however that ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)
