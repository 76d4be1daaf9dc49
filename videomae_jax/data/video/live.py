"""Frames of live sources: a file that grows, a stream, a camera."""

import io
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from jaxtyping import UInt8

from videomae_jax.data.video.decoder import MAX_PIXELS
from videomae_jax.data.video.frames import (
    DECODER_ERRORS,
    Converters,
    DecodedFrame,
    VideoError,
    orientation,
)
from videomae_jax.data.video.opening import OPEN_OPTIONS, decoder_limits

_POLL = 0.1
"""Seconds between two attempts to read more of a file."""
_RETRY = 1.0
"""Seconds before a lost stream is opened again."""
_CAMERAS = "/dev/video"


class LiveFrame(NamedTuple):
    """A frame as it comes."""

    seconds: float
    """Its time in the source, or since the first frame where the source has none."""
    image: UInt8[np.ndarray, "h w 3"]
    first: bool
    """Whether it does not follow the one before: the first of all, or after the stream was lost."""


class GrowingFile(io.RawIOBase):
    """A file that may still be written: at its end, a read waits for more, for up to `patience` seconds."""

    def __init__(self, path: Path, patience: float, sleep: Callable[[float], None] = time.sleep) -> None:
        self._file, self._patience, self._sleep = path.open("rb"), patience, sleep
        self.name = str(path)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        deadline = time.monotonic() + self._patience
        while not (found := self._file.read(size)) and time.monotonic() < deadline:
            self._sleep(_POLL)
        return found

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()
        super().close()


def live_frames(source: str, patience: float, max_pixels: int = MAX_PIXELS) -> Iterator[LiveFrame]:
    """Frames of a file, an address (rtsp://, http://, ...) or a camera (/dev/video0), as they come, upright.

    A file ends after `patience` seconds in which it has not grown. A stream that is lost is opened again; it
    ends after `patience` seconds without a frame. Frames that do not decode are left out. Raises VideoError
    if there was no frame at all, or one is too large.
    """
    is_stream = "://" in source or source.startswith(_CAMERAS)
    came, reason, last = 0, "no frame came", time.monotonic()
    while True:
        try:
            for frame in _connected(source, patience, max_pixels):
                came, last = came + 1, time.monotonic()
                yield frame
        except (*DECODER_ERRORS, OSError, ValueError) as error:
            reason = str(error)
        if not is_stream or time.monotonic() - last > patience:
            break
        time.sleep(_RETRY)
    if not came:
        raise VideoError(source, "no-frames", f"nothing could be read in {patience:g} s: {reason}")


def _connected(source: str, patience: float, max_pixels: int) -> Iterator[LiveFrame]:
    """The frames of one connection, or of a file."""
    converters, turned, number = Converters(source), None, 0
    with _opened(source, patience, max_pixels) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        rate = float(stream.guessed_rate or 25)
        for packet in container.demux(stream):
            for frame in _decoded(packet):
                if frame.height * frame.width > max_pixels:
                    size = f"frames of {frame.width}x{frame.height} have more than {max_pixels} pixels"
                    raise VideoError(source, "too-large", size)
                turned = turned or orientation(frame)
                seconds = number / rate if frame.time is None else float(frame.time)
                yield LiveFrame(seconds, DecodedFrame(frame, converters, turned).rgb(), number == 0)
                number += 1


def _decoded(packet: Any) -> list[Any]:
    """The frames of a packet; none of one that is damaged, as happens in streams."""
    try:
        return list(packet.decode())
    except DECODER_ERRORS:
        return []


def _opened(source: str, patience: float, max_pixels: int) -> Any:
    options = decoder_limits(max_pixels)
    if source.startswith(_CAMERAS):
        return av.open(source, format="v4l2", options=options, **OPEN_OPTIONS)
    if "://" in source:
        more = {"rtsp_transport": "tcp"} if source.startswith("rtsp") else {}
        return av.open(source, options=options | more, timeout=patience, **OPEN_OPTIONS)
    return av.open(GrowingFile(Path(source), patience), options=options, **OPEN_OPTIONS)
