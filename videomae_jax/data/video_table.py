"""Videos as columns: some 100 bytes each instead of some 300, for lists of millions."""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import SupportsIndex, overload

import numpy as np
from jaxtyping import Int64

from videomae_jax.data.records import VideoRecord

NO_LABEL = -(2**63)
"""What stands for None in a column of labels."""
# Such bytes are valid names of files, too.
_ENCODING = "utf-8", "surrogatepass"


class _Texts:
    """Strings in one buffer."""

    def __init__(self) -> None:
        self._buffer, self._ends = bytearray(), array("q", [0])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def add(self, text: str) -> None:
        self._buffer += text.encode(*_ENCODING)
        self._ends.append(len(self._buffer))

    def __getitem__(self, position: int) -> str:
        start, end = self._ends[position], self._ends[position + 1]
        return self._buffer[start:end].decode(*_ENCODING)


class VideoTable(Sequence[VideoRecord]):
    """Records that are made when they are asked for."""

    def __init__(self, videos: Iterable[VideoRecord] = ()) -> None:
        self._paths, self._names = _Texts(), _Texts()
        self._name_at = array("i")
        """Where in the path the name begins; for a name that is no end of its path, -1 minus its position."""
        self._labels, self._starts, self._totals = array("q"), array("q"), array("q")
        self.parts: tuple[int, ...] = ()
        """How many videos come from each of several sources."""
        for video in videos:
            self.add(video.path, video.name, video.label, video.start, video.total)

    def add(self, path: str, name: str, label: int | None = None, start: int = 0, total: int = -1) -> None:
        """Add a video, while the table is made."""
        if path.endswith(name):
            self._name_at.append(len(path) - len(name))
        else:
            self._name_at.append(-1 - len(self._names))
            self._names.add(name)
        self._paths.add(path)
        self._labels.append(NO_LABEL if label is None else label)
        self._starts.append(start)
        self._totals.append(total)

    def with_labels(self, labels: Int64[np.ndarray, " n"]) -> "VideoTable":
        """The same videos with others."""
        table = VideoTable.__new__(VideoTable)
        table.__dict__ = self.__dict__ | {"_labels": array("q", labels.tobytes())}
        return table

    @property
    def labels(self) -> Int64[np.ndarray, " n"]:
        """The label of each, `NO_LABEL` where it has none."""
        return np.frombuffer(self._labels, np.int64) if self._labels else np.zeros(0, np.int64)

    def __len__(self) -> int:
        return len(self._name_at)

    @overload
    def __getitem__(self, position: SupportsIndex) -> VideoRecord: ...
    @overload
    def __getitem__(self, position: slice) -> tuple[VideoRecord, ...]: ...
    def __getitem__(self, position: SupportsIndex | slice) -> VideoRecord | tuple[VideoRecord, ...]:
        if isinstance(position, slice):
            return tuple(self[n] for n in range(*position.indices(len(self))))
        return self._record(range(len(self))[position])  # Raises IndexError, and counts from the end.

    def __iter__(self) -> Iterator[VideoRecord]:
        return map(self._record, range(len(self)))

    def _record(self, n: int) -> VideoRecord:
        path, name_at, label = self._paths[n], self._name_at[n], self._labels[n]
        return VideoRecord(
            path,
            path[name_at:] if name_at >= 0 else self._names[-1 - name_at],
            None if label == NO_LABEL else label,
            self._starts[n],
            self._totals[n],
        )

    def __eq__(self, other: object) -> bool:
        """Whether the same videos are in the same order, in a table or in a tuple."""
        return isinstance(other, VideoTable | tuple) and tuple(self) == tuple(other)

    __hash__ = None  # type: ignore[assignment]


def joined(tables: Sequence[VideoTable]) -> VideoTable:
    """The videos of several tables, one after the other."""
    if len(tables) == 1:
        return tables[0]
    table = VideoTable(chain.from_iterable(tables))
    table.parts = tuple(map(len, tables))
    return table
