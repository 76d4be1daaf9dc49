"""Which videos cannot be read, and why; where the storage failed for a moment, they are read again."""

import time
from dataclasses import dataclass

from videomae_jax.data.clips.readers import Arrays, Key, Reader
from videomae_jax.data.records import VideoRecord
from videomae_jax.data.regular_files import passing_failure
from videomae_jax.data.video.frames import VideoError

_PAUSES = (0.1, 0.5, 2.0)
"""Seconds before each further attempt."""


@dataclass(frozen=True)
class Failure:
    """A video that was asked for and could not be read."""

    path: str
    reason: str
    error: str

    @classmethod
    def of(cls, error: VideoError) -> "Failure":
        return cls(error.path, error.reason, str(error))


def read_patiently(read: Reader, record: VideoRecord, key: Key | None, repeats: list[Failure]) -> Arrays:
    """What the reader makes of a video; `repeats` gets a line for each time that it had to be read again.

    Raises VideoError as the reader does; where the system has failed every time, `unreadable`.
    """
    attempts = 0
    while True:
        try:
            return read(record, key)
        except VideoError as error:
            failure = _failure(error)
            # Decoders say of files which are cut short that their storage failed: once more has to do.
            if not failure or attempts == (len(_PAUSES) if error.reason == "unreadable" else 1):
                raise
            repeats.append(Failure(error.path, "unreadable", failure))
        time.sleep(_PAUSES[attempts])
        attempts += 1


def _failure(error: VideoError) -> str:
    if error.reason == "unreadable":
        return passing_failure(error.detail)
    return passing_failure(error.__cause__) if error.__cause__ else ""
