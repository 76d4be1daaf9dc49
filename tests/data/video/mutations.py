"""Files with something broken at random, a pure function of a seed, and what the reader does with them."""

import logging
import multiprocessing
import os
import random
import resource
import signal
import time
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from plain_decode import compare, decode_plainly, is_true

WAYS = ("flip", "header", "cut", "zeros", "removed", "repeated", "swapped")


def mutate(content: bytes, seed: int) -> bytes:
    """The same bytes with a few places changed."""
    rng = random.Random(seed)
    way = WAYS[seed % len(WAYS)]
    changed, size = bytearray(content), len(content)
    at = rng.randrange(size)
    length = rng.choice((1, 2, 4, 16, 64, 188, 400))
    match way:
        case "flip":
            for _ in range(rng.choice((1, 1, 2, 8, 40))):
                changed[rng.randrange(size)] ^= 1 << rng.randrange(8)
        case "header":
            for _ in range(rng.choice((1, 2, 4))):
                changed[rng.randrange(min(size, 700))] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
        case "cut":
            del changed[at:]
        case "zeros":
            changed[at : at + length] = bytes(len(changed[at : at + length]))
        case "removed":
            del changed[at : at + length]
        case "repeated":
            changed[at:at] = changed[at : at + length]
        case "swapped":
            other = rng.randrange(size)
            one, two = bytes(changed[at : at + length]), bytes(changed[other : other + length])
            if len(one) == len(two):
                changed[at : at + length], changed[other : other + length] = two, one
    return bytes(changed)


def examine(path: Path, unbroken: Path) -> dict:
    """What is not right with how a mutation is read: `wrong` frames and `untrue` refusals, and its cost."""
    started = time.perf_counter()
    plain = decode_plainly(path, mutated=True)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = compare(path, plain, fresh=1, unbroken=_plain(unbroken))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {
        "wrong": found.wrong,
        "untrue": [str(refusal) for refusal in found.refused.values() if not is_true(refusal, plain)],
        "refused": len(found.refused),
        "right": found.count - len(found.refused),
        "plain": (len(plain.images), plain.damage[:3]),
        "grown_kb": grown,
        "seconds": time.perf_counter() - started,
    }


_plain = lru_cache(maxsize=1)(decode_plainly)


class Worker:
    """A process that examines files, so that a hang or a crash is seen and ends nothing else."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, its_end = context.Pipe()
        self._process = context.Process(target=_work, args=(its_end,), daemon=True)
        self._process.start()
        its_end.close()

    def examine(self, path: Path, unbroken: Path, seconds: float) -> dict:
        """As `examine`; raises TimeoutError, or EOFError where the process died."""
        self._pipe.send((path, unbroken))
        if not self._pipe.poll(seconds):
            raise TimeoutError(f"{path} takes longer than {seconds} s")
        found = self._pipe.recv()
        if isinstance(found, BaseException):
            raise found
        return found

    def stop(self) -> None:
        """Let it hang."""
        os.kill(self._process.pid, signal.SIGSTOP)

    def close(self) -> None:
        self._process.kill()
        self._process.join()
        self._pipe.close()


def _work(pipe) -> None:
    logging.getLogger("libav").setLevel(logging.CRITICAL)
    with suppress(EOFError):
        while True:
            task = pipe.recv()
            try:
                pipe.send(examine(*task))
            except Exception as error:
                pipe.send(error)
