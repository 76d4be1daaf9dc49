"""Folders of videos, and of frames: what is found in them, each folder once, however links go round."""

import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from videomae_jax.errors import printable

log = logging.getLogger(__name__)

VIDEO_SUFFIXES = frozenset(
    {".3gp", ".asf", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts"}
    | {".mxf", ".ogv", ".rm", ".ts", ".vob", ".webm", ".wmv", ".y4m"}
)
IMAGE_SUFFIXES = frozenset({".jpeg", ".jpg", ".png"})


def find_videos(folder: Path) -> tuple[list[str], Counter[str]]:
    """The video files below a folder, sorted, as paths relative to it, and how many others of each suffix.

    Hidden files are left out.
    """
    return sort_out(f"{parent}{name}" for parent, files in _walk(folder) for name in files)


def sort_out(files: Iterable[str]) -> tuple[list[str], Counter[str]]:
    """Of paths relative to a folder those of videos, sorted, and how many others of each suffix."""
    found, others = [], Counter[str]()
    for file in files:
        if _has_suffix(name := os.path.basename(file), VIDEO_SUFFIXES):
            found.append(file)
        elif not name.startswith("."):
            others[_suffix(name)] += 1
    return sorted(found), others


def find_frame_folders(folder: Path) -> list[str]:
    """The folders that hold images, each the frames of a video, sorted, as paths relative to `folder`.

    "" where that holds images itself.
    """
    return sorted(parent[:-1] for parent, files in _walk(folder) if any(map(_is_frame, files)))


def number_frames(folder: str | os.PathLike[str]) -> list[tuple[int, str]]:
    """The images of a folder by the last number in their names, sorted, -1 for none; raises OSError."""
    numbered = []
    for name in os.listdir(folder):
        if _is_frame(name):
            found = re.findall(r"\d+", os.path.splitext(name)[0])
            numbered.append((int(found[-1]) if found else -1, name))
    return sorted(numbered)


def _walk(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Each folder, "" or as "a/b/", and the files in it; hidden folders are left out.

    A folder that several ways lead to is found by the way without a link.
    """
    seen: set[str] = set()
    tops = [os.fspath(folder)]
    closed: list[OSError] = []
    while tops:
        for parent, folders, files in os.walk(tops.pop(0), onerror=closed.append):
            real = os.path.realpath(parent)
            folders[:] = sorted(name for name in folders if not name.startswith(".") and real not in seen)
            tops += [link for name in folders if os.path.islink(link := os.path.join(parent, name))]
            if real not in seen:
                relative = Path(parent).relative_to(folder).as_posix()
                yield "" if relative == "." else f"{relative}/", files
            seen.add(real)
    for error in closed:
        _say_closed(os.fspath(folder), str(error))


@lru_cache  # A command may walk through a folder more than once.
def _say_closed(folder: str, error: str) -> None:
    log.warning("%s: a folder cannot be listed: %s", printable(folder), printable(error))


def _has_suffix(name: str, suffixes: frozenset[str]) -> bool:
    return not name.startswith(".") and _suffix(name) in suffixes


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _is_frame(name: str) -> bool:
    # flow_x and flow_y beside the frames are optical flow, as MMAction's tools write it.
    return not name.startswith("flow_") and _has_suffix(name, IMAGE_SUFFIXES)
