"""Writes results whole or not at all, and keeps a second writer off them. Everything that writes uses it.

What is being written has a name of its own beside its target, `.partial-TOKEN-NAME`, and gets the target's
by a rename. What a killed process leaves under such a name goes when the next one takes the target's lock.
"""

import csv
import hashlib
import io
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from videomae_jax.errors import InputError

_PARTIAL = ".partial-"
_TOKEN = 8
_LONGEST = 200
"""Bytes of a target's name that are kept beside it: names may be at most 255 bytes long."""
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+")
"""How gs://, s3:// or https:// begin; a Path has one slash where there were two."""


IN_STORES = "may be at gs:// or s3://"
"""Marks, in the annotation of a path in a command's settings, that it may be an address."""


def check_paths(settings: Any) -> None:
    """Raise InputError where a path in a command's settings, or in settings within them, is an address."""
    for each in fields(settings):
        value, marks = getattr(settings, each.name), getattr(each.type, "__metadata__", ())
        if isinstance(value, Path) and IN_STORES not in marks:
            unnamed = any(str(mark) == "Positional" for mark in marks)
            check_path(value, f"the {each.name}" if unnamed else f"--{each.name.replace('_', '-')}")
        elif is_dataclass(value):
            check_paths(value)


def check_path(path: Path, option: str) -> None:
    """Raise InputError where a path, named by this option, is an address: locks and renames need a folder."""
    if address := address_of(path):
        raise InputError(
            f"{option} {address} is an address, but must be a file or folder of this machine: copy to "
            "or from the address, or mount that storage as a folder"
        )


def address_of(path: Path) -> str:
    """The address that a path was made of, as gs://bucket/name; empty where it is a path."""
    found = _ADDRESS.match(str(path))
    return f"{found[1]}://{str(path)[found.end() :]}" if found else ""


@contextmanager
def beside(target: Path) -> Iterator[Path]:
    """Give a new path beside `target`, with its suffix; what is there at the end is removed."""
    check_path(target, "the path")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{_PARTIAL}{secrets.token_hex(_TOKEN // 2)}-{_short_name(target)}")
    try:
        yield partial
    finally:
        remove(partial)


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Give a new path beside `target`, with its suffix; the file written there becomes `target`.

    Whatever goes wrong leaves `target` as it was and nothing beside it.
    """
    with beside(target) as partial:
        yield partial
        flush(partial)
        partial.replace(target)


def flush(file: Path) -> None:
    """Let a file reach the disk, which a rename could otherwise reach before it."""
    with file.open("rb+") as opened:
        os.fsync(opened.fileno())


def write_text(target: Path, text: str, errors: str = "strict") -> None:
    """Write a text file in UTF-8, whole."""
    with replacing(target) as partial:
        partial.write_text(text, "utf-8", errors)


def write_json(target: Path, content: Any) -> None:
    """Write a JSON file, whole; a path within `content` becomes text."""
    write_text(target, json.dumps(content, indent=2, default=os.fspath) + "\n")


def write_rows(target: Path, rows: Iterable[Iterable[Any]]) -> None:
    """Write a table in CSV, whole."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_text(target, text.getvalue(), "surrogateescape")


def read_json(file: Path, what: str, kind: type = dict) -> Any:
    """What a JSON file holds; raises InputError where it cannot be read, or holds no object (or list)."""
    try:
        found = json.loads(file.read_text("utf-8"))
        if not isinstance(found, kind):
            raise ValueError(f"it holds no JSON {'object' if kind is dict else 'list'}")
    except (OSError, ValueError) as error:
        raise InputError(f"{file} is not {what}: {error}") from error
    return found


def remove(path: Path) -> None:
    """Remove a file or a folder, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def locked_folder(folder: Path, option: str) -> Iterator[None]:
    """Make a folder and keep other processes off it; the lock ends with the process that holds it.

    Raises InputError, naming the `option` of the folder, when it cannot be made or another one writes there.
    """
    check_path(folder, option)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{option} {folder} is a file; name a folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{option} {folder} cannot be made: {error.strerror}; name another") from error
    with _locked(folder_lock(folder), folder, option):
        yield


def folder_lock(folder: Path) -> Path:
    """The file that is locked while a folder is written; it stays there."""
    return folder / ".lock"


@contextmanager
def locked_file(target: Path, option: str, *, wait: bool = False) -> Iterator[None]:
    """Keep other processes from writing a file or a folder that is written whole; as `locked_folder`.

    `wait` for another one that writes it, instead of raising InputError.
    """
    check_path(target, option)
    target.parent.mkdir(parents=True, exist_ok=True)
    lock = file_lock(target)
    with _locked(lock, target, option, wait):
        try:
            _remove_left_over(target)
            yield
        finally:
            with suppress(OSError):
                lock.unlink()  # While it is held: who has opened it meanwhile finds it gone, and starts over.


def file_lock(target: Path) -> Path:
    """The file that is there and locked while a target is written."""
    return target.with_name(f".{_short_name(target)}.lock")


@contextmanager
def _locked(lock: Path, target: Path, option: str, wait: bool = False) -> Iterator[None]:
    held = FileLock(lock)
    try:
        held.acquire(timeout=-1 if wait else 0)
    except Timeout:
        raise InputError(
            f"another process is writing to {target}; wait for it, stop it, or choose another {option}"
        ) from None
    try:
        yield
    finally:
        held.release()


def cache_folder(use: str) -> Path:
    """Where what can be made again is kept for a use, such as "labels", for this user."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "videomae-jax" / use


def parts_folder(target: Path) -> Path:
    """The folder for what is finished of a target that is made in parts."""
    return target.with_name(f".{_short_name(target)}.parts")


def _remove_left_over(target: Path) -> None:
    """Remove what a killed process left half-written; nobody else writes it while the lock is held."""
    for path in target.parent.glob(f"{_PARTIAL}*"):
        if path.name[len(_PARTIAL) + _TOKEN + 1 :] == _short_name(target):
            remove(path)


def _short_name(target: Path) -> str:
    if len(os.fsencode(target.name)) <= _LONGEST:
        return target.name
    return hashlib.sha256(os.fsencode(target.name)).hexdigest() + target.suffix[-_TOKEN:]
