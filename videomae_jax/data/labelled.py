"""Splits of videos with labels: names of folders, numbers of lists, and one order of classes for all."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from videomae_jax.data.images import find_image_folders
from videomae_jax.data.sources import VideoRecord, read_classes, read_videos
from videomae_jax.errors import InputError

Splits = dict[str, tuple[VideoRecord, ...]]


def read_splits(
    named: Mapping[str, Sequence[str]], root: str | None = None, classes: Path | None = None
) -> tuple[Splits, tuple[str, ...]]:
    """The videos of each named split, and the class names, none of them when no video has a label.

    Sources are folders, lists, or folders of folders of images. Labels of folders go by the names of the
    folders in the first split, in every split; those of lists are numbers. Raises InputError.
    """
    given = read_classes(classes) if classes else None
    read = {split: _read(sources, root) for split, sources in named.items() if sources}
    names = _class_names(read, given)
    numbers = {name: number for number, name in enumerate(names)}
    splits = {
        split: tuple(_number(video, folder, numbers) for video, folder in videos)
        for split, videos in read.items()
    }
    return splits, names


def _read(sources: Sequence[str], root: str | None) -> list[tuple[VideoRecord, str | None]]:
    """Videos, each with the name of its class where it is given by a folder."""
    found: list[tuple[VideoRecord, str | None]] = []
    for source in sources:
        try:
            videos = read_videos([source], root)
        except InputError:
            videos = find_image_folders(Path(source)) if os.path.isdir(source) else ()
            if not videos:
                raise
        by_folder = os.path.isdir(source)
        found += [(video, _folder(video) if by_folder else None) for video in videos]
    return found


def _folder(video: VideoRecord) -> str | None:
    return video.name.split("/")[0] if video.label is not None else None


def _class_names(
    read: dict[str, list[tuple[VideoRecord, str | None]]], given: tuple[str, ...] | None
) -> tuple[str, ...]:
    everything = [entry for videos in read.values() for entry in videos]
    folders = {folder for _, folder in everything if folder is not None}
    listed = [video for video, folder in everything if folder is None and video.label is not None]
    if given is None and folders and listed:
        raise InputError("some labels are folders and some are numbers of lists: name the --classes in order")
    if given is None and folders:
        given = tuple(sorted({folder for _, folder in next(iter(read.values())) if folder is not None}))
    largest = max((video.label or 0 for video in listed), default=-1)
    classes = given or tuple(map(str, range(largest + 1)))
    if unknown := sorted(folders - set(classes)):
        raise InputError(f"no class is named {unknown[0]!r}; the classes are {', '.join(classes[:20])}")
    for video in listed:
        if video.label not in range(len(classes)):
            raise InputError(
                f"{video.name} has the label {video.label}; labels go from 0 to {len(classes) - 1}"
            )
    return classes if folders or listed else ()


def _number(video: VideoRecord, folder: str | None, numbers: dict[str, int]) -> VideoRecord:
    return video if folder is None else replace(video, label=numbers[folder])
