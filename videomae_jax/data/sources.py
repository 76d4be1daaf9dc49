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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from videomae_jax.errors import InputError

VIDEO_SUFFIXES = frozenset(
    {".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv"}
    | {".ts", ".webm", ".wmv"}
)
# Names of classes in an error message.
_SHOWN = 20
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
    return tuple(record for source in sources for _, record in _read_source(Path(source), root))


def read_labelled(
    sources: Sequence[str | os.PathLike[str]],
    root: str | os.PathLike[str] | None,
    classes: Sequence[str] | None,
) -> tuple[tuple[VideoRecord, ...], tuple[str, ...]]:
    """Read folders and lists, in the order given: the videos with their labels, and the names of the classes.

    A list gives numbers. In a folder, the folders directly in it are named like the classes, and a label is
    the position of its name in `classes`; without these, the first folder's names, sorted, are the classes,
    and without a folder "0", "1" and so on up to the largest number. Raises InputError for a video without a
    label and for a class that is not among those known.
    """
    found = [(Path(source), _read_source(Path(source), root)) for source in sources]
    names = tuple(classes) if classes is not None else _class_names(found)
    numbers = {name: number for number, name in enumerate(names)}
    videos = []
    for source, entries in found:
        for where, record in entries:
            if source.is_dir():
                record = replace(record, label=_label_of_folder(record, source, numbers))
            elif record.label is None:
                raise InputError(f"{where}: {record.name!r} has no label; expected a line `path label`")
            elif not 0 <= record.label < len(names):
                raise InputError(
                    f"{where}: label {record.label} of {record.name!r} is none of the {len(names)} classes, "
                    f"which are numbered 0 to {len(names) - 1}"
                )
            videos.append(record)
    return tuple(videos), names


def read_classes(file: str | os.PathLike[str]) -> tuple[str, ...]:
    """The names of the classes from a file, one on a line, in the order of their numbers.

    Raises InputError for a file that cannot be read or holds nothing, an empty line, a name that comes twice.
    """
    text = _read_text(Path(file), "name a file of class names")
    lines = [line.strip() for line in text.rstrip().split("\n")]
    seen: dict[str, int] = {}
    for number, name in enumerate(lines, 1):
        where = f"{file}, line {number}"
        if not name:
            raise InputError(f"{where}: the line is empty; every line is the name of a class")
        if name in seen:
            raise InputError(f"{where}: {name!r} stands in line {seen[name]} already; remove one")
        seen[name] = number
    return tuple(lines)


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


def _class_names(found: Sequence[tuple[Path, Sequence[tuple[str, VideoRecord]]]]) -> tuple[str, ...]:
    """The classes of the first folder, or else a number for each label up to the largest."""
    for source, entries in found:
        if source.is_dir():
            return tuple(sorted({_class_folder(record) for _, record in entries} - {""}))
    labels = [record.label or 0 for _, entries in found for _, record in entries]
    return tuple(map(str, range(max([0, *labels]) + 1)))


def _class_folder(record: VideoRecord) -> str:
    """The name of the class folder that a video lies in; empty where it lies in none."""
    return record.name.split("/")[0] if "/" in record.name else ""


def _label_of_folder(record: VideoRecord, source: Path, numbers: Mapping[str, int]) -> int:
    name = _class_folder(record)
    if not name:
        raise InputError(
            f"{record.path} has no label; move it into a folder of {source} named like its class"
        )
    if name not in numbers:
        known = ", ".join([repr(each) for each in list(numbers)[:_SHOWN]])
        more = f" and {len(numbers) - _SHOWN} more" if len(numbers) > _SHOWN else ""
        raise InputError(
            f"{source / name}: {name!r} is not the name of a class; known are {known}{more}. "
            "Rename the folder, or give the names of all classes in a file"
        )
    return numbers[name]


def _read_source(source: Path, root: str | os.PathLike[str] | None) -> list[tuple[str, VideoRecord]]:
    """The videos of a folder or a list, or a video itself, each with where it was found."""
    if source.is_dir():
        found = [(str(source), record) for record in _read_folder(source)]
        what = f"no video file (any of {' '.join(sorted(VIDEO_SUFFIXES))})"
    elif source.suffix.lower() in VIDEO_SUFFIXES:
        return [(str(source), VideoRecord(str(source), source.name))]
    else:
        found, what = list(_read_list(source, Path(root) if root is not None else source.parent)), "no entry"
    if not found:
        raise InputError(f"{source} holds {what}")
    return found


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


def _read_text(file: Path, instead: str) -> str:
    try:
        return file.read_text("utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}; {instead}") from error


def _read_list(file: Path, root: Path) -> Iterator[tuple[str, VideoRecord]]:
    """The videos of a list, each with its line."""
    text = _read_text(file, "name a folder of videos or a list file")
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
