"""Lists of videos. A line is one of

    path                     a video without a label
    path label               as in the lists of VideoMAE; a comma may stand between the two
    path class               the name of its class; in quotes where it begins with a number
    path start total         as in those of VideoMAE V2: `total` frames from `start` on, -1 for all
    folder total label       as in those of VideoMAE V2 for folders of frames, when fine-tuning

A path may be that of a video of a set, FOLDER#SPLIT/POSITION. Paths with spaces may be quoted. A path before
the name of a class is quoted or ends like a video. Empty lines are left out, and so are those that begin with
"# ". Relative paths start from `root`, or else from the folder of the list.
"""

import io
import logging
import os
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple, TypeAlias

from etils import epath

from videomae_jax.data.folders import VIDEO_SUFFIXES, number_frames
from videomae_jax.data.records import VideoRecord
from videomae_jax.data.stores import in_store
from videomae_jax.data.video_table import VideoTable
from videomae_jax.errors import InputError

log = logging.getLogger(__name__)

_SEPARATOR = re.compile(r"[\s,]+")
_NUMBER = re.compile(r"-?\d{1,18}")
_ADDRESS = re.compile(r"\w+://")
_STORED = re.compile(r"(gs|s3)://.+#[^/]+/\d+")
_COMMENT = re.compile("# |#$")
# A path that nobody would quote, alone or with its label.
_PLAIN = re.compile(r"""([^\s,"'#:][^\s,:]*)(?:[ \t,](-?\d{1,18}))?""")
# Paths that begin at the root, or that are written in another way when they are joined.
_ODD_PATH = re.compile(r"^/|//|^\./|/\./|/\.?$|^\.?$")
_JSON = re.compile(r'\s*(?:\{\s*"|\[\s*[\[{"])')
_FORMS = "expected `path`, `path label`, `path class` or `path start total`; quote a path that holds spaces"
# Characters of a line in an error message.
_SHOWN = 80
# Folders of frames that are looked into to tell the two forms with two numbers apart.
_LOOKED_INTO = 20

Numbers = tuple[int, ...]
AnyPath: TypeAlias = Path | epath.Path
"""Of this machine, or of a store."""


class _Parts(NamedTuple):
    """What a line says: a path, followed by numbers or the name of a class."""

    path: str
    numbers: Numbers = ()
    class_name: str = ""


class _Line(NamedTuple):
    """A line of a list, taken apart."""

    file: AnyPath
    number: int
    text: str
    path: str
    numbers: Numbers
    class_name: str

    @property
    def where(self) -> str:
        return f"{self.file}, line {self.number}"


def read_list(
    file: AnyPath, root: AnyPath, *, in_stores: bool = False
) -> tuple[VideoTable, Sequence[int], tuple[str, ...] | None]:
    """The videos of a list, the line of each, and the names of their classes, sorted, where it has names.

    `in_stores`: videos may be at gs:// or s3://, and so may the list and the root. Raises InputError for a
    line that makes no sense.
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
    classes, has_segments = _classes(_parse(file, text))
    label_last = has_segments and _label_last(root, partial(_parse, file, text))
    numbers = {name: number for number, name in enumerate(classes)}
    videos, places = VideoTable(), array("i")
    folder = os.path.join(root, "") if root != Path() else ""
    for line in _parse(file, text):  # Again: lines that were kept would take much more room than videos.
        try:
            label, start, total = _segment(line, root, label_last)
        except ValueError as error:
            raise InputError(f"{line.where}: {error}: {_shown(line.text)}") from None
        # Joining paths takes longer than all the rest.
        path = _joined(root, line, in_stores) if _ODD_PATH.search(line.path) else f"{folder}{line.path}"
        videos.add(path, line.path, numbers.get(line.class_name, label), start, total)
        places.append(line.number)
    if not videos:
        raise InputError(f"{file} holds no entry")
    _say_comments(file, text)
    return videos, places, classes or None


def _joined(root: AnyPath, line: _Line, in_stores: bool) -> str:
    """A path of a list from its root; what is in a store is there wherever the root is."""
    if not _ADDRESS.match(line.path):
        return str(root / line.path)
    if _STORED.fullmatch(line.path) or (in_stores and in_store(line.path)):
        return line.path
    raise InputError(
        f"{line.where}: videos are read from files and not from addresses, but by videomae-jax prepare, from "
        f"gs:// and s3://; download them first: {_shown(line.text)}"
    )


def read_text(file: AnyPath, instead: str) -> str:
    """The text of a file; raises InputError, with what to name instead, where it cannot be read."""
    try:
        content = io.BytesIO(file.read_bytes())
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}; {instead}") from error
    return io.TextIOWrapper(content, "utf-8-sig", "surrogateescape").read()


def is_json(file: AnyPath, text: str) -> bool:
    """Whether a file is named like JSON, or begins as objects and nested lists do."""
    return file.suffix.lower() in (".json", ".jsonl") or bool(_JSON.match(text))


def format_record(
    video: VideoRecord, folder: str | os.PathLike[str], class_names: Sequence[str] = ()
) -> str | None:
    """The line of a list for this video, with its path relative to `folder` and, where known, its class.

    None where no line is read back as this one: one with a line break, or with spaces and both quotes.
    """
    stored = _STORED.fullmatch(video.path)
    path = video.path if stored else Path(os.path.relpath(video.path, folder)).as_posix()
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


def _parse(file: AnyPath, text: str) -> Iterator[_Line]:
    for number, line in enumerate(_split_lines(text), 1):
        line = line.strip()
        if not line or _COMMENT.match(line):
            continue
        try:
            yield _Line(file, number, line, *_parse_line(line))
        except ValueError as error:
            raise InputError(f"{file}, line {number}: {error}: {_shown(line)}") from None


def _split_lines(text: str) -> Iterator[str]:
    """The lines one by one, which takes no room."""
    return (line[0] for line in re.finditer(r"^.*$", text, re.MULTILINE))


def _say_comments(file: AnyPath, text: str) -> None:
    if comments := sum(bool(_COMMENT.match(line.strip())) for line in _split_lines(text)):
        log.info("%s: %d %s", file, comments, "line is a comment" if comments == 1 else "lines are comments")


def _parse_line(line: str) -> _Parts:
    if plain := _PLAIN.fullmatch(line):  # As the rest of this would find, but quicker.
        return _Parts(plain[1], (int(plain[2]),) if plain[2] else ())
    quoted = line[0] in "\"'"
    parts = _split_quoted(line) if quoted else _split_plain(line)
    if not quoted and not _is_video(parts.path) and _SEPARATOR.search(parts.path):
        parts = _split_named(line)
    if not parts.path:
        raise ValueError(f"the path is empty ({_FORMS})")
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
    if not text:
        raise ValueError(f"nothing follows the comma after the path ({_FORMS})")
    if text[0] in "\"'":
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


def _classes(lines: Iterable[_Line]) -> tuple[tuple[str, ...], bool]:
    """The names of the classes, sorted, and whether a line has two numbers.

    Raises InputError where some lines have names and others numbers.
    """
    first: _Line | None = None
    names, has_segments = set[str](), False
    for line in lines:
        has_segments = has_segments or len(line.numbers) == 2
        if not (line.class_name or len(line.numbers) == 1):
            continue
        first = first or line
        names.add(line.class_name)
        if bool(line.class_name) != bool(first.class_name):
            kinds = ["the name" if each.class_name else "the number" for each in (line, first)]
            raise InputError(
                f"{line.where}: {kinds[0]} of a class, but {first.where.rpartition(', ')[2]} has "
                f"{kinds[1]} of one; write either in every line, and quote a name that is a number: "
                f"{_shown(line.text)}"
            )
    return tuple(sorted(names - {""})), has_segments


def _segment(line: _Line, root: AnyPath, label_last: bool) -> tuple[int | None, int, int]:
    """Label, start and total of a line."""
    match line.numbers:
        case []:
            return None, 0, -1
        case [label]:
            return label, 0, -1
        case [total, label] if label_last and (not _is_video(line.path) or os.path.isdir(root / line.path)):
            if total < 1:
                raise ValueError(f"total {total} and label {label}: total is at least 1")
            return label, 0, total
        case [start, total] if start < 0 or total < -1 or total == 0:
            raise ValueError(f"start {start} and total {total}: start is at least 0, total at least 1, or -1")
    start, total = line.numbers
    return None, start, total


def _label_last(root: AnyPath, parse: Callable[[], Iterator[_Line]]) -> bool:
    """Whether two numbers after a folder of frames are total and label, or else start and total.

    The folders tell: a total that comes first is the number of frames there, a start that comes first is the
    number of a frame, with as many after it as are wanted. No segment has a total of 0, but a class may be 0.
    """
    votes = [
        second == 0 or len(found) == first or not {first, first + max(1, second) - 1} <= found
        for first, second, found in islice(_folders(root, parse), _LOOKED_INTO)
    ]
    return 2 * sum(votes) > len(votes)


def _folders(root: AnyPath, parse: Callable[[], Iterator[_Line]]) -> Iterator[tuple[int, int, set[int]]]:
    """The two numbers behind each folder of frames that can be read, and the numbers of its frames."""

    def segments(like_videos: bool) -> Iterator[_Line]:
        return (line for line in parse() if len(line.numbers) == 2 and _is_video(line.path) == like_videos)

    # Folders of frames are named like videos only now and then.
    for line in chain(islice(segments(True), _LOOKED_INTO), segments(False)):
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
