"""Lists, folders and prepared sets: which videos a run reads, with their labels and segments.

A source is a folder of videos, a list, a video, or a set of encoded videos as `videomae-jax prepare` and
tensorflow-datasets write them: FOLDER, FOLDER#SPLIT, or one video of it, FOLDER#SPLIT/POSITION. A set without
a split means the one that suits its use: its split `train` to train on, its validation split to validate and
to test, else all of them. Sources can have weights, `SOURCE:0.7`: so much of every epoch comes from them. For
lists see lists.py.
"""

import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain
from pathlib import Path

import numpy as np
from etils import epath
from jaxtyping import Int64

from videomae_jax.data.folders import (
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    find_frame_folders,
    find_videos,
    sort_out,
)
from videomae_jax.data.lists import AnyPath, read_list
from videomae_jax.data.records import Split, VideoRecord
from videomae_jax.data.stores import in_store, sizes_below, store_answers
from videomae_jax.data.video_table import NO_LABEL, VideoTable, joined
from videomae_jax.errors import InputError, printable
from videomae_jax.files import check_path
from videomae_jax.model_config import are_numbers

log = logging.getLogger(__name__)

# Only sets are read from elsewhere than the disk.
_REMOTE = re.compile(r"\w+://")
_ONE_OF_A_SPLIT = re.compile(r"(?P<split>[^/]+)/(?P<position>\d+)")
_WEIGHTED = re.compile(r"(?P<source>.+):(?P<weight>\d*\.?\d+)")


@dataclass(frozen=True)
class Source:
    """What was found in one source."""

    name: str
    videos: VideoTable
    classes: tuple[str, ...] | None = None
    """The names that its labels stand for; None where labels are only numbers."""
    is_folder: bool = False
    lines: Sequence[int] | None = None
    """Of a list: the line of each video."""
    read_labels: Callable[[VideoTable], Int64[np.ndarray, " n"]] | None = None
    """Finds the labels of videos that came without."""

    @property
    def is_list(self) -> bool:
        return self.lines is not None

    def where(self, position: int) -> str:
        """The place that names a video."""
        return f"{self.name}, line {self.lines[position]}" if self.lines is not None else self.name

    def with_labels(self) -> "Source":
        """The same with the labels that have to be looked for in the videos' records."""
        if self.read_labels is None or not (self.videos.labels == NO_LABEL).any():
            return self
        return replace(self, videos=self.videos.with_labels(self.read_labels(self.videos)))


def read_videos(
    sources: Sequence[str | os.PathLike[str]],
    root: str | os.PathLike[str] | None = None,
    split: Split | None = "train",
) -> VideoTable:
    """Read folders, lists, sets and single video files, in the order given.

    `split` is the one that is read of a set which is named without one; None for all of them. Raises
    InputError when a source does not exist, holds no video, or has a line that makes no sense.
    """
    return joined([read_source(source, root, split).videos for source in sources])


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


def read_source(
    name: str | os.PathLike[str],
    root: str | os.PathLike[str] | None = None,
    split: Split | None = "train",
    *,
    in_stores: bool = False,
) -> Source:
    """The videos of a folder, a list or a set, or a video itself; see `read_videos`.

    `in_stores`: also those of folders and lists at gs:// and s3://, which `prepare` alone can read.
    """
    name = os.fspath(name)
    if root is not None and not (in_stores and in_store(root)):
        check_path(Path(root), "the root")
    if in_stores and (in_store(name) or in_store(root or "")) and (found := _read_in_store(name, root)):
        return found
    folder, named_split = set_address(name)
    if folder:
        return _read_set(name, folder, named_split, split)
    source = Path(name)
    if os.path.isdir(name):  # Unlike Path.is_dir, it takes a name that is too long for no folder.
        return _read_folder(name, source)
    if source.suffix.lower() in VIDEO_SUFFIXES:
        return Source(name, VideoTable([VideoRecord(name, source.name)]))
    start = Path(root) if root is not None else source.parent
    videos, lines, names = read_list(source, start, in_stores=in_stores)
    return Source(name, videos, names, lines=lines)


def _read_in_store(name: str, root: str | os.PathLike[str] | None) -> Source | None:
    """A folder, a list or a video at a store, or a list whose videos are there; None for all else."""
    source = epath.Path(name)
    if source.suffix.lower() in VIDEO_SUFFIXES:
        return Source(name, VideoTable([VideoRecord(name, source.name)])) if in_store(name) else None
    with store_answers(name):
        if "#" in name or os.path.isdir(name) or (source / "dataset_info.json").exists():
            return None
        if source.is_dir():
            shown = (path for path in sizes_below(name) if not re.search(r"(^|/)\.", path))
            return _as_source(name, source, *sort_out(shown))
        if not source.exists():
            raise InputError(f"{name}: there is no such file or folder; name a folder of videos or a list")
        start = epath.Path(root) if root is not None else source.parent
        videos, lines, names = read_list(source, start, in_stores=True)
    return Source(name, videos, names, lines=lines)


def set_address(name: str) -> tuple[str, str]:
    """The folder of a set, empty where this is none, and the split that is named, empty where none is.

    Raises InputError for an address at which no set can be.
    """
    if _REMOTE.match(name) and not in_store(name):
        raise InputError(
            f"{name}: only prepared sets at gs:// or s3:// are read from elsewhere; download the videos first"
        )
    folder, _, split = name.rpartition("#")
    for where, which in ((folder, split), (name, "")):
        # The latter is in a set that is not finished.
        signs = (os.path.join(where, sign) for sign in ("dataset_info.json", ".prepare"))
        if where and (_REMOTE.match(where) or any(map(os.path.exists, signs))):
            return where, which
    return "", ""


def _read_set(name: str, folder: str, named_split: str, split: Split | None) -> Source:
    # Here, because it takes the decoder along, and few runs read one.
    from videomae_jax.data.set_labels import read_labels
    from videomae_jax.data.sets import choose_splits, has_table, read_set

    one = _ONE_OF_A_SPLIT.fullmatch(named_split)
    named_split = one["split"] if one else named_split
    found = [
        read_set(folder, each) for each in ([named_split] if named_split else choose_splits(folder, split))
    ]
    records, classes = list(chain.from_iterable(records for records, _ in found)), found[-1][1]
    if one and int(one["position"]) >= len(records):
        raise InputError(f"{name}: the split {named_split} has {len(records)} videos, counted from 0")
    videos = VideoTable([records[int(one["position"])]] if one else records)
    # Sets of lists without names store the numbers as names.
    named = None if are_numbers(classes) else classes
    return Source(name, videos, named, read_labels=None if has_table(folder) else read_labels)


def _read_folder(name: str, folder: Path) -> Source:
    """Videos below a folder, or else folders of frames."""
    names, others = find_videos(folder)
    if not names:
        names = find_frame_folders(folder)
        others = Counter({suffix: count for suffix, count in others.items() if suffix not in IMAGE_SUFFIXES})
    return _as_source(name, folder, names, others)


def _as_source(name: str, folder: AnyPath, names: Sequence[str], others: Counter[str]) -> Source:
    """A folder in which these videos were found; the folders directly in it are the classes."""
    _say_what_is_not_read(str(folder), tuple(sorted(others.items())))
    if not names:
        suffixes = " ".join(sorted(VIDEO_SUFFIXES))
        raise InputError(f"{folder} holds no video file (any of {suffixes}) and no folder of frames")
    classes = sorted({name.split("/")[0] for name in names if "/" in name})
    labels = {name: label for label, name in enumerate(classes)}
    videos = VideoTable()
    for each in names:
        label = labels[each.split("/")[0]] if "/" in each else None
        videos.add(str(folder / each), each or folder.name, label)
    return Source(name, videos, tuple(classes), is_folder=True)


@lru_cache  # A command may read a folder more than once.
def _say_what_is_not_read(folder: str, passed_over: tuple[tuple[str, int], ...]) -> None:
    """Log how many files of which suffixes are no videos."""
    if passed_over:
        counts = ", ".join(
            f"{count} {printable(suffix) or 'without a suffix'}" for suffix, count in passed_over
        )
        total = sum(count for _, count in passed_over)
        what = "1 file is" if total == 1 else f"{total} files are"
        log.warning(
            "%s: %s passed over, with other suffixes than videos: %s", printable(folder), what, counts
        )
