"""Records of a set by their positions, with few of its shards open at a time.

tensorflow-datasets keeps every shard open that it has read from; a large set has more of them than a process
may have files.
"""

import resource
import threading
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np

_OPTIONS = {"options": "readahead_buffer_size:0,max_parallelism:0", "file_reader_buffer_size": 32768}
_MOST_OPEN = 256


class Shards:
    """The records of a split, as tensorflow-datasets' `file_instructions` describe it."""

    def __init__(self, instructions: Sequence[Any]) -> None:
        self._files = [(each.filename, each.skip) for each in instructions]
        self._ends = np.cumsum([each.take for each in instructions])

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, position: int) -> bytes:
        """The bytes of a record; raises what array_record raises for a shard that cannot be read."""
        shard = int(np.searchsorted(self._ends, position, side="right"))
        file, skip = self._files[shard]
        first = int(self._ends[shard - 1]) if shard else 0
        return _OPEN.read(file, skip + position - first)


class _OpenShards:
    """Those of this process that were read last."""

    def __init__(self) -> None:
        self._readers: OrderedDict[str, Any] = OrderedDict()
        self._lock = threading.Lock()
        self._most = 0

    def read(self, file: str, position: int) -> bytes:
        with self._lock:
            try:
                return self._reader(file).read([position])[0]
            except BaseException:  # What failed may be stale: it is opened again, should it be asked for.
                self._readers.pop(file, None)
                raise

    def _reader(self, file: str) -> Any:
        from array_record.python import array_record_module

        self._most = self._most or _room_for_files()
        if file not in self._readers:
            while len(self._readers) >= self._most:
                self._readers.popitem(last=False)[1].close()
            self._readers[file] = array_record_module.ArrayRecordReader(file, **_OPTIONS)
        self._readers.move_to_end(file)
        return self._readers[file]


_OPEN = _OpenShards()


def _room_for_files() -> int:
    """How many shards may be open: a part of what this process may have, which is raised where it can be."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # Some systems have no limit, and refuse to be told so.
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST_OPEN if soft == resource.RLIM_INFINITY else max(1, min(_MOST_OPEN, soft // 4))
