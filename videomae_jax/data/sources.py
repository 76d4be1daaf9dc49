"""Lists, folders and prepared sets: which videos a run reads, with their labels and segments.

A source is a folder of videos, a list, a video, or a set of encoded videos as `videomae-jax prepare` and
tensorflow-datasets write them, FOLDER or FOLDER#SPLIT. A set without a split means the one that suits its
use: its split `train` to train on, its validation split to validate and to test, else all of them. Sources
can have weights, `SOURCE:0.7`: so much of every epoch comes from them. A line of a list is one of

    path                     a video without a label
    path label               as in the lists of VideoMAE; a comma may stand between the two
    path start total         as in those of VideoMAE V2: `total` frames from `start` on, -1 for all

Paths with spaces may be quoted. Empty lines and lines that start with # are left out. Relative paths start
from `root`, or else from the folder of the list.
"""

import hashlib
import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

from videomae_jax.config import are_numbers
from videomae_jax.errors import InputError, printable

log = logging.getLogger(__name__)

Split = Literal["train", "val"]
"""What a source is read for: to train on, or to validate and test."""

VIDEO_SUFFIXES = frozenset(
    {".3gp", ".asf", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts"}
    | {".mxf", ".ogv", ".rm", ".ts", ".vob", ".webm", ".wmv", ".y4m"}
)
_QUOTED = re.compile(r"""(?P<quote>["'])(?P<path>.*?)(?P=quote)(?P<numbers>.*)""")
_PLAIN = re.compile(r"(?P<path>.+?)(?P<numbers>(?:(?:\s+|\s*,\s*)-?\d+)*)")
# Only sets are read from elsewhere than the disk.
_REMOTE = re.compile(r"\w+://")
_WEIGHTED = re.compile(r"(?P<source>.+):(?P<weight>\d*\.?\d+)")
_FORMS = "expected `path`, `path label` or `path start total`; quote a path that holds spaces"


@dataclass(frozen=True, slots=True)
class VideoRecord:
    """One video, or a segment of one, that a run may read."""

    path: str
    """Where the file is."""
    name: str
    """The path as the list gives it, or relative to the folder that was named."""
    label: int | None = None
    start: int = 0
    """First frame of the segment."""
    total: int = -1
    """Frames in the segment; -1 for all to the end."""


VideoLike = str | os.PathLike[str] | VideoRecord
"""A video file by its path, or a record of a list."""


def as_records(videos: Iterable[VideoLike]) -> tuple[VideoRecord, ...]:
    """Video files as records, named by their last part; records stay as they are."""
    return tuple(
        video if isinstance(video, VideoRecord) else VideoRecord(os.fspath(video), Path(video).name)
        for video in videos
    )


@dataclass(frozen=True)
class Source:
    """What was found in one source."""

    name: str
    entries: Sequence[tuple[str, VideoRecord]]
    """Each video with the place that named it."""
    classes: tuple[str, ...] | None = None
    """The names that its labels stand for; None where labels are only numbers."""
    is_folder: bool = False
    read_label: Callable[[VideoRecord], int | None] | None = None
    """Finds the label of a video that came without one."""

    def with_labels(self) -> "Source":
        """The same with the labels that have to be looked for in the videos' records."""
        if self.read_label is None or all(record.label is not None for _, record in self.entries):
            return self
        labels = ((where, record, self.read_label(record)) for where, record in self.entries)
        return replace(
            self, entries=[(where, replace(record, label=label)) for where, record, label in labels]
        )


def read_videos(
    sources: Sequence[str | os.PathLike[str]],
    root: str | os.PathLike[str] | None = None,
    split: Split | None = "train",
) -> tuple[VideoRecord, ...]:
    """Read folders, lists, sets and single video files, in the order given.

    `split` is the one that is read of a set which is named without one; None for all of them. Raises
    InputError when a source does not exist, holds no video, or has a line that makes no sense.
    """
    return tuple(record for source in sources for _, record in read_source(source, root, split).entries)


def split_weights(sources: Sequence[str]) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """Sources without their weights, and the weights, none where no source has one.

    Raises InputError when only some have one, or one is not above 0.
    """
    parts = [_WEIGHTED.fullmatch(source) if not os.path.exists(source) else None for source in sources]
    if not any(parts):
        return tuple(sources), ()
    names = tuple(part["source"] if part else source for part, source in zip(parts, sources, strict=True))
    if not all(parts):
        without = next(source for part, source in zip(parts, sources, strict=True) if not part)
        raise InputError(f"{without} has no weight, but other sources have: write {without}:1.0")
    weights = tuple(float(part["weight"]) for part in parts if part)
    if min(weights) <= 0:
        raise InputError(f"{sources[weights.index(min(weights))]}: a weight must be above 0")
    return names, weights


def list_digest(videos: Iterable[VideoRecord]) -> str:
    """A fingerprint of what is read, in which order, wherever it lies: SHA-256 of names and segments."""
    text = "\n".join(f"{video.name}\t{video.start}\t{video.total}" for video in videos)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def format_record(video: VideoRecord, folder: str | os.PathLike[str]) -> str | None:
    """The line of a list for this video, with its path relative to `folder`.

    None where no line is read back as this path: one with a line break, or with spaces and both quotes.
    """
    path = Path(os.path.relpath(video.path, folder)).as_posix()
    quote = "'" if '"' in path else '"'
    plain = _PLAIN.fullmatch(path)
    written = path
    if not plain or plain["numbers"] or re.search(r"^[#\"']|\s", path):
        written = f"{quote}{path}{quote}"
    numbers: list[int] = [] if video.label is None else [video.label]
    if (video.start, video.total) != (0, -1):
        numbers = [video.start, video.total]
    line = " ".join([written, *map(str, numbers)])
    try:
        read_back = _parse_line(line) == (path, numbers)
    except ValueError:
        return None
    return line if read_back and not re.search(r"[\r\n]", line) else None


def read_source(
    name: str | os.PathLike[str],
    root: str | os.PathLike[str] | None = None,
    split: Split | None = "train",
) -> Source:
    """The videos of a folder, a list or a set, or a video itself; see `read_videos`."""
    name = os.fspath(name)
    folder, named_split = set_address(name)
    if folder:
        return _read_set(name, folder, named_split, split)
    source = Path(name)
    if os.path.isdir(name):  # Unlike Path.is_dir, it takes a name that is too long for no folder.
        found = list(_read_folder(source))
        classes = tuple(sorted({_class_folder(record) for record in found} - {""}))
        if not found:
            raise InputError(f"{source} holds no video file (any of {' '.join(sorted(VIDEO_SUFFIXES))})")
        return Source(name, [(name, record) for record in found], classes, is_folder=True)
    if source.suffix.lower() in VIDEO_SUFFIXES:
        return Source(name, [(name, VideoRecord(name, source.name))])
    entries = list(_read_list(source, Path(root) if root is not None else source.parent))
    if not entries:
        raise InputError(f"{source} holds no entry")
    return Source(name, entries)


def set_address(name: str) -> tuple[str, str]:
    """The folder of a set, empty where this is none, and the split that is named, empty where none is."""
    folder, _, split = name.rpartition("#")
    for where, which in ((folder, split), (name, "")):
        # The latter is in a set that is not finished.
        signs = (os.path.join(where, sign) for sign in ("dataset_info.json", ".prepare"))
        if where and (_REMOTE.match(where) or any(map(os.path.exists, signs))):
            return where, which
    return "", ""


def _read_set(name: str, folder: str, named_split: str, split: Split | None) -> Source:
    # Here, because sets are read by what this module defines, and few runs read one.
    from videomae_jax.data.prepared import choose_splits, read_label, read_set

    entries: list[tuple[str, VideoRecord]] = []
    classes: tuple[str, ...] = ()
    for each in [named_split] if named_split else choose_splits(folder, split):
        records, classes = read_set(folder, each)
        entries += [(name, record) for record in records]
    # Sets of lists without names store the numbers as names.
    named = None if are_numbers(classes) else classes
    return Source(name, entries, named, read_label=read_label)


def _class_folder(record: VideoRecord) -> str:
    """The name of the class folder that a video lies in; empty where it lies in none."""
    return record.name.split("/")[0] if "/" in record.name else ""


def _read_folder(folder: Path) -> Iterator[VideoRecord]:
    """All videos below a folder, sorted; the folders directly in it are the classes."""
    names, seen, passed_over = [], set(), Counter[str]()
    closed: list[OSError] = []
    for parent, folders, files in os.walk(folder, onerror=closed.append, followlinks=True):
        real = os.path.realpath(parent)
        folders[:] = [name for name in folders if not name.startswith(".") and real not in seen]
        if real not in seen:
            names += [Path(parent, name).relative_to(folder).as_posix() for name in files if _is_video(name)]
            passed_over.update(
                Path(name).suffix.lower()
                for name in files
                if not name.startswith(".") and not _is_video(name)
            )
        seen.add(real)
    _say_what_is_not_read(str(folder), tuple(sorted(passed_over.items())), tuple(map(str, closed)))
    classes = {name.split("/")[0] for name in names if "/" in name}
    labels = {name: label for label, name in enumerate(sorted(classes))}
    for name in sorted(names):
        yield VideoRecord(str(folder / name), name, labels.get(name.split("/")[0]))


@lru_cache  # A command may read a folder more than once.
def _say_what_is_not_read(
    folder: str, passed_over: tuple[tuple[str, int], ...], closed: tuple[str, ...]
) -> None:
    """Log how many files of which suffixes are no videos, and which folders cannot be listed."""
    for error in closed:
        log.warning("%s: a folder cannot be listed: %s", printable(folder), printable(error))
    if passed_over:
        counts = ", ".join(
            f"{count} {printable(suffix) or 'without a suffix'}" for suffix, count in passed_over
        )
        total = sum(count for _, count in passed_over)
        what = "1 file is" if total == 1 else f"{total} files are"
        log.warning(
            "%s: %s passed over, with other suffixes than videos: %s", printable(folder), what, counts
        )


def _is_video(name: str) -> bool:
    return not name.startswith(".") and Path(name).suffix.lower() in VIDEO_SUFFIXES


def read_text(file: Path, instead: str) -> str:
    """The text of a file; raises InputError, with what to name instead, where it cannot be read."""
    try:
        return file.read_text("utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}; {instead}") from error


def _read_list(file: Path, root: Path) -> Iterator[tuple[str, VideoRecord]]:
    """The videos of a list, each with its line."""
    text = read_text(file, "name a folder of videos or a list file")
    if "\0" in text:
        raise InputError(f"{file} is no list: it is not text, and its suffix is not that of a video")
    for number, line in enumerate(text.split("\n"), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        where = f"{file}, line {number}"
        try:
            name, numbers = _parse_line(line)
            yield where, _record(name, numbers, root)
        except ValueError as error:
            raise InputError(f"{where}: {error}: {line!r}") from None


def _parse_line(line: str) -> tuple[str, list[int]]:
    """The path and the numbers after it."""
    quoted = line[0] in "\"'"
    match = (_QUOTED if quoted else _PLAIN).fullmatch(line)
    if not match:
        raise ValueError(f"a quote is not closed ({_FORMS})")
    path, numbers = match["path"], match["numbers"].replace(",", " ").split()
    if not all(re.fullmatch(r"-?\d+", text) for text in numbers):
        raise ValueError(f"{match['numbers'].strip()!r} is not a whole number ({_FORMS})")
    if not path:
        raise ValueError(f"the path is empty ({_FORMS})")
    if not quoted and re.search(r"[\s,]", path) and Path(path).suffix.lower() not in VIDEO_SUFFIXES:
        raise ValueError(f"{path!r} does not end like a video ({_FORMS})")
    return path, [int(text) for text in numbers]


def _record(name: str, numbers: list[int], root: Path) -> VideoRecord:
    path = str(root / name)
    match numbers:
        case []:
            return VideoRecord(path, name)
        case [label]:
            return VideoRecord(path, name, label)
        case [start, total] if start < 0 or total < -1 or total == 0:
            raise ValueError(f"start {start} and total {total}: start is at least 0, total at least 1, or -1")
        case [start, total]:
            return VideoRecord(path, name, None, start, total)
    raise ValueError(f"{len(numbers)} numbers after the path ({_FORMS})")
