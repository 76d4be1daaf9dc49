"""Lists of videos. A line is one of

    path                     a video without a label
    path label               as in the lists of VideoMAE; a comma may stand between the two
    path class               the name of its class; in quotes where it begins with a number
    path start total         as in those of VideoMAE V2: `total` frames from `start` on, -1 for all
    folder total label       as in those of VideoMAE V2 for folders of frames, when fine-tuning

Paths with spaces may be quoted. A path before the name of a class is quoted or ends like a video. Empty lines
are left out, and so are those that begin with "# ". Relative paths start from `root`, or else from the folder
of the list.
"""

import logging
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

from videomae_jax.data.folders import VIDEO_SUFFIXES, number_frames
from videomae_jax.data.records import VideoRecord
from videomae_jax.errors import InputError

log = logging.getLogger(__name__)

_SEPARATOR = re.compile(r"[\s,]+")
_NUMBER = re.compile(r"-?\d{1,18}")
_ADDRESS = re.compile(r"\w+://")
_JSON = re.compile(r'\s*(?:\{\s*"|\[\s*[\[{"])')
_FORMS = "expected `path`, `path label`, `path class` or `path start total`; quote a path that holds spaces"
# Characters of a line in an error message.
_SHOWN = 80
# Folders of frames that are looked into to tell the two forms with two numbers apart.
_LOOKED_INTO = 20

Numbers = tuple[int, ...]


class _Parts(NamedTuple):
    """What a line says: a path, followed by numbers or the name of a class."""

    path: str
    numbers: Numbers = ()
    class_name: str = ""


class _Line(NamedTuple):
    """A line of a list, taken apart."""

    where: str
    text: str
    path: str
    numbers: Numbers
    class_name: str


def read_list(file: Path, root: Path) -> tuple[list[tuple[str, VideoRecord]], tuple[str, ...] | None]:
    """The videos of a list, each with its line, and the names of their classes, sorted, where it has names.

    Raises InputError for a line that makes no sense.
    """
    text = read_text(file, "name a folder of videos or a list file")
    if "\0" in text:
        raise InputError(f"{file} is not a list: it is not text, and its suffix is not that of a video")
    if is_json(file, text):
        raise InputError(f"{file} is JSON and not a list of videos; {_FORMS}, one on a line")
    if "youtube_id" in re.split('[",]', text.partition("\n")[0]):
        raise InputError(
            f"{file} is a table of Kinetics and not a list of videos; name the folder of the data set to "
            "videomae-jax prepare --layout kinetics400, or write a list of lines `path label`"
        )
    lines = list(_parse(file, text))
    label_last = _label_last(root, lines)
    classes = _classes(lines)
    numbers = {name: number for number, name in enumerate(classes)}
    entries = []
    for line in lines:
        try:
            record = _record(line, root, label_last)
        except ValueError as error:
            raise InputError(f"{line.where}: {error}: {_shown(line.text)}") from None
        label = numbers.get(line.class_name, record.label)
        entries.append((line.where, replace(record, label=label)))
    if not entries:
        raise InputError(f"{file} holds no entry")
    return entries, classes or None


def read_text(file: Path, instead: str) -> str:
    """The text of a file; raises InputError, with what to name instead, where it cannot be read."""
    try:
        return file.read_text("utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}; {instead}") from error


def is_json(file: Path, text: str) -> bool:
    """Whether a file is named like JSON, or begins as objects and nested lists do."""
    return file.suffix.lower() in (".json", ".jsonl") or bool(_JSON.match(text))


def format_record(
    video: VideoRecord, folder: str | os.PathLike[str], class_names: Sequence[str] = ()
) -> str | None:
    """The line of a list for this video, with its path relative to `folder` and, where known, its class.

    None where no line is read back as this one: one with a line break, or with spaces and both quotes.
    """
    path = Path(os.path.relpath(video.path, folder)).as_posix()
    parts = _Parts(path, () if video.label is None else (video.label,))
    if (video.start, video.total) != (0, -1):
        # With a label it is a folder of frames, whose lists begin with their number.
        first = video.start if video.label is None else video.total
        parts = parts._replace(numbers=(first, *(parts.numbers or (video.total,))))
    elif video.label is not None and class_names:
        parts = _Parts(path, (), class_names[video.label])
    for quoted in (False, True):
        written = _quote(path) if quoted or re.search(r"^[#\"']|[\s,]", path) else path
        name = (
            _quote(parts.class_name) if quoted or re.search(r"[\s,]", parts.class_name) else parts.class_name
        )
        line = " ".join([written, *map(str, parts.numbers), *([name] if parts.class_name else [])])
        with suppress(ValueError):
            if _parse_line(line) == parts and not re.search(r"[\r\n]", line):
                return line
    return None


def _quote(text: str) -> str:
    quote = "'" if '"' in text else '"'
    return f"{quote}{text}{quote}"


def _parse(file: Path, text: str) -> Iterator[_Line]:
    comments = 0
    for number, line in enumerate(text.split("\n"), 1):
        line, where = line.strip(), f"{file}, line {number}"
        if line.startswith("# ") or line == "#":
            comments += 1
            continue
        try:
            if line:
                yield _Line(where, line, *_parse_line(line))
        except ValueError as error:
            raise InputError(f"{where}: {error}: {_shown(line)}") from None
    if comments:
        log.info("%s: %d %s", file, comments, "line is a comment" if comments == 1 else "lines are comments")


def _parse_line(line: str) -> _Parts:
    quoted = line[0] in "\"'"
    parts = _split_quoted(line) if quoted else _split_plain(line)
    if not quoted and not _is_video(parts.path) and _SEPARATOR.search(parts.path):
        parts = _split_named(line)
    if not parts.path:
        raise ValueError(f"the path is empty ({_FORMS})")
    if _ADDRESS.match(parts.path):
        raise ValueError("videos are read from files and not from addresses; download them first")
    if not quoted and parts.path[0] == "#" and not _is_video(parts.path):
        raise ValueError("a comment begins with `# ` at the start of a line; quote a path that begins with #")
    if len(parts.numbers) > 2:
        raise ValueError(f"{len(parts.numbers)} numbers after the path ({_FORMS})")
    return parts


def _split_quoted(line: str) -> _Parts:
    path, closed, rest = line[1:].partition(line[0])
    if not closed:
        raise ValueError(f"a quote is not closed ({_FORMS})")
    numbers = rest.replace(",", " ").split()
    if all(map(_NUMBER.fullmatch, numbers)):
        return _Parts(path, tuple(map(int, numbers)))
    gap = _SEPARATOR.match(rest)
    return _Parts(path, (), _class_name(rest[gap.end() :] if gap else rest))


def _split_named(line: str) -> _Parts:
    """A path that ends like a video, and the name of its class."""
    for gap in _SEPARATOR.finditer(line):
        # Of long lines only the end of what may be a path is looked at.
        if gap[0].count(",") < 2 and _is_video(f"a{line[max(0, gap.start() - 8) : gap.start()]}"):
            return _Parts(line[: gap.start()], (), _class_name(line[gap.end() :]))
    raise ValueError(f"{_shown(line)} does not begin with a path that ends like a video ({_FORMS})")


def _class_name(text: str) -> str:
    if text[:1] in "\"'":
        name, closed, rest = text[1:].partition(text[0])
        if not closed or not name.strip() or rest.strip():
            raise ValueError(f"{_shown(text)} is not a class name in quotes ({_FORMS})")
        return name
    if re.search(r"(?:^|\s)#", text):
        raise ValueError("a comment stands in a line of its own; quote the name of a class that holds a #")
    if re.match(r"-?[\d.]+(?![^\s,])", text) or re.search(r"[,\t]", text):
        raise ValueError(
            f"{_shown(text)} is neither a label, which is a whole number, nor the name of a class, which is "
            "quoted where it begins with a number or holds a comma or a tab"
        )
    return text


def _split_plain(line: str) -> _Parts:
    """The numbers at the end, and what comes before; something always does."""
    end, numbers = len(line), list[int]()
    for gap in reversed(list(_SEPARATOR.finditer(line))):
        cell = line[gap.end() : end]
        if not gap.start() or gap[0].count(",") > 1 or not _NUMBER.fullmatch(cell):
            break
        numbers.append(int(cell))
        end = gap.start()
    return _Parts(line[:end], tuple(numbers[::-1]))


def _classes(lines: list[_Line]) -> tuple[str, ...]:
    """The names of the classes, sorted; raises InputError where some lines have names and others numbers."""
    labelled = [line for line in lines if line.class_name or len(line.numbers) == 1]
    for line in labelled:
        if bool(line.class_name) != bool(labelled[0].class_name):
            kinds = ["the name" if each.class_name else "the number" for each in (line, labelled[0])]
            raise InputError(
                f"{line.where}: {kinds[0]} of a class, but {labelled[0].where.rpartition(', ')[2]} has "
                f"{kinds[1]} of one; write either in every line, and quote a name that is a number: "
                f"{_shown(line.text)}"
            )
    return tuple(sorted({line.class_name for line in lines} - {""}))


def _record(line: _Line, root: Path, label_last: bool) -> VideoRecord:
    path, name = str(root / line.path), line.path
    match line.numbers:
        case [label]:
            return VideoRecord(path, name, label)
        case [total, label] if label_last and (not _is_video(path) or os.path.isdir(path)):
            if total < 1:
                raise ValueError(f"total {total} and label {label}: total is at least 1")
            return VideoRecord(path, name, label, 0, total)
        case [start, total] if start < 0 or total < -1 or total == 0:
            raise ValueError(f"start {start} and total {total}: start is at least 0, total at least 1, or -1")
        case [start, total]:
            return VideoRecord(path, name, None, start, total)
    return VideoRecord(path, name)


def _label_last(root: Path, lines: list[_Line]) -> bool:
    """Whether two numbers after a folder of frames are total and label, or else start and total.

    The folders tell: a total that comes first is the number of frames there, a start that comes first is the
    number of a frame, with as many after it as are wanted. No segment has a total of 0, but a class may be 0.
    """
    votes = [
        second == 0 or len(found) == first or not {first, first + max(1, second) - 1} <= found
        for first, second, found in islice(_folders(root, lines), _LOOKED_INTO)
    ]
    return 2 * sum(votes) > len(votes)


def _folders(root: Path, lines: list[_Line]) -> Iterator[tuple[int, int, set[int]]]:
    """The two numbers behind each folder of frames that can be read, and the numbers of its frames."""
    segments = [line for line in lines if len(line.numbers) == 2]
    # As folders of frames are only now and then.
    named_like_videos = islice((line for line in segments if _is_video(line.path)), _LOOKED_INTO)
    for line in chain(named_like_videos, (line for line in segments if not _is_video(line.path))):
        with suppress(OSError):
            first, second = line.numbers
            if found := {number for number, _ in number_frames(root / line.path)}:
                yield first, second, found


def _is_video(name: str) -> bool:
    """Whether a path is named like a video file."""
    return os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES


def _shown(text: str) -> str:
    """A text in quotes, cut where it is long."""
    return repr(text) if len(text) <= _SHOWN else f"{text[:_SHOWN]!r}... ({len(text)} characters)"
