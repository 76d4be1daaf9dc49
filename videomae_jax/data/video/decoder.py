"""Reading video files: the frames at given positions, or every frame in one pass.

Frames are found by presentation timestamp, never by arithmetic on a frame rate, so variable frame rates,
edit lists and several streams come out right. Where packets prove the order of the frames they are read
without decoding, and reading starts at the keyframe before the wanted frame; elsewhere everything is decoded
once, and frames are found by their place in what came out. See docs/reading-videos.md.
"""

import os
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from typing import NamedTuple

import av
import numpy as np
from jaxtyping import Float64, UInt8

from videomae_jax.data.video.frames import (
    Converters,
    DecodedFrame,
    Frame,
    Orientation,
    VideoError,
    orientation,
)
from videomae_jax.data.video.passes import Passes
from videomae_jax.data.video.times import rising_times

MAX_PIXELS = 8192 * 8192
"""Of a frame, where nothing else is said: 8K video has half as many, and one in RGB takes 200 MB."""
# Codecs that can tell how to turn a picture in the picture itself.
_TURNS_IN_PICTURES = frozenset({"mjpeg"})
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
        self._max_pixels = max_pixels
        self._converters = Converters(path)
        self._passes = Passes(path, content, max_pixels)
        # As stored, before rotation.
        self.height: int = self._passes.stream.codec_context.height
        self.width: int = self._passes.stream.codec_context.width
        self._check_size(self.height, self.width)

    def close(self) -> None:
        """Free the decoder's memory; without this it waits for the garbage collector."""
        self._passes.close()

    @property
    def header_frames(self) -> int:
        """The number of frames that the header claims; 0 when it does not say."""
        return self._passes.stream.frames

    @cached_property
    def timestamps(self) -> Float64[np.ndarray, " n"]:
        """Presentation times in seconds, one for each frame that can be asked for, rising."""
        if self._times is None:
            return self.scan.timestamps
        return np.array(self._times, np.float64) * float(self._passes.stream.time_base)

    @cached_property
    def orientation(self) -> Orientation:
        """How frames are turned and mirrored to be upright, which the first one decides for all."""
        if self._times is None:
            return self.scan.orientation
        for frame in self._passes.decode(0):
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
        for count, frame in enumerate(self._passes.decode(0)):
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
        self._passes.errors, unit = 0, float(self._passes.stream.time_base)
        for frame in self._passes.decode(0):
            times.append(np.nan if frame.pts is None else frame.pts * unit)
            concealed += frame.is_corrupt
            first = first or orientation(frame)
        own = np.array(times, np.float64)
        decoded = [dts * unit for dts in self._passes.packets.dts if dts is not None]
        rate = float(self._passes.stream.guessed_rate or 25)
        rise = (np.diff(own) > 0).all() and not np.isnan(own).any()
        timestamps = own if rise else rising_times(own, np.array(decoded, np.float64), rate)
        return Scan(timestamps, self._passes.errors, concealed, first or Orientation())

    @cached_property
    def _keyframes(self) -> list[tuple[int, int]]:
        """Time and position in decoding order of each packet where decoding can start, rising."""
        packets = self._passes.packets
        return sorted((pts, n) for n in packets.starts if (pts := packets.pts[n]) is not None)

    @property
    def _times(self) -> Sequence[int] | None:
        """Presentation times of the frames in units of the stream; None where packets do not prove them."""
        return self._passes.packets.times

    @property
    def _turns_in_pictures(self) -> bool:
        packets = self._passes.packets
        return self._times is None or packets.units.turns or packets.codec in _TURNS_IN_PICTURES

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
        frames = enumerate(self._passes.decode(0))
        for target in wanted:
            found = next((frame for index, frame in frames if index == target), None)
            if found is None:
                raise self._damaged(target)
            yield target, found

    def _find_by_time(self, wanted: list[int]) -> Iterator[tuple[int, av.VideoFrame]]:
        """Frames by presentation time, jumping from keyframe to keyframe where that is worth it."""
        times = self._times
        assert times is not None
        needed = {times[index] for index in wanted}
        frames, reached, whole = self._passes.decode(0, needed), -1, False
        for target in wanted:
            pts = times[target]
            before = bisect_right(self._keyframes, pts, key=itemgetter(0))
            key_pts, start = self._keyframes[before - 1] if before else (times[0], 0)
            if not whole and bisect_left(times, key_pts) - reached > _FRAMES_WORTH_A_SEEK:
                frames = self._passes.decode(start, needed)
            frame = _first_from(pts, frames)
            if not whole and (frame is None or frame.pts != pts or not self._passes.sound):
                # Something on the way was damaged, or needs more than the packets since its keyframe.
                frames, whole = self._passes.decode(0), True
                frame = _first_from(pts, frames)
            if frame is None or frame.pts != pts:
                raise self._damaged(target)
            reached = target
            yield target, frame

    def _damaged(self, index: int) -> VideoError:
        decoded, count = len(self.scan.timestamps), len(self.timestamps)
        if not decoded:
            return VideoError(self.path, "no-frames", "nothing in it decodes")
        return VideoError(self.path, "damaged", f"frame {index} does not decode ({decoded} of {count} do)")


def _first_from(pts: int, frames: Iterator[av.VideoFrame]) -> av.VideoFrame | None:
    return next((frame for frame in frames if frame.pts is not None and frame.pts >= pts), None)


def fit_size(height: int, width: int, short_side: int | None, *, even: bool = False) -> tuple[int, int]:
    """Height and width with a short side of at most `short_side`, the shape kept; never larger."""
    scale = min(1.0, short_side / min(height, width)) if short_side else 1.0
    step = 2 if even else 1
    return max(step, step * round(height * scale / step)), max(step, step * round(width * scale / step))


def open_video(path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS) -> closing[Video]:
    """Open the best video stream of a file, of frames with at most `max_pixels`, for a `with` statement.

    Raises VideoError with the reason where that cannot be done.
    """
    return closing(Video(os.fspath(path), max_pixels=max_pixels))
