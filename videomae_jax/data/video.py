"""Reading video files; with video_frames.py and video_writing.py, all that knows the decoder.

Frames are found by presentation timestamp, never by arithmetic on a frame rate, so variable frame rates,
edit lists and several streams come out right. Where the container's timestamps can be trusted they are read
from the packets, without decoding, and reading starts at the keyframe before the wanted frame.
"""

import io
import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from jaxtyping import Float64, UInt8

from videomae_jax.data.cropping import Frame
from videomae_jax.data.regular_files import why_not_readable, why_unread
from videomae_jax.data.video_frames import (
    DECODER_ERRORS,
    Converters,
    DecodedFrame,
    VideoError,
    rotation,
)

# Codecs with exactly one packet for each frame. VP8, for one, has packets that show nothing, and MPEG-4 may
# hold two frames in one packet and none in the next.
_ONE_PACKET_ONE_FRAME = frozenset({"av1", "h264", "hevc", "vp9"})
# Codecs whose packets, where all are shown when they are decoded, are one frame each in any container.
_NEVER_REORDERED = frozenset({"h263", "mjpeg", "mpeg4"})
# Codecs whose frames say that no other frame needs them, so that unwanted ones need no decoding.
_MARKS_UNREFERENCED = frozenset({"h264", "hevc", "mpeg4"})
# An MPEG-4 packet of this size or less says "nothing new" and gives no frame.
_MPEG4_EMPTY_PACKET = 8
# Jumping to a keyframe flushes the decoder, which costs about as much as decoding this many frames.
_FRAMES_WORTH_A_SEEK = 8
# Text that is not UTF-8 must not stop the reading; from PyAV 19 on it never does.
_OPEN_OPTIONS: dict[str, Any] = (
    {"metadata_errors": "surrogateescape"} if int(av.__version__.split(".")[0]) < 19 else {}
)


@dataclass(frozen=True)
class Scan:
    """What a full decode of a video found."""

    timestamps: Float64[np.ndarray, " n"]
    """Seconds, one for each frame that decodes."""
    errors: int
    """Packets that the decoder refused."""
    concealed: int
    """Frames that the decoder gave, but marked as damaged."""


class StreamedFrame(NamedTuple):
    """One frame of a pass over a whole video."""

    position: int
    """In the video's `timestamps`."""
    image: UInt8[np.ndarray, "h w 3"]
    concealed: bool
    """The decoder gave it, but marked it as damaged."""


class _Packet(NamedTuple):
    pts: int | None
    dts: int | None
    keyframe: bool
    discard: bool
    corrupt: bool
    size: int


class Video:
    """An open video file, or its bytes `content`, where `path` only names it in errors; see `open_video`."""

    def __init__(self, path: str, content: bytes | None = None) -> None:
        self.path = path
        self._content = content
        self._converters = Converters(path)
        self._errors = 0
        self._open()
        # As stored, before rotation.
        self.height: int = self._stream.codec_context.height
        self.width: int = self._stream.codec_context.width

    def close(self) -> None:
        """Free the decoder's memory; without this it waits for the garbage collector."""
        self._container.close()

    @property
    def header_frames(self) -> int:
        """The number of frames that the header claims; 0 when it does not say."""
        return self._stream.frames

    @cached_property
    def timestamps(self) -> Float64[np.ndarray, " n"]:
        """Presentation times in seconds, one for each frame that can be asked for, rising."""
        if self._times is None:
            return self.scan.timestamps
        return np.array(self._times, np.float64) * float(self._stream.time_base)

    @cached_property
    def rotation(self) -> int:
        """Degrees counter-clockwise, a multiple of 90, by which frames are turned for display."""
        for frame in self._decode(0):
            return rotation(frame)
        raise VideoError(self.path, "no-frames", "nothing in it decodes")

    def frames(self, indices: Sequence[int] | np.ndarray) -> UInt8[np.ndarray, "n h w 3"]:
        """RGB frames at these positions in `timestamps`, in any order, repeats allowed, upright.

        Raises VideoError when a wanted frame does not decode: another frame is never given in its place.
        """
        wanted = [int(index) for index in indices]
        found = dict(self.read(wanted))
        return np.stack([found[index] for index in wanted])

    def read(self, indices: Sequence[int]) -> Iterator[tuple[int, UInt8[np.ndarray, "h w 3"]]]:
        """Yield (index, RGB frame) for each different index, rising, with one frame in memory at a time."""
        return ((index, frame.rgb()) for index, frame in self.read_frames(indices))

    def read_frames(self, indices: Sequence[int]) -> Iterator[tuple[int, Frame]]:
        """As `read`, but frames are not in RGB yet, so that a part of one can be taken for less."""
        wanted = self.check_indices(indices)
        find = self._find_by_order if self._times is None else self._find_by_time
        first = None
        for index, frame in find(wanted):
            size = f"{frame.width}x{frame.height}"
            first = first or size
            if size != first:
                raise VideoError(self.path, "mixed-sizes", f"frame {index} is {size}, earlier ones {first}")
            yield index, DecodedFrame(frame, self._converters)

    def check_indices(self, indices: Sequence[int]) -> list[int]:
        """Each different index, rising; raises VideoError or IndexError where there are no such frames."""
        wanted, count = sorted(set(indices)), len(self.timestamps)
        if not count:
            raise VideoError(self.path, "no-frames", "nothing in it decodes")
        if wanted and (wanted[0] < 0 or wanted[-1] >= count):
            raise IndexError(f"{self.path}: frame {wanted[-1]} asked for, but it has frames 0 to {count - 1}")
        return wanted

    def stream(self, short_side: int | None = None, *, even: bool = False) -> Iterator[StreamedFrame]:
        """Every frame that decodes, in one pass, upright, at most `short_side` pixels on its short side.

        `even` rounds sizes to even numbers. Frames that do not decode are left out.
        """
        times = self._times
        order = {pts: index for index, pts in enumerate(times or ())}
        first, last = None, -1
        for count, frame in enumerate(self._decode(0)):
            index = count if times is None else order.get(-1 if frame.pts is None else frame.pts, -1)
            if index <= last:  # Not a frame of `timestamps`, or a damaged file that goes back in time.
                continue
            last = index
            size = f"{frame.width}x{frame.height}"
            first = first or size
            if size != first:
                raise VideoError(self.path, "mixed-sizes", f"frame {index} is {size}, earlier ones {first}")
            wanted = fit_size(frame.height, frame.width, short_side, even=even)
            image = DecodedFrame(frame, self._converters).rgb(wanted)
            yield StreamedFrame(index, image, frame.is_corrupt)

    @cached_property
    def scan(self) -> Scan:
        """What comes out when everything is decoded."""
        times, concealed = [], 0
        self._errors = 0
        for frame in self._decode(0):
            times.append(np.nan if frame.time is None else frame.time)
            concealed += frame.is_corrupt
        timestamps = np.array(times, np.float64)
        if not (np.diff(timestamps) > 0).all():  # Old AVI files tell the order of decoding instead.
            timestamps = np.arange(len(times)) / float(self._stream.guessed_rate or 25)
        return Scan(timestamps, self._errors, concealed)

    @cached_property
    def _packets(self) -> list[_Packet]:
        """The packets in decoding order, from a pass over the file that decodes nothing."""
        packets = []
        try:
            for p in self._container.demux(self._stream):
                if p.size:
                    packets.append(_Packet(p.pts, p.dts, p.is_keyframe, p.is_discard, p.is_corrupt, p.size))
        except DECODER_ERRORS:
            pass  # A file that was cut short: what came before is what there is.
        return packets

    @cached_property
    def _positions(self) -> dict[tuple[int | None, int | None], int]:
        return {(packet.pts, packet.dts): position for position, packet in enumerate(self._packets)}

    @cached_property
    def _keyframes(self) -> list[tuple[int, int]]:
        """Time and position in decoding order of each packet where decoding can start, rising."""
        return sorted((p.pts, n) for n, p in enumerate(self._packets) if p.keyframe and p.pts is not None)

    @cached_property
    def _times(self) -> list[int] | None:
        """Presentation times of the frames in units of the stream, or None where packets do not tell them."""
        codec = self._stream.codec_context.codec.canonical_name
        packets = self._packets
        shown = [packet.pts for packet in packets if not packet.discard]
        times = sorted(pts for pts in shown if pts is not None)
        if codec in _NEVER_REORDERED and all(packet.pts == packet.dts for packet in packets):
            known = codec != "mpeg4" or all(packet.size > _MPEG4_EMPTY_PACKET for packet in packets)
        else:
            known = codec in _ONE_PACKET_ONE_FRAME and self._container.format.name.startswith(
                ("mov", "matroska")
            )
        if not known or len(set(times)) != len(shown) or any(packet.corrupt for packet in packets):
            return None
        return times

    def _open(self) -> None:
        if self._content is None and (unreadable := why_not_readable(self.path)):
            raise VideoError(self.path, *unreadable)
        try:
            # With the scheme spelled out, no path is taken for an address.
            file = "file:" + self.path if self._content is None else io.BytesIO(self._content)
            self._container = av.open(file, **_OPEN_OPTIONS)
        except (*DECODER_ERRORS, OSError, ValueError) as error:
            if self._content is None:
                raise VideoError(self.path, *_why_not_opened(Path(self.path), error)) from error
            raise VideoError(self.path, *_why_not_decoded(self._content[:200], error)) from error
        self._stream = self._container.streams.best("video")
        reason = None
        if self._stream is None:
            reason = ("no-video-stream", "it holds no video, perhaps only sound")
        elif self._stream.codec_context is None:
            reason = ("no-decoder", "its video codec is not known here")
        if reason:
            self._container.close()
            raise VideoError(self.path, *reason)
        self._stream.codec_context.thread_count = 1  # Processes share the cores; threads here only add cost.

    def _find_by_order(self, wanted: list[int]) -> Iterator[tuple[int, av.VideoFrame]]:
        frames = enumerate(self._decode(0))
        for target in wanted:
            found = next((frame for index, frame in frames if index == target), None)
            if found is None:
                raise self._damaged(target)
            yield target, found

    def _find_by_time(self, wanted: list[int]) -> Iterator[tuple[int, av.VideoFrame]]:
        """Frames by presentation time, jumping from keyframe to keyframe where that is worth it."""
        times = self._times
        assert times is not None
        order = {pts: index for index, pts in enumerate(times)}
        needed = {times[index] for index in wanted}
        frames, reached, whole = self._decode(0, needed), -1, False
        for target in wanted:
            pts = times[target]
            before = bisect_right(self._keyframes, pts, key=itemgetter(0))
            key_pts, start = self._keyframes[before - 1] if before else (times[0], 0)
            if not whole and order.get(key_pts, 0) - reached > _FRAMES_WORTH_A_SEEK:
                frames = self._decode(start, needed)
            frame = _first_from(pts, frames)
            if not whole and (frame is None or frame.pts != pts or frame.is_corrupt):
                # Some streams need more than the packets since their last keyframe.
                frames, whole = self._decode(0), True
                frame = _first_from(pts, frames)
            if frame is None or frame.pts != pts:
                raise self._damaged(target)
            reached = target
            yield target, frame

    def _decode(self, start: int, needed: set[int] | None = None) -> Iterator[av.VideoFrame]:
        """Frames in presentation order, from the packet at position `start` in decoding order or earlier.

        Given the times that are `needed`, frames that are neither needed nor referenced are left out.
        """
        marked = self._stream.codec_context.codec.canonical_name in _MARKS_UNREFERENCED
        for packet in self._demux(start):
            unneeded = marked and needed is not None and packet.size and packet.pts not in needed
            self._stream.codec_context.skip_frame = "NONREF" if unneeded else "DEFAULT"
            try:
                yield from packet.decode()
            except DECODER_ERRORS:
                self._errors += 1

    def _demux(self, start: int) -> Iterator[av.Packet]:
        """Packets from position `start` or an earlier one on, and at the end the one that flushes."""
        packet, packets = self._seek(start)
        if packet is None:
            self.close()
            self._open()
            packets = self._container.demux(self._stream)
        else:
            yield packet
        try:
            yield from packets
        except DECODER_ERRORS:
            self._errors += 1

    def _seek(self, start: int) -> tuple[av.Packet | None, Iterator[av.Packet]]:
        """The packet at `start` or an earlier one, and those after it; None if seeking leads elsewhere."""
        packets = self._container.demux(self._stream)
        if self._times is None or not self._packets:
            return None, packets
        try:
            self._container.seek(self._packets[start].pts, stream=self._stream, backward=True)
            packet = next(packets, None)
        except DECODER_ERRORS:
            return None, packets
        arrived = packet is not None and self._positions.get((packet.pts, packet.dts), start + 1) <= start
        return (packet if arrived else None), packets

    def _damaged(self, index: int) -> VideoError:
        decoded, count = len(self.scan.timestamps), len(self.timestamps)
        if not decoded:
            return VideoError(self.path, "no-frames", "nothing in it decodes")
        return VideoError(self.path, "damaged", f"frame {index} does not decode ({decoded} of {count} do)")


def _first_from(pts: int, frames: Iterator[av.VideoFrame]) -> av.VideoFrame | None:
    return next((frame for frame in frames if frame.pts is not None and frame.pts >= pts), None)


def _why_not_opened(path: Path, error: Exception) -> tuple[str, str]:
    """The reason and the detail of a file that does not open."""
    if unreadable := why_unread(path):
        return unreadable
    with path.open("rb") as file:
        return _why_not_decoded(file.read(200), error)


def _why_not_decoded(head: bytes, error: Exception) -> tuple[str, str]:
    """The reason and the detail of a file that begins with these bytes."""
    if not head:
        return "empty", "the file has 0 bytes"
    if head.startswith(b"version https://git-lfs"):
        return "pointer", "this is a git-LFS pointer; run `git lfs pull` to get the video"
    return "not-a-video", f"the decoder says: {getattr(error, 'strerror', None) or error}"


def fit_size(height: int, width: int, short_side: int | None, *, even: bool = False) -> tuple[int, int]:
    """Height and width with a short side of at most `short_side`, the shape kept; never larger."""
    scale = min(1.0, short_side / min(height, width)) if short_side else 1.0
    step = 2 if even else 1
    return max(step, step * round(height * scale / step)), max(step, step * round(width * scale / step))


@contextmanager
def open_video(path: str | os.PathLike[str]) -> Iterator[Video]:
    """Open the best video stream of a file.

    Raises VideoError with the reason where that cannot be done.
    """
    video = Video(os.fspath(path))
    try:
        yield video
    finally:
        video.close()
