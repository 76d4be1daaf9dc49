"""Reading video files; with the other modules called video*, all that knows the decoder.

Frames are found by presentation timestamp, never by arithmetic on a frame rate, so variable frame rates,
edit lists and several streams come out right. Where packets prove the order of the frames they are read
without decoding, and reading starts at the keyframe before the wanted frame; elsewhere everything is decoded
once, and frames are found by their place in what came out. See docs/reading-videos.md.
"""

import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from operator import itemgetter
from typing import NamedTuple

import av
import numpy as np
from jaxtyping import Float64, UInt8

from videomae_jax.data.cropping import Frame
from videomae_jax.data.video.frames import (
    DECODER_ERRORS,
    Converters,
    DecodedFrame,
    Orientation,
    VideoError,
    orientation,
)
from videomae_jax.data.video.opening import decoder_limits, open_stream
from videomae_jax.data.video.packets import Identity, Packets, read_packets
from videomae_jax.data.video.times import rising_times

MAX_PIXELS = 8192 * 8192
"""Of a frame, where nothing else is said: 8K video has half as many, and one in RGB takes 200 MB."""
# Codecs whose frames say that no other frame needs them, so that unwanted ones need no decoding.
_MARKS_UNREFERENCED = frozenset({"h264", "hevc", "mpeg4"})
# Codecs that can tell how to turn a picture in the picture itself.
_TURNS_IN_PICTURES = frozenset({"mjpeg"})
# Codecs that give a picture before those that it needs, so that damage there is seen too late. Told to, they
# give nothing instead of patching up, and then everything is decoded once more in the ordinary way.
_SHOWS_BEFORE_NEEDED = frozenset({"h264", "hevc"})
_STRICT = {"err_detect": "explode"}
# Jumping to a keyframe flushes the decoder, which costs about as much as decoding this many frames.
_FRAMES_WORTH_A_SEEK = 8


@dataclass(frozen=True)
class Scan:
    """What a full decode of a video found."""

    timestamps: Float64[np.ndarray, " n"]
    """Seconds, one for each frame that decodes."""
    errors: int
    """Packets that the decoder refused."""
    concealed: int
    """Frames that the decoder gave, but marked as damaged."""
    orientation: Orientation
    """Of the first frame."""
    tells_times: bool
    """The times are those of the file, which rise from frame to frame."""


class StreamedFrame(NamedTuple):
    """One frame of a pass over a whole video."""

    position: int
    """In the video's `timestamps`."""
    image: UInt8[np.ndarray, "h w 3"]
    concealed: bool
    """The decoder gave it, but marked it as damaged."""


class Video:
    """An open video file, or its bytes `content`, where `path` only names it in errors; see `open_video`."""

    def __init__(self, path: str, content: bytes | None = None, max_pixels: int = MAX_PIXELS) -> None:
        self.path = path
        self._content, self._max_pixels = content, max_pixels
        self._converters = Converters(path)
        self._errors, self._sound, self._strict, self._furthest = 0, True, False, -1
        self._open()
        # As stored, before rotation.
        self.height: int = self._stream.codec_context.height
        self.width: int = self._stream.codec_context.width
        self._check_size(self.height, self.width)

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
    def orientation(self) -> Orientation:
        """How frames are turned and mirrored to be upright, which the first one decides for all."""
        if self._times is None:
            return self.scan.orientation
        for frame in self._decode(0):
            return orientation(frame)
        raise VideoError(self.path, "no-frames", "nothing in it decodes")

    @property
    def rotation(self) -> int:
        """Degrees counter-clockwise (-90, 0, 90 or 180) by which frames are turned, once mirrored."""
        return self.orientation.degrees

    def frames(self, indices: Sequence[int] | np.ndarray) -> UInt8[np.ndarray, "n h w 3"]:
        """RGB frames at these positions in `timestamps`, in any order, repeats allowed, upright.

        Raises VideoError when a wanted frame does not decode: another frame is never given in its place.
        """
        wanted = np.array([int(index) for index in indices], int)
        found: UInt8[np.ndarray, "n h w 3"] | None = None
        for index, image in self.read(wanted.tolist()):
            if found is None:
                found = np.empty((len(wanted), *image.shape), np.uint8)
            found[wanted == index] = image
        if found is None:
            shape = (self.height, self.width)[:: -1 if self.orientation.turns % 2 else 1]
            return np.empty((0, *shape, 3), np.uint8)
        return found

    def read(self, indices: Sequence[int]) -> Iterator[tuple[int, UInt8[np.ndarray, "h w 3"]]]:
        """Yield (index, RGB frame) for each different index, rising, with one frame in memory at a time."""
        return ((index, frame.rgb()) for index, frame in self.read_frames(indices))

    def read_frames(self, indices: Sequence[int]) -> Iterator[tuple[int, Frame]]:
        """As `read`, but frames are not in RGB yet, so that a part of one can be taken for less."""
        wanted = self.check_indices(indices)
        find = self._find_by_order if self._times is None else self._find_by_time
        # Where only the container tells, any frame says the same; looking at the first would cost.
        turned = self.orientation if wanted and self._turns_in_pictures else None
        size = None
        for index, frame in find(wanted):
            size = self._check_frame(index, frame, size)
            turned = turned or orientation(frame)
            yield index, DecodedFrame(frame, self._converters, turned)

    def check_indices(self, indices: Sequence[int]) -> list[int]:
        """Each different index, rising; raises VideoError or IndexError where there are no such frames."""
        wanted, count = sorted(set(indices)), len(self.timestamps)
        if not count:
            raise VideoError(self.path, "no-frames", "nothing in it decodes")
        if wanted and (wanted[0] < 0 or wanted[-1] >= count):
            outside = wanted[0] if wanted[0] < 0 else wanted[-1]
            raise IndexError(f"{self.path}: frame {outside} asked for, but it has frames 0 to {count - 1}")
        return wanted

    def stream(self, short_side: int | None = None, *, even: bool = False) -> Iterator[StreamedFrame]:
        """Every frame that decodes, in one pass, upright, at most `short_side` pixels on its short side.

        `even` rounds sizes to even numbers. Frames that do not decode are left out.
        """
        times = self._times
        order = {pts: index for index, pts in enumerate(times or ())}
        turned, size, last = None, None, -1
        for count, frame in enumerate(self._decode(0)):
            turned = turned or orientation(frame)
            index = count if times is None else order.get(-1 if frame.pts is None else frame.pts, -1)
            if index <= last:  # Not a frame of `timestamps`, or a damaged file that goes back in time.
                continue
            last = index
            size = self._check_frame(index, frame, size)
            wanted = fit_size(frame.height, frame.width, short_side, even=even)
            image = DecodedFrame(frame, self._converters, turned).rgb(wanted)
            yield StreamedFrame(index, image, frame.is_corrupt)

    @cached_property
    def scan(self) -> Scan:
        """What comes out when everything is decoded."""
        times, concealed, first = [], 0, None
        self._errors, unit = 0, float(self._stream.time_base)
        for frame in self._decode(0):
            times.append(np.nan if frame.pts is None else frame.pts * unit)
            concealed += frame.is_corrupt
            first = first or orientation(frame)
        own = np.array(times, np.float64)
        decoded = [dts * unit for dts in self._packets.dts if dts is not None]
        rate = float(self._stream.guessed_rate or 25)
        tells_times = bool((np.diff(own) > 0).all() and not np.isnan(own).any())
        timestamps = own if tells_times else rising_times(own, np.array(decoded, np.float64), rate)
        return Scan(timestamps, self._errors, concealed, first or Orientation(), tells_times)

    @cached_property
    def _packets(self) -> Packets:
        return read_packets(self._container, self._stream)

    @cached_property
    def _keyframes(self) -> list[tuple[int, int]]:
        """Time and position in decoding order of each packet where decoding can start, rising."""
        times = self._packets.pts
        return sorted((pts, n) for n in self._packets.starts if (pts := times[n]) is not None)

    @property
    def _times(self) -> list[int] | None:
        """Presentation times of the frames in units of the stream; None where packets do not prove them."""
        return self._packets.times

    @property
    def _turns_in_pictures(self) -> bool:
        packets = self._packets
        return self._times is None or packets.units.turns or packets.codec in _TURNS_IN_PICTURES

    def _open(self) -> None:
        self._container, self._stream = open_stream(self.path, self._content, self._max_pixels)

    def _check_size(self, height: int, width: int) -> None:
        if height * width > self._max_pixels:
            detail = f"frames of {width}x{height} have more than {self._max_pixels} pixels"
            raise VideoError(self.path, "too-large", detail)

    def _check_frame(self, index: int, frame: av.VideoFrame, first: str | None) -> str:
        """The size of the first frame as text; VideoError where this one has another, or is too large."""
        size = f"{frame.width}x{frame.height}"
        if size != (first or size):
            raise VideoError(self.path, "mixed-sizes", f"frame {index} is {size}, earlier ones {first}")
        if not first:
            self._check_size(frame.height, frame.width)
        return size

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
            if not whole and (frame is None or frame.pts != pts or not self._sound):
                # Something on the way was damaged, or needs more than the packets since its keyframe.
                frames, whole = self._decode(0), True
                frame = _first_from(pts, frames)
            if frame is None or frame.pts != pts:
                raise self._damaged(target)
            reached = target
            yield target, frame

    def _decode(self, start: int, needed: set[int] | None = None) -> Iterator[av.VideoFrame]:
        """Frames in presentation order, from the packet at position `start` in decoding order or earlier.

        Given the times that are `needed`, frames that are neither needed nor referenced are left out.
        `_sound` says whether all that has been decoded was.
        """
        self._sound = True
        marked = self._packets.codec in _MARKS_UNREFERENCED
        # Pictures shown before the one where decoding starts are not asked for from there.
        begin = awaited = self._packets.pts[start] if start else None
        context, width = None, 0
        skips: bool | None = None
        for packet in self._demux(start, strict=needed is not None):
            if context is not self._stream.codec_context:
                context, skips = self._stream.codec_context, None
                width = context.width
                if not context.is_open:
                    context.options = decoder_limits(self._max_pixels) | (_STRICT if self._strict else {})
            unneeded = bool(
                marked
                and needed is not None
                and packet.size
                and packet.pts not in needed
                and self._packets.is_unreferenced(self._packets.positions.get(_identity(packet), 0))
            )
            if unneeded is not skips:
                context.skip_frame, skips = "NONREF" if unneeded else "DEFAULT", unneeded
            try:
                for frame in packet.decode():
                    if begin is None or frame.pts is None or frame.pts >= begin:
                        # The picture where decoding starts has to come first.
                        self._sound &= not frame.is_corrupt and awaited in (None, frame.pts)
                        awaited = None
                    yield frame
            except (*DECODER_ERRORS, ValueError) as error:  # The latter from a decoder that did not open.
                if width and not context.width:  # The decoder refuses the size that the picture tells.
                    detail = f"a picture in it has more than {self._max_pixels} pixels"
                    raise VideoError(self.path, "too-large", detail) from error
                self._errors += 1
                self._sound = False

    def _demux(self, start: int, *, strict: bool) -> Iterator[av.Packet]:
        """Packets from position `start` or an earlier one on, and at the end the one that flushes.

        `strict`: what is damaged is not patched up, where that would be seen too late.
        """
        strict &= self._packets.codec in _SHOWS_BEFORE_NEEDED
        changes, self._strict = strict != self._strict, strict
        if start <= self._furthest or (changes and self._stream.codec_context.is_open):
            self._reopen()  # What a decoder was told by later packets outlives a jump back.
        packet, packets = self._seek(start)
        expected: Iterator[Identity] | None = None
        position = 0
        if packet is None:
            self._reopen()
            packets = self._container.demux(self._stream)
        else:
            position = self._furthest = self._packets.positions[_identity(packet)]
            expected = islice(self._packets.identities, position + 1, None)
            yield packet
        try:
            for packet in packets:
                # Spelled out, as a function's call for each packet costs.
                if expected and packet.size and (packet.pts, packet.dts, packet.pos) != next(expected, None):
                    self._sound = False  # After the jump the file reads differently.
                position += 1
                if position > self._furthest:
                    self._furthest = position
                yield packet
        except DECODER_ERRORS:
            self._errors += 1

    def _reopen(self) -> None:
        self.close()
        self._open()
        self._furthest = -1

    def _seek(self, start: int) -> tuple[av.Packet | None, Iterator[av.Packet]]:
        """The packet at `start` or an earlier start; None if seeking leads elsewhere."""
        packets = self._container.demux(self._stream)
        if self._times is None or not self._packets.pts:
            return None, packets
        try:
            self._container.seek(self._packets.pts[start], stream=self._stream, backward=True)
            packet = next(packets, None)
        except DECODER_ERRORS:
            return None, packets
        arrived = (
            self._packets.positions.get(_identity(packet), start + 1) if packet is not None else start + 1
        )
        return (packet if arrived <= start and self._packets.is_start(arrived) else None), packets

    def _damaged(self, index: int) -> VideoError:
        decoded, count = len(self.scan.timestamps), len(self.timestamps)
        if not decoded:
            return VideoError(self.path, "no-frames", "nothing in it decodes")
        return VideoError(self.path, "damaged", f"frame {index} does not decode ({decoded} of {count} do)")


def _identity(packet: av.Packet) -> Identity:
    return packet.pts, packet.dts, packet.pos


def _first_from(pts: int, frames: Iterator[av.VideoFrame]) -> av.VideoFrame | None:
    return next((frame for frame in frames if frame.pts is not None and frame.pts >= pts), None)


def fit_size(height: int, width: int, short_side: int | None, *, even: bool = False) -> tuple[int, int]:
    """Height and width with a short side of at most `short_side`, the shape kept; never larger."""
    scale = min(1.0, short_side / min(height, width)) if short_side else 1.0
    step = 2 if even else 1
    return max(step, step * round(height * scale / step)), max(step, step * round(width * scale / step))


@contextmanager
def open_video(path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS) -> Iterator[Video]:
    """Open the best video stream of a file, of frames with at most `max_pixels`.

    Raises VideoError with the reason where that cannot be done.
    """
    video = Video(os.fspath(path), max_pixels=max_pixels)
    try:
        yield video
    finally:
        video.close()
