"""Memory that a trainer shares with its workers, in pages of one batch each.

A page is taken again once the last array over it is gone, whoever held it: a batch, or a device that works in
place. So nobody says when he is done, and what is read can never be overwritten. Pages of a size that nobody
reads into keep their addresses, but no memory.
"""

import math
import mmap
import os
import tempfile
import weakref
from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
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


_Page = tuple[int, mmap.mmap]
"""Its offset, and the memory."""


class Pages:
    """Pages as the trainer sees them."""

    def __init__(self) -> None:
        self._file, self._end = _shared_file(), 0
        self._unused: defaultdict[int, deque[_Page]] = defaultdict(deque)
        self._emptied: defaultdict[int, deque[_Page]] = defaultdict(deque)
        self._wanted: Counter[int] = Counter()

    @property
    def fileno(self) -> int:
        return self._file.fileno()

    @contextmanager
    def kept(self, layout: Layout) -> Iterator[None]:
        """While batches of this layout are read, their pages keep their memory."""
        size = page_size(layout)
        self._wanted[size] += 1
        try:
            yield
        finally:
            self._wanted[size] -= 1
            if not self._wanted[size]:
                for _ in range(len(self._unused[size])):
                    self._return(size, self._unused[size].popleft())

    def take(self, layout: Layout) -> tuple[int, Arrays]:
        """The offset of a page and its arrays, which hold anything; raises RunError where memory is short."""
        size = page_size(layout)
        try:
            page = self._unused[size].popleft() if self._unused[size] else self._with_memory(size)
        except OSError as error:
            shared = self._end - sum(each * len(pages) for each, pages in self._emptied.items())
            raise RunError(
                f"no memory for one more batch of {size / 1e6:,.0f} MB, beside the {shared / 1e6:,.0f} MB "
                f"that are shared with the workers ({error.strerror}): use a smaller --batch-size"
            ) from error
        offset, memory = page
        whole = np.frombuffer(memory, np.uint8)  # All arrays of the page are views of this one.
        weakref.finalize(whole, self._return, size, page).atexit = False
        return offset, _arrays(whole, layout)

    def close(self) -> None:
        """Make no more pages; those in use stay until they are released."""
        self._file.close()

    def _return(self, size: int, page: _Page) -> None:
        """Take a page back, from any thread, in the middle of anything."""
        if self._wanted[size] or not hasattr(mmap, "MADV_REMOVE"):
            self._unused[size].append(page)
        else:
            page[1].madvise(mmap.MADV_REMOVE)
            self._emptied[size].append(page)

    def _with_memory(self, size: int) -> _Page:
        """A page that was emptied, or a new one."""
        emptied = self._emptied[size]
        offset = emptied[0][0] if emptied else self._end
        if hasattr(os, "posix_fallocate"):  # Without it a lack of memory would end whoever writes.
            os.posix_fallocate(self.fileno, offset, size)
        else:
            self._file.truncate(offset + size)
        if emptied:
            return emptied.popleft()
        memory = mmap.mmap(self.fileno, size, offset=offset)
        self._end += size
        return offset, memory


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
