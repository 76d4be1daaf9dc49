"""Reading a video again where the storage, or the system, failed for a moment."""

import logging
import time
from collections.abc import Generator
from contextlib import closing

from videomae_jax.data.clips.readers import Arrays, Key, Reader
from videomae_jax.data.loading.filling import ClipBatch
from videomae_jax.data.loading.order import Failure
from videomae_jax.data.records import VideoRecord
from videomae_jax.data.regular_files import passing_failure
from videomae_jax.data.video.frames import VideoError
from videomae_jax.errors import printable

log = logging.getLogger(__name__)

_PAUSES = (0.1, 0.5, 2.0)
"""Seconds before each further attempt."""


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


def tell_repeats(batches: Generator[ClipBatch, None, None]) -> Generator[ClipBatch, None, None]:
    """The same batches; now and then a line is logged on what had to be read again."""
    count, told = 0, 1
    with closing(batches):
        for batch in batches:
            count += len(batch.repeats)
            if batch.repeats and count >= told:
                last, told = batch.repeats[-1], 2 * count
                log.warning(
                    "the storage or the system failed for a moment, and videos were read again: %d times so "
                    "far, the last being %s: %s",
                    count,
                    printable(last.path),
                    last.error,
                )
            yield batch
            del batch  # Whoever waits for the next one holds no memory of this one.


def _failure(error: VideoError) -> str:
    if error.reason == "unreadable":
        return passing_failure(error.detail)
    return passing_failure(error.__cause__) if error.__cause__ else ""
