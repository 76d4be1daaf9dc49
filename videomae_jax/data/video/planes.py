"""The planes of frames as decoders give them, brightness and two of colour at half the size (YUV 4:2:0), and
how they become RGB."""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple, cast

import av
import numpy as np
from jaxtyping import UInt8

from videomae_jax.data.cropping import Box

# Formats with planes of brightness, blue and red, the last two at half the height and width.
HALVED_COLOUR = frozenset({"yuv420p", "yuvj420p"})
_WIDE_RANGE = (frozenset({"yuvj420p"}), 2)
# The weights of red and blue in brightness by FFmpeg's number of a colour matrix; where a video does not say
# (2), the converter takes BT.601.
_BT601 = 0.299, 0.114
_WEIGHTS = {
    1: (0.2126, 0.0722),
    2: _BT601,
    4: (0.30, 0.11),
    5: _BT601,
    6: _BT601,
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
}

Colour = tuple[float, float, float, float, float, float]
"""Black, the gain of brightness, and what a unit of colour adds: red's to red and green, blue's to green and
blue."""
Plane = UInt8[np.ndarray, "h w"]


class Planes(NamedTuple):
    """Of a picture or a part of it; those of colour are rounded up to half its size."""

    brightness: Plane
    blue: Plane
    red: Plane
    colour: Colour

    def each(self, change: Callable[[Plane], Plane]) -> "Planes":
        """With every plane changed."""
        return Planes(change(self.brightness), change(self.blue), change(self.red), self.colour)

    def part(self, box: Box) -> "Planes":
        """A box that begins at even places, as a view."""
        left, top, right, bottom = box
        half = slice(top // 2, -(-bottom // 2)), slice(left // 2, -(-right // 2))
        return Planes(self.brightness[top:bottom, left:right], self.blue[half], self.red[half], self.colour)


def planes_of(frame: av.VideoFrame) -> Planes | None:
    """The planes of a frame as it is stored, as views; None where it has others or unknown colours."""
    weights, form = _WEIGHTS.get(int(frame.colorspace)), frame.format.name
    if form not in HALVED_COLOUR or weights is None:
        return None
    formats, full = _WIDE_RANGE
    wide = form in formats or int(frame.color_range) == full
    height, width = frame.height, frame.width
    rows, columns = -(-height // 2), -(-width // 2)
    brightness, blue, red = map(pixels, frame.planes)
    return Planes(
        brightness[:height, :width],
        blue[:rows, :columns],
        red[:rows, :columns],
        _colour(*weights, wide=wide),
    )


def frame_of(planes: Planes, like: av.VideoFrame | None = None) -> av.VideoFrame:
    """A frame of such planes, with the format and colours of another."""
    height, width = planes.brightness.shape
    frame = av.VideoFrame(width, height, like.format.name if like else "yuv420p")
    if like:
        frame.colorspace, frame.color_range = like.colorspace, like.color_range
    for source, target in zip(planes[:3], frame.planes, strict=True):
        pixels(target)[: source.shape[0], : source.shape[1]] = source
    return frame


def pixels(plane: av.video.plane.VideoPlane) -> UInt8[np.ndarray, "h padded_w"]:
    return np.frombuffer(cast(Any, plane), np.uint8).reshape(-1, plane.line_size)


@cache
def _colour(red: float, blue: float, *, wide: bool) -> Colour:
    green = 1 - red - blue
    of_red, of_blue = 2 * (1 - red), 2 * (1 - blue)
    unit = 1.0 if wide else 255 / 224
    return (
        0.0 if wide else 16.0,
        1.0 if wide else 255 / 219,
        unit * of_red,
        -unit * of_red * red / green,
        -unit * of_blue * blue / green,
        unit * of_blue,
    )
