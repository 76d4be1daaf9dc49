"""Lists and folders of videos: which files a run reads, with their labels and segments.

A line of a list is one of

    path                     a video without a label
    path label               as in the lists of VideoMAE; a comma may stand between the two
    path start total         as in those of VideoMAE V2: `total` frames from `start` on, -1 for all

Paths with spaces may be quoted. Empty lines and lines that start with # are left out. Relative paths start
from `root`, or else from the folder of the list.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from videomae_jax.errors import InputError

VIDEO_SUFFIXES = frozenset(
    {".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv"}
    | {".ts", ".webm", ".wmv"}
)
_QUOTED = re.compile(r"""(?P<quote>["'])(?P<path>.*?)(?P=quote)(?P<numbers>.*)""")
_PLAIN = re.compile(r"(?P<path>.+?)(?P<numbers>(?:(?:\s+|\s*,\s*)-?\d+)*)")
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


def read_videos(
    sources: Sequence[str | os.PathLike[str]], root: str | os.PathLike[str] | None = None
) -> tuple[VideoRecord, ...]:
    """Read folders, lists and single video files, in the order given.

    Raises InputError when a source does not exist, holds no video, or has a line that makes no sense.
    """
    records: list[VideoRecord] = []
    for source in map(Path, sources):
        if source.is_dir():
            found = list(_read_folder(source))
        elif source.suffix.lower() in VIDEO_SUFFIXES:
            found = [VideoRecord(str(source), source.name)]
        else:
            found = list(_read_list(source, Path(root) if root is not None else source.parent))
        if not found:
            what = (
                f"no video file (any of {' '.join(sorted(VIDEO_SUFFIXES))})"
                if source.is_dir()
                else "no entry"
            )
            raise InputError(f"{source} holds {what}")
        records += found
    return tuple(records)


def list_digest(videos: Iterable[VideoRecord]) -> str:
    """A fingerprint of what is read, in which order, wherever it lies: SHA-256 of names and segments."""
    text = "\n".join(f"{video.name}\t{video.start}\t{video.total}" for video in videos)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def format_record(video: VideoRecord, folder: str | os.PathLike[str]) -> str:
    """The line of a list for this video, with its path relative to `folder`."""
    path = Path(os.path.relpath(video.path, folder)).as_posix()
    quote = "'" if '"' in path else '"'
    plain = _PLAIN.fullmatch(path)
    if not plain or plain["numbers"] or re.search(r"^[#\"']|\s", path):
        path = f"{quote}{path}{quote}"
    if (video.start, video.total) != (0, -1):
        return f"{path} {video.start} {video.total}"
    return path if video.label is None else f"{path} {video.label}"


def _read_folder(folder: Path) -> Iterator[VideoRecord]:
    """All videos below a folder, sorted; the folders directly in it are the classes."""
    names, seen = [], set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        folders[:] = [name for name in folders if not name.startswith(".") and real not in seen]
        if real not in seen:
            names += [Path(parent, name).relative_to(folder).as_posix() for name in files if _is_video(name)]
        seen.add(real)
    classes = {name.split("/")[0] for name in names if "/" in name}
    labels = {name: label for label, name in enumerate(sorted(classes))}
    for name in sorted(names):
        yield VideoRecord(str(folder / name), name, labels.get(name.split("/")[0]))


def _is_video(name: str) -> bool:
    return not name.startswith(".") and Path(name).suffix.lower() in VIDEO_SUFFIXES


def _read_list(file: Path, root: Path) -> Iterator[VideoRecord]:
    try:
        text = file.read_text("utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}; name a folder of videos or a list file") from error
    if "\0" in text:
        raise InputError(f"{file} is no list: it is not text, and its suffix is not that of a video")
    for number, line in enumerate(text.split("\n"), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        try:
            name, numbers = _parse_line(line)
            yield _record(name, numbers, root)
        except ValueError as error:
            raise InputError(f"{file}, line {number}: {error}: {line!r}") from None


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
