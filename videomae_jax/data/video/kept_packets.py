"""What packets of long files prove, kept on disk: to read it from the file means to read all of the file.

It belongs to one state of one file, told by its size, its times of change and its number in the file system,
and to the versions of the decoder. Whatever is wrong with what was kept, or with the place for it, is passed
over: packets are then read again.
"""

import hashlib
import os
import time
from array import array
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import av
import numpy as np
from jaxtyping import Int64

from videomae_jax.data.video.packets import Packets
from videomae_jax.data.video.units import Units
from videomae_jax.files import beside, cache_folder

LONG = 120
"""Seconds from which on a file is long; of shorter ones there may be hundreds of thousands."""
MOST_BYTES = 1 << 30
"""Of all that is kept; the oldest goes first."""
_FOLDERS = 64
"""The files are spread over as many, so that few have to be looked at to find the oldest."""
_FORMAT = 1
"""Changes with what packets prove."""
_VERSIONS = av.__version__, av.ffmpeg_version_info
# After a jump these are read as they are from the start, whatever was read before.
_CONTAINERS = ("mov", "matroska")
# A file that changed later than this before it was read may change again without another time of change.
_SECONDS_AT_REST = 10
_UNKNOWN = np.iinfo(np.int64).min
_TOLD, _START, _HIDDEN = 1, 2, 4


def file_state(path: str) -> tuple[int, ...]:
    """What changes with the content of a file; empty where the system does not say."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return ()
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def kept_packets(path: str, state: tuple[int, ...], read: Callable[[], Packets]) -> Packets:
    """The packets of a file that was opened in this state: those that were kept, or else those that are read,
    which are then kept where they prove anything.
    """
    told = "\n".join(map(str, (_FORMAT, *_VERSIONS, *state)))
    with suppress(Exception):  # Zip, NumPy and the system each have their own for what is broken.
        found = _load(_place(path), told)
        if found and file_state(path) == state:
            return found
    at_rest = time.time() - max(state[1:3]) / 1e9 >= _SECONDS_AT_REST
    packets = read()
    if at_rest and packets.times and packets.container.startswith(_CONTAINERS):
        with suppress(OSError, RuntimeError):
            if file_state(path) == state:
                _keep(_place(path), told, packets)
    return packets


def _place(path: str) -> Path:
    digest = hashlib.sha256(os.fsencode(os.path.abspath(path))).hexdigest()
    return cache_folder("packets") / f"{int(digest[:8], 16) % _FOLDERS:02d}" / f"{digest[:40]}.npz"


def _keep(place: Path, told: str, packets: Packets) -> None:
    """Write down packets of which all is known but times of decoding."""
    flags = np.zeros(len(packets.pts), np.uint8)
    flags[packets.told_starts] |= _TOLD
    flags[packets.starts] |= _START
    flags[np.array(packets.discarded)] |= _HIDDEN
    marks = packets.find_marks(0, len(flags)) if packets.codec == "h264" else b""
    with beside(place) as partial:
        np.savez_compressed(
            partial,
            told=np.array([told, packets.codec, packets.container, "turns" * packets.units.turns]),
            pts=_steps(packets.pts),
            dts=_steps(_UNKNOWN if dts is None else dts for dts in packets.dts),
            places=_steps(packets.places),
            flags=flags,
            marks=np.frombuffer(marks, np.uint8),
        )
        partial.replace(place)
    _drop_oldest(place.parent)


def _load(place: Path, told: str) -> Packets | None:
    """What was kept; None where there is none of this state. Raises whatever comes of a broken file."""
    if not place.exists():
        return None
    with np.load(place) as kept:
        of_state, codec, container, turns = kept["told"].tolist()
        if of_state != told:
            return None
        pts, dts, places = (np.cumsum(kept[name]) for name in ("pts", "dts", "places"))
        flags, marks = kept["flags"], kept["marks"].tobytes()
    units = Units(codec, b"")
    units.turns = bool(turns)
    decoded = tuple(None if each == _UNKNOWN else each for each in dts.tolist())
    # What else was read of them has proven what follows.
    packets = Packets(codec, container, False, units, _column(pts), decoded, _column(places), *((),) * 5)
    vars(packets).update(
        times=_column(np.sort(pts[flags & _HIDDEN == 0])),
        told_starts=np.flatnonzero(flags & _TOLD).tolist(),
        starts=np.flatnonzero(flags & _START).tolist(),
        marks=bytearray(marks),
    )
    return packets


def _steps(column: Iterable[Any]) -> Int64[np.ndarray, " n"]:
    """The differences from each to the next, which take less room."""
    return np.diff(np.fromiter(column, np.int64), prepend=0)


def _column(numbers: Int64[np.ndarray, " n"]) -> "array[int]":
    return array("q", numbers.tobytes())


def _drop_oldest(folder: Path) -> None:
    """Remove what is over the bound; what was just written stays."""
    found = [(entry.stat().st_mtime_ns, entry.stat().st_size, entry.path) for entry in os.scandir(folder)]
    left = MOST_BYTES // _FOLDERS
    for n, (_, size, path) in enumerate(sorted(found, reverse=True)):
        left -= size
        if n and left < 0:
            Path(path).unlink(missing_ok=True)
