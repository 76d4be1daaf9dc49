"""Videos that come as folders of images, one file per frame."""

import io
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from jaxtyping import Float64, UInt8
from PIL import Image

from videomae_jax.data.folders import number_frames
from videomae_jax.data.regular_files import why_not_readable
from videomae_jax.data.video.decoder import MAX_PIXELS, StreamedFrame, fit_size
from videomae_jax.data.video.frames import Converters, Frame, RgbFrame, VideoError

FRAME_RATE = 25.0
"""Frames per second that folders of images are taken to have; only times depend on it."""


class FrameFolder:
    """A folder of images as an open video, its frames in the order of the last number in their names."""

    def __init__(self, folder: str, max_pixels: int = MAX_PIXELS) -> None:
        """Raises VideoError where it holds no images, or several with one number."""
        self.path, self._max_pixels = folder, max_pixels
        numbered = _list_frames(folder)
        self._files = [Path(folder, name) for _, name in numbered]
        self.timestamps: Float64[np.ndarray, " n"] = np.arange(len(numbered)) / FRAME_RATE
        self._positions = {number: position for position, (number, _) in enumerate(numbered)}

    def close(self) -> None:
        """Nothing is open between two frames."""

    def position(self, number: int) -> int:
        """Where the frame with this number in its name stands, and the first where none is asked for (0).

        Raises VideoError where there is no such frame.
        """
        if number and number not in self._positions:
            first, last = min(self._positions), max(self._positions)
            detail = f"the segment starts at the frame number {number}, but frames go from {first} to {last}"
            raise VideoError(self.path, "segment-outside", detail)
        return self._positions[number] if number else 0

    def read(self, indices: Sequence[int]) -> Iterator[tuple[int, UInt8[np.ndarray, "h w 3"]]]:
        """Yield (position, RGB frame) for each different position, rising; raises VideoError."""
        wanted, count = sorted(set(indices)), len(self._files)
        if outside := [index for index in wanted if not 0 <= index < count]:
            raise IndexError(f"{self.path}: frame {outside[0]} asked for, but it has frames 0 to {count - 1}")
        for frame in self.stream(wanted):
            yield frame.position, frame.image

    def read_frames(self, indices: Sequence[int]) -> Iterator[tuple[int, Frame]]:
        """As `read`, in the form that videos give."""
        converters = Converters(self.path)
        return ((index, RgbFrame(image, converters)) for index, image in self.read(indices))

    def stream(
        self, wanted: Sequence[int], short_side: int | None = None, *, even: bool = False
    ) -> Iterator[StreamedFrame]:
        """The frames at these positions, one by one, at most `short_side` pixels on their short side.

        Raises VideoError, as where their sizes differ.
        """
        first = None
        for position in wanted:
            file = self._files[position]
            if unreadable := why_not_readable(file):
                raise VideoError(self.path, unreadable[0], f"{file.name}: {unreadable[1]}")
            decoded = decode_image(file, self.path, file.name, self._max_pixels)
            image = shrink(decoded, short_side, even=even)
            first = first or image.shape
            if image.shape != first:
                size, before = f"{image.shape[1]}x{image.shape[0]}", f"{first[1]}x{first[0]}"
                raise VideoError(self.path, "mixed-sizes", f"{file.name} is {size}, earlier ones {before}")
            yield StreamedFrame(position, image, False)


def _list_frames(folder: str) -> list[tuple[int, str]]:
    """The frames of a video with their numbers, in order; raises VideoError."""
    try:
        numbered = number_frames(folder)
    except OSError as error:
        raise VideoError(folder, "unreadable", str(error.strerror)) from error
    if not numbered:
        raise VideoError(folder, "not-a-file", "it is a folder that holds no image")
    numbers = [number for number, _ in numbered]
    if len(set(numbers)) < len(numbers):
        number, name = next(a for a, b in pairwise(numbered) if a[0] == b[0])
        what = f"the number {number}" if number >= 0 else "no number"
        raise VideoError(folder, "mixed-frames", f"several images have {what} in their names, such as {name}")
    return numbered


def decode_image(file: Path | io.BytesIO, video: str, frame: str, max_pixels: int) -> Image.Image:
    """A frame in RGB; raises VideoError, naming video and frame, where it is damaged or has more pixels."""
    try:
        with Image.open(file) as image:
            if image.height * image.width > max_pixels:
                detail = f"{frame} of {image.width}x{image.height} has more than {max_pixels} pixels"
                raise VideoError(video, "too-large", detail)
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise VideoError(video, "damaged", f"{frame} does not decode: {error}") from error


def shrink(image: Image.Image, short_side: int | None, *, even: bool) -> UInt8[np.ndarray, "h w 3"]:
    """An RGB image with at most `short_side` pixels on its short side; `even` rounds to even numbers."""
    height, width = fit_size(image.height, image.width, short_side, even=even)
    if (image.height, image.width) != (height, width):
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.array(image)
