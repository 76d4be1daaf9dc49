"""Labels and classes: which class each video has, how many classes there are, and what they are called.

Folders and sets name the class of a video, lists name or number it. The names come from a file, from a model,
or from the first source that has some; where nothing names them, the numbers in lists are counted.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from videomae_jax.class_names import same_classes
from videomae_jax.data.lists import is_json, read_text
from videomae_jax.data.records import Split, VideoRecord
from videomae_jax.data.sources import Source, read_source
from videomae_jax.data.video_table import NO_LABEL, VideoTable, joined
from videomae_jax.errors import InputError, some
from videomae_jax.files import check_path
from videomae_jax.model_config import VideoMAEConfig, are_numbers

Splits = dict[str, tuple[VideoRecord, ...]]
# Numbers in lists of which fewer than this share have a video are no numbers of classes.
_LEAST_SHARE_SEEN = 0.5
_FILE = "--data.classes FILE in training, --classes FILE elsewhere"


@dataclass(frozen=True)
class Classes:
    """The classes of a model or of labelled videos."""

    names: tuple[str, ...]
    """In the order of their numbers; the numbers themselves where nothing names them."""
    origin: str
    """How they came about, such as `named in FILE`."""
    ordered: bool = True
    """Whether the numbers in lists may count by this order; not where it is only that of the alphabet."""

    @property
    def known(self) -> bool:
        """Whether the classes have names."""
        return not are_numbers(self.names)

    def padded(self, count: int) -> "Classes":
        """The same with names for the rest of so many classes."""
        more = tuple(f"LABEL_{number}" for number in range(len(self.names), count))
        origin = f"{self.origin}, filled up with {more[0]} to {more[-1]}" if more else self.origin
        return replace(self, names=self.names + more, origin=origin)


class Labelled(NamedTuple):
    """Videos, each with the number of its class."""

    videos: VideoTable
    classes: Classes


def read_classes(file: str | os.PathLike[str]) -> Classes:
    """The names of the classes from a file, one on a line, in the order of their numbers.

    Raises InputError for a file that cannot be read or holds nothing, an empty line, a name that comes twice.
    """
    check_path(Path(file), "the file of classes")
    text = read_text(Path(file), "name a file of class names")
    if is_json(Path(file), text):
        raise InputError(f"{file} is JSON: name a text file with the name of one class on each line")
    lines = [line.strip() for line in text.rstrip().split("\n")]
    seen: dict[str, int] = {}
    for number, name in enumerate(lines, 1):
        where = f"{file}, line {number}"
        if not name:
            raise InputError(f"{where}: the line is empty; every line is the name of a class")
        if name in seen:
            raise InputError(f"{where}: {name!r} stands in line {seen[name]} already; remove one")
        seen[name] = number
    return Classes(tuple(lines), f"named in {os.fspath(file)}")


def read_labelled(
    sources: Sequence[str | os.PathLike[str]],
    root: str | os.PathLike[str] | None = None,
    classes: Classes | None = None,
    *,
    split: Split = "train",
    num_labels: int | None = None,
) -> Labelled:
    """Read folders, lists and sets, in the order given: the videos with their labels, and the classes.

    Args:
      classes: those that are known already; by default they are found in the sources.
      split: the one that is read of a set which is named without.
      num_labels: how many classes the user says there are, 0 for as many as there are in the sources, None
        where the user has no way to say so.

    Raises InputError for a video without a label, for a class that is not among those known, and for numbers
    that cannot be those of classes.
    """
    found = [read_source(source, root, split).with_labels() for source in sources]
    if classes is None:
        classes = find_classes(found, num_labels)
        if num_labels and len(classes.names) > num_labels:
            raise InputError(
                f"model.num_labels={num_labels}, but there are {len(classes.names)} classes, "
                f"{classes.origin}; change --model.num-labels, or leave it out"
            )
    return Labelled(_numbered(found, classes), classes)


def read_splits(
    named: Mapping[str, Sequence[str]], root: str | None = None, classes: Path | None = None
) -> tuple[Splits, tuple[str, ...]]:
    """The videos of each named split, and the class names, none of them when no video has a label.

    Sources are folders, lists, sets, or folders of folders of images, also at gs:// and s3://. The names of
    the first split's folders count in every split. Raises InputError as `read_labelled` does, but videos may
    be without a label.
    """
    splits = {
        split: [
            read_source(source, root, "train" if split == "train" else "val", in_stores=True).with_labels()
            for source in sources
        ]
        for split, sources in named.items()
        if sources
    }
    found = [source for sources in splits.values() for source in sources]
    known = Classes((), "none")
    if any((source.videos.labels != NO_LABEL).any() for source in found):
        first = next(iter(splits.values()))
        has_names = any(source.classes for source in first)
        known = read_classes(classes) if classes else find_classes(first if has_names else found, None)
    return {
        split: tuple(_numbered(each, known, need_label=False)) for split, each in splits.items()
    }, known.names


def read_videos_of_model(
    sources: Sequence[str],
    config: VideoMAEConfig,
    root: str | None = None,
    classes: str | None = None,
) -> Labelled:
    """Read lists, folders and sets: each video once, with the label of the model's class.

    Names match the model's by name where it knows names. `classes` is a file with the names of the lists'
    numbers: they match by name too where the model knows them, and else give the nameless their names.
    Raises InputError for a label that the model has no class for, and for one video with two labels.
    """
    of_model = Classes(config.id2label, "those of the checkpoint")
    given = read_classes(classes) if classes else None
    found = [read_source(source, root, "val").with_labels() for source in sources]
    if given is None:
        named = next((source.classes for source in found if source.classes), None)
        if named and not of_model.known:
            if len(named) != config.num_labels:
                raise InputError(
                    f"{', '.join(source.name for source in found)}: {len(named)} classes, but the model has "
                    f"{config.num_labels} and knows no names: give those of its classes, in order, with "
                    "--classes FILE"
                )
            of_model = replace(of_model, names=named)
        videos = _numbered(found, of_model)
    elif of_model.known:
        of_given = dict(zip(given.names, same_classes(given.names, of_model.names), strict=True))
        if missing := sorted(name for name, number in of_given.items() if number is None):
            raise InputError(
                f"{classes} names classes that the model does not know: {some(missing)}. It knows "
                f"{some(of_model.names)}. Spell them alike, or leave --classes out if the numbers are "
                "the model's"
            )
        numbers = np.array(list(of_given.values()))
        videos = _numbered(found, given)
        videos = videos.with_labels(numbers[videos.labels])
    else:
        if len(given.names) > config.num_labels:
            raise InputError(
                f"{classes} names {len(given.names)} classes, but the model has {config.num_labels}"
            )
        of_model = given.padded(config.num_labels)
        videos = _numbered(found, of_model)
    return Labelled(VideoTable(_distinct(videos)), of_model)


def find_classes(found: Sequence[Source], num_labels: int | None) -> Classes:
    """The classes that a set, folders or lists name, or else the numbers in lists; see `read_labelled`."""
    named = [source for source in found if source.classes is not None]
    if not named:
        return _count(found, num_labels)
    if not (named[0].is_folder or named[0].is_list):
        classes = Classes(named[0].classes or (), f"named in {named[0].name}")
    else:
        folders = [source.name for source in named if source.is_folder]
        lists = [source.name for source in named if source.is_list]
        names = {name for each in named if each.is_folder or each.is_list for name in each.classes or ()}
        origins = [f"the folders of {', '.join(folders)}"] * bool(folders) + lists
        classes = Classes(tuple(sorted(names)), f"named by {' and '.join(origins)}", ordered=False)
    return classes.padded(num_labels) if num_labels else classes


def _count(found: Sequence[Source], num_labels: int | None) -> Classes:
    """A class for each number from 0 to the largest; raises InputError where that cannot be meant."""
    lists = ", ".join(source.name for source in found)
    if num_labels:
        return Classes(tuple(map(str, range(num_labels))), f"as --model.num-labels {num_labels} says")
    seen = {label for source in found for label in np.unique(source.videos.labels).tolist()}
    labels = sorted({0 if label == NO_LABEL else label for label in seen} - {-1}) or [0]
    count = labels[-1] + 1
    instead = f", or their number with --model.num-labels {count}" if num_labels is not None else ""
    ask = f"If they are right, give the names of all classes ({_FILE}){instead}"
    if labels[0] == 1:
        raise InputError(f"{lists}: labels count from 0, but the lowest is 1: subtract 1 from each. {ask}")
    if labels[0] > 1 or len(labels) < _LEAST_SHARE_SEEN * count:
        raise InputError(
            f"{lists}: labels from {labels[0]} to {labels[-1]} make {count:,} classes, numbered from 0, of "
            f"which {count - len(labels):,} have no video: number the classes from 0 without gaps. {ask}"
        )
    return Classes(tuple(map(str, range(count))), f"counted in {lists}")


def _numbered(found: Sequence[Source], classes: Classes, need_label: bool = True) -> VideoTable:
    """The videos with their labels as the classes count."""
    numbers = {name: number for number, name in enumerate(classes.names)}
    by_numeral, tables = _by_numeral(classes), []
    for source in found:
        of_source = same_classes(source.classes or (), classes.names)
        labels, first, at = np.unique(source.videos.labels, return_index=True, return_inverse=True)
        for position, n in sorted(zip(first.tolist(), range(len(labels)), strict=True)):
            if need_label or labels[n] != NO_LABEL:  # What is wrong is told of the first video that has it.
                where, record = source.where(position), source.videos[position]
                labels[n] = (
                    _number(where, record, source, classes, numbers if by_numeral else {})
                    if source.classes is None
                    else _number_by_name(where, record, source, classes, of_source)
                )
        tables.append(source.videos.with_labels(labels[at]))
    return joined(tables)


def _number(
    where: str, record: VideoRecord, source: Source, classes: Classes, numbers: Mapping[str, int]
) -> int:
    """The number of a video's class, whose label is a number, or by `numbers` the name of one."""
    if record.label is None:
        frames = ", or `folder total label` with a folder that is there" * (record.total > 0)
        raise InputError(f"{where}: {record.name!r} has no label; expected a line `path label`{frames}")
    if str(record.label) in numbers:
        return numbers[str(record.label)]
    if not classes.ordered:
        raise InputError(
            f"{where}: label {record.label} of {record.name!r} is a number, but the classes are "
            f"{classes.origin}: give their names in the order of the numbers ({_FILE})"
        )
    if not 0 <= record.label < len(classes.names):
        raise InputError(_out_of_range(where, record, source, classes))
    return record.label


def _by_numeral(classes: Classes) -> bool:
    """Whether classes are named by numbers in another order than theirs: folders 0, 1, 10, 2."""
    return not are_numbers(classes.names) and all(name.isdecimal() for name in classes.names)


def _out_of_range(where: str, record: VideoRecord, source: Source, classes: Classes) -> str:
    count = len(classes.names)
    labels = {each.label for each in source.videos}
    from_one = min(label or 0 for label in labels) == 1 and record.label == count
    why = f", {classes.origin}"
    if from_one:
        why = f": {source.name} seems to count from 1, so subtract 1 from each label"
    return (
        f"{where}: label {record.label} of {record.name!r} is not one of the {count} classes, which are "
        f"numbered 0 to {count - 1}{why}"
    )


def _number_by_name(
    where: str, record: VideoRecord, source: Source, classes: Classes, of_source: Sequence[int | None]
) -> int:
    """The number, in `classes`, of a class of the source; `of_source` has those of all."""
    assert source.classes is not None
    if record.label is None:
        if source.is_list:
            raise InputError(f"{where}: {record.name!r} has no label; expected a line `path class`")
        way_out = f"; move it into a folder of {source.name} named like its class" if source.is_folder else ""
        raise InputError(f"{record.path} has no label{way_out}")
    name, number = source.classes[record.label], of_source[record.label]
    if number is None:
        where = str(Path(source.name) / name) if source.is_folder else where
        way_out = "Rename the folder" if source.is_folder else "Spell them alike"
        raise InputError(
            f"{where}: {name!r} is not the name of a class; known are {some(map(repr, classes.names))}. "
            f"{way_out}, or give the names of all classes in a file"
        )
    return number


def _distinct(videos: Iterable[VideoRecord]) -> tuple[VideoRecord, ...]:
    """Each video once, where lists name it more often."""
    first: dict[tuple[str, int, int], VideoRecord] = {}
    for video in videos:
        kept = first.setdefault((os.path.abspath(video.path), video.start, video.total), video)
        if kept.label != video.label:
            raise InputError(
                f"{video.path} is in the lists with the labels {kept.label} and {video.label}: remove one"
            )
    return tuple(first.values())
