"""One decoded frame, and its ways into RGB: whole, or a part of it cropped, scaled and converted at once."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from jaxtyping import UInt8

from videomae_jax.data.cropping import Box, Size, crop_resized
from videomae_jax.data.video.planes import Planes, frame_of, planes_of
from videomae_jax.errors import printable

# Without the second flag neighbouring pixels share a colour, and rounding leaves a tint of two levels.
_SCALING = Interpolation.BILINEAR | Interpolation.FULL_CHR_H_INT
# Rounding in a display matrix by right angles, as a part of the entries that are not 0.
_NO_ANGLE = 0.01
DECODER_ERRORS = (av.error.FFmpegError, EOFError)
"""What the decoder raises for damaged files."""


class VideoError(Exception):
    """A video, or the wanted part of it, that cannot be read: `path`, a fixed word `reason`, and `detail`.

    Reasons: missing, not-a-file, unreadable, empty, pointer, not-a-video, no-video-stream, still-image,
    no-decoder, no-frames, damaged, mixed-sizes, mixed-frames, too-large, unknown-colours, needs-pyav,
    segment-outside, crashes-decoder, not-encodable; docs/reading-videos.md says what each means.
    """

    def __init__(self, path: str, reason: str, detail: str) -> None:
        super().__init__(path, reason, detail)
        self.path, self.reason, self.detail = path, reason, detail

    def __str__(self) -> str:
        return printable(f"{self.path}: {self.reason}: {self.detail}")


@dataclass(frozen=True)
class Orientation:
    """How a stored picture becomes an upright one."""

    mirrored: bool = False
    """Left to right, before turning."""
    turns: int = 0
    """By right angles, counter-clockwise."""
    ignored_degrees: int = 0
    """A turn counter-clockwise by another angle, which is not made."""

    def upright(self, image: UInt8[np.ndarray, "h w *c"]) -> UInt8[np.ndarray, "upright_h upright_w *c"]:
        """A stored picture, or a plane of it, turned."""
        return np.rot90(image[:, ::-1] if self.mirrored else image, self.turns)

    @property
    def note(self) -> str:
        """What a user should know; empty for pictures that are stored upright."""
        if self.ignored_degrees:
            return f"rotated by {self.ignored_degrees} degrees, which is not undone: only right angles are"
        if self.mirrored:
            kinds = "mirrored left to right", "transposed", "mirrored top to bottom", "transposed across"
            return f"{kinds[self.turns]}, which is undone on reading"
        return f"rotated by {self.degrees} degrees, which is undone on reading" if self.turns else ""

    @property
    def degrees(self) -> int:
        """The turn by right angles: -90, 0, 90 or 180."""
        return -90 if self.turns == 3 else 90 * self.turns


_UPRIGHT = Orientation()


class Converters:
    """The decoder's converters for the frames of one video; each is set up once and then used again."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._by_size: dict[tuple[int | str, ...], VideoReformatter] = defaultdict(VideoReformatter)

    def to_rgb(
        self, frame: av.VideoFrame, height: int, width: int, scaling: Interpolation
    ) -> UInt8[np.ndarray, "height width 3"]:
        """A frame as it is stored, scaled where the size differs."""
        return self._convert(frame, height, width, scaling, "rgb24").to_ndarray()

    def to_planes(self, source: Planes | UInt8[np.ndarray, "h w 3"], height: int, width: int) -> Planes:
        """Planes or RGB as planes of a size."""
        if isinstance(source, Planes):
            frame = frame_of(source)
        else:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(source), format="rgb24")
        planes = planes_of(self._convert(frame, height, width, _SCALING, "yuv420p"))
        assert planes, "the converter keeps a rule for colours, or takes BT.601"
        return planes if not isinstance(source, Planes) else planes._replace(colour=source.colour)

    def _convert(
        self, frame: av.VideoFrame, height: int, width: int, scaling: Interpolation, form: str
    ) -> av.VideoFrame:
        converter = self._by_size[frame.height, frame.width, height, width, form, frame.format.name]
        used = None if (height, width) == (frame.height, frame.width) else scaling
        try:
            # threads=1: the converter's own threads cost up to eight times the decoding (PyAV issue 2200).
            return converter.reformat(frame, width, height, form, interpolation=used, threads=1)
        except (*DECODER_ERRORS, ValueError) as error:
            colours = f"{frame.format.name}, colour matrix {frame.colorspace}"
            detail = f"its colours ({colours}) cannot be converted to RGB: {error}"
            raise VideoError(self._path, "unknown-colours", detail) from error


class DecodedFrame:
    """A frame as the decoder gave it; sizes and boxes are those of the upright picture."""

    def __init__(
        self, frame: av.VideoFrame, converters: Converters, orientation: Orientation = _UPRIGHT
    ) -> None:
        self._frame, self._converters, self._orientation = frame, converters, orientation

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        height, width = self._frame.height, self._frame.width
        return (width, height) if self._orientation.turns % 2 else (height, width)

    def rgb(self, size: tuple[int, int] | None = None) -> UInt8[np.ndarray, "h w 3"]:
        """The whole frame, scaled to `size` (height and width before turning) in the same step."""
        height, width = size or (self._frame.height, self._frame.width)
        image = self._converters.to_rgb(self._frame, height, width, Interpolation.BICUBIC)
        return self._orientation.upright(image)

    @property
    def crops_from_even_places(self) -> bool:
        """Whether `crop` moves boxes."""
        return self._orientation == _UPRIGHT and planes_of(self._frame) is not None

    def crop(self, box: Box, size: Size) -> UInt8[np.ndarray, "h w 3"]:
        """A box scaled to `size`, as `crop_resized` of the whole frame but for about one grey level.

        Only the box is converted, from the planes of a frame that is stored upright with halved colour; there
        the box begins at even places, so it may move by a pixel.
        """
        planes = planes_of(self._frame)
        if planes is None or self._orientation != _UPRIGHT:
            return crop_resized(self.rgb(), box, size)
        part = frame_of(planes.part(even(box)), self._frame)
        return self._converters.to_rgb(part, *size, _SCALING)

    def planes(self, box: Box, size: tuple[int, int]) -> Planes:
        """A box that begins at even places as planes, scaled to `size` (height and width) where that differs.

        Views where a frame has such planes, and nothing is scaled; a frame of other ones is converted.
        """
        planes = planes_of(self._frame)
        odd = self._frame.height % 2 or self._frame.width % 2  # Turned, colours would begin at other places.
        if planes is None or (odd and self._orientation != _UPRIGHT):
            return RgbFrame(self.rgb(), self._converters).planes(box, size)
        if self._orientation != _UPRIGHT:
            planes = planes.each(self._orientation.upright)
        part = planes.part(box)
        return part if part.brightness.shape == size else self._converters.to_planes(part, *size)


@dataclass(frozen=True)
class RgbFrame:
    """A frame that is in RGB already; see `DecodedFrame`."""

    image: UInt8[np.ndarray, "h w 3"]
    converters: Converters

    @property
    def shape(self) -> tuple[int, int]:
        height, width = self.image.shape[:2]
        return height, width

    @property
    def crops_from_even_places(self) -> bool:
        return False

    def rgb(self) -> UInt8[np.ndarray, "h w 3"]:
        return self.image

    def crop(self, box: Box, size: Size) -> UInt8[np.ndarray, "h w 3"]:
        return crop_resized(self.image, box, size)

    def planes(self, box: Box, size: tuple[int, int]) -> Planes:
        left, top, right, bottom = box
        return self.converters.to_planes(self.image[top:bottom, left:right], *size)


Frame = DecodedFrame | RgbFrame


def even(box: Box) -> Box:
    """A box moved to even places, where there is a value of colour."""
    left, top, right, bottom = box
    return left - left % 2, top - top % 2, right - left % 2, bottom - top % 2


def orientation(frame: av.VideoFrame) -> Orientation:
    """What the frame's display matrix says: one of the eight ways of right angles, or an angle to ignore."""
    side_data: Any = frame.side_data
    if "DISPLAYMATRIX" not in side_data:
        return _UPRIGHT
    matrix = np.frombuffer(side_data["DISPLAYMATRIX"], np.int32)[[0, 1, 3, 4]].astype(float)
    a, b, c, d = matrix if matrix.any() else (1, 0, 0, 1)
    mirrored = a * d < b * c
    if mirrored:
        a, b = -a, -b
    degrees = np.degrees(np.arctan2(c - b, a + d))
    straight, crossed = np.abs((a, d)), np.abs((b, c))
    if crossed.max() > _NO_ANGLE * straight.min() and straight.max() > _NO_ANGLE * crossed.min():
        return Orientation(ignored_degrees=round(degrees))
    return Orientation(bool(mirrored), round(degrees / 90) % 4)
