"""Memory that a trainer shares with its workers, in pages of one batch each.

A page is taken again once the last array over it is gone, whoever held it: a batch, or a device that works in
place. So nobody says when he is done, and what is read can never be overwritten.
"""

import math
import mmap
import os
import tempfile
import weakref
from collections import defaultdict, deque
from typing import IO

import numpy as np

from videomae_jax.data.clips.readers import Arrays
from videomae_jax.errors import RunError

Layout = dict[str, tuple[tuple[int, ...], str]]
"""Shape and type of each array."""

# JAX takes arrays that begin at such addresses as they are.
_ALIGNMENT = 64


def layout_of(blank: Arrays, places: int) -> Layout:
    """That of a batch with so many places, each of which has arrays like these."""
    return {name: ((places, *each.shape), each.dtype.str) for name, each in blank.items()}


def page_size(layout: Layout) -> int:
    """Bytes of a page."""
    size = sum(_aligned(_bytes_of(*each)) for each in layout.values())
    return -(-size // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY


def map_page(file: int, offset: int, layout: Layout) -> Arrays:
    """The arrays of a page as a worker sees them."""
    return _arrays(np.frombuffer(mmap.mmap(file, page_size(layout), offset=offset), np.uint8), layout)


class Pages:
    """Pages as the trainer sees them."""

    def __init__(self) -> None:
        self._file, self._end = _shared_file(), 0
        self._unused: defaultdict[int, deque[tuple[int, mmap.mmap]]] = defaultdict(deque)

    @property
    def fileno(self) -> int:
        return self._file.fileno()

    def take(self, layout: Layout) -> tuple[int, Arrays]:
        """The offset of a page and its arrays, which hold anything; raises RunError where memory is short."""
        size = page_size(layout)
        try:
            page = self._unused[size].popleft()
        except IndexError:
            page = self._new(size)
        offset, memory = page
        whole = np.frombuffer(memory, np.uint8)  # All arrays of the page are views of this one.
        weakref.finalize(whole, self._unused[size].append, page).atexit = False
        return offset, _arrays(whole, layout)

    def close(self) -> None:
        """Make no more pages; those in use stay until they are released."""
        self._file.close()

    def _new(self, size: int) -> tuple[int, mmap.mmap]:
        try:
            if hasattr(os, "posix_fallocate"):  # Without it a lack of memory would end whoever writes.
                os.posix_fallocate(self.fileno, self._end, size)
            else:
                self._file.truncate(self._end + size)
            memory = mmap.mmap(self.fileno, size, offset=self._end)
        except OSError as error:
            raise RunError(
                f"no memory for one more batch of {size / 1e6:,.0f} MB, beside the {self._end / 1e6:,.0f} MB "
                f"that are shared with the workers ({error.strerror}): use a smaller --batch-size"
            ) from error
        self._end += size
        return self._end - size, memory


def _shared_file() -> IO[bytes]:
    """A file without a name: in memory, which no limit of /dev/shm touches, where the system has such."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("videomae-jax"), "r+b", buffering=0)
    return tempfile.TemporaryFile()


def _arrays(whole: np.ndarray, layout: Layout) -> Arrays:
    """The parts of a page, as views."""
    arrays, start = {}, 0
    for name, (shape, kind) in layout.items():
        size = _bytes_of(shape, kind)
        arrays[name] = whole[start : start + size].view(kind).reshape(shape)
        start += _aligned(size)
    return arrays


def _bytes_of(shape: tuple[int, ...], kind: str) -> int:
    return math.prod(shape) * np.dtype(kind).itemsize


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
