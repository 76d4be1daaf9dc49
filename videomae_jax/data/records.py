"""One video of a run, as lists, folders and sets all give it."""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Split = Literal["train", "val"]
"""What a source is read for: to train on, or to validate and test."""


@dataclass(frozen=True, slots=True)
class VideoRecord:
    """One video, or a segment of one, that a run may read."""

    path: str
    """Where the file is, or the folder of its frames."""
    name: str
    """The path as the list gives it, or relative to the folder that was named."""
    label: int | None = None
    start: int = 0
    """First frame of the segment; in a folder of frames the number in its name, or 0 for the first there."""
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


def list_digest(videos: Iterable[VideoRecord]) -> str:
    """A fingerprint of what is read, in which order, wherever it is stored: SHA-256 of names and segments."""
    digest = hashlib.sha256()
    for n, video in enumerate(videos):
        line = f"{video.name}\t{video.start}\t{video.total}"
        digest.update(("\n" * bool(n) + line).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
