"""Labelled videos for a model: labels as the model numbers its classes, whatever the lists' own numbers."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from videomae_jax.config import VideoMAEConfig
from videomae_jax.data.sources import VideoRecord, read_classes, read_labelled
from videomae_jax.errors import InputError

Videos = tuple[VideoRecord, ...]


def read_videos_of_model(
    sources: Sequence[str],
    config: VideoMAEConfig,
    root: str | None = None,
    classes: str | None = None,
) -> tuple[Videos, tuple[str, ...]]:
    """Read lists and folders: each video once, with the label of the model's class, and the class names.

    Folders match the model's classes by name where it knows names. `classes` is a file with the names of the
    lists' numbers: they match by name too where the model knows them, and else give the nameless their names.
    Raises InputError for a label that the model has no class for, and for one video with two labels.
    """
    known = config.id2label if _has_names(config) else None
    if classes is None:
        videos, names = read_labelled(sources, root, known)
        if known is None:
            _check_count(sources, names, config)
            names += config.id2label[len(names) :]
    else:
        given = read_classes(classes)
        videos, _ = read_labelled(sources, root, given)
        if known and set(given) & set(known):
            videos, names = _renumbered(videos, given, known, classes), known
        elif len(given) > config.num_labels:
            raise InputError(f"{classes} names {len(given)} classes, but the model has {config.num_labels}")
        else:
            names = given + config.id2label[len(given) :]
    return _distinct(videos), names


def _has_names(config: VideoMAEConfig) -> bool:
    return config.id2label != tuple(f"LABEL_{number}" for number in range(config.num_labels))


def _check_count(sources: Sequence[str], names: tuple[str, ...], config: VideoMAEConfig) -> None:
    """Raise InputError where the classes of lists and folders cannot be those of a model without names."""
    folders = [source for source in sources if Path(source).is_dir()]
    if len(names) > config.num_labels or (folders and len(names) != config.num_labels):
        raise InputError(
            f"{', '.join(folders or sources)}: {len(names)} classes, but the model has {config.num_labels} "
            "and knows no names: give those of its classes, in order, with --classes FILE"
        )


def _renumbered(videos: Videos, given: tuple[str, ...], known: tuple[str, ...], file: str) -> Videos:
    """The labels numbered as the model does, by name."""
    if missing := sorted(set(given) - set(known)):
        raise InputError(
            f"{file} names classes that the model does not know: {', '.join(missing)}. It knows "
            f"{', '.join(known)}. Spell them alike, or leave --classes out if the numbers are the model's"
        )
    return tuple(replace(video, label=known.index(given[_label(video)])) for video in videos)


def _distinct(videos: Videos) -> Videos:
    """Each video once, where lists name it more often."""
    first: dict[tuple[str, int, int], VideoRecord] = {}
    for video in videos:
        kept = first.setdefault((os.path.abspath(video.path), video.start, video.total), video)
        if kept.label != video.label:
            raise InputError(
                f"{video.path} is in the lists with the labels {kept.label} and {video.label}: remove one"
            )
    return tuple(first.values())


def _label(video: VideoRecord) -> int:
    assert video.label is not None
    return video.label


__all__ = ["read_videos_of_model"]
