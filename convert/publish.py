"""Putting a finished result in place at once, or leaving nothing behind."""

import glob
import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from videomae_jax.checkpoints.origin import RECORD
from videomae_jax.errors import InputError
from videomae_jax.files import beside, file_lock, locked_file, remove

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def publishing(target: Path, force: bool) -> Iterator[Path]:
    """Give a place beside `target` to write to; what is there at the end becomes `target` by a rename.

    A full disk or any other failure removes it and leaves an earlier `target` as it was. So do SIGTERM and
    Ctrl-C, whose handler cleans up and ends the process itself: an exception raised by a signal can be lost
    in a callback of JAX's. From the rename on they wait until it is done.
    """
    check_free(target, force)
    try:
        with locked_file(target, "target"), beside(target) as partial, _cleaned_up(target, partial):
            yield partial
            signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
            _replace(partial, target)
    except OSError as error:
        raise InputError(
            f"{target} could not be written: {error}. Nothing was left there; make room or name another place"
        ) from error


@contextmanager
def _cleaned_up(target: Path, partial: Path) -> Iterator[None]:
    """End by a signal only after what is half-written was removed."""

    def leave(number: int, frame: FrameType | None) -> None:
        for path in (partial, *target.parent.glob(f".partial-*-{glob.escape(partial.name)}")):
            remove_for_good(path)
        for path in (target, partial):  # That of `partial` is of a folder which is written whole itself.
            file_lock(path).unlink(missing_ok=True)
        os.write(2, b"ended by a signal; nothing was written\n")
        os._exit(128 + number)

    before = {number: signal.signal(number, leave) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


def check_free(target: Path, force: bool) -> None:
    """Raise InputError unless `target` is new, or `force` may replace an earlier conversion there."""
    if not target.exists():
        return
    if not force:
        raise InputError(f"{target} exists already; name another target, or pass --force to replace it")
    if target.is_dir() and any(target.iterdir()) and not (target / RECORD).is_file():
        raise InputError(
            f"{target} has no {RECORD}, so no conversion wrote it, and --force does not replace it; remove "
            "it yourself or name another target"
        )


def record_beside(target: Path) -> Path:
    """Where the record of a conversion to one file is."""
    return target.with_name(f"{target.name}.{RECORD}")


def remove_for_good(path: Path, quiet: float = 0.5) -> None:
    """Remove a folder to which threads may go on writing, until nothing has come back for `quiet` seconds.

    Orbax's threads outlive the failure of one of them, and make the folders they write to.
    """
    deadline = time.monotonic() + quiet
    while time.monotonic() < deadline:
        if path.exists():
            shutil.rmtree(path, ignore_errors=True)
            deadline = time.monotonic() + quiet
        time.sleep(0.02)


def _replace(partial: Path, target: Path) -> None:
    """Rename; a folder that is replaced steps aside first, and comes back if that fails."""
    if not target.is_dir():
        partial.replace(target)
        return
    aside = target.with_name(f".replaced-{target.name}")
    remove(aside)
    target.rename(aside)
    try:
        partial.rename(target)
    except BaseException:
        aside.rename(target)
        raise
    remove(aside)
