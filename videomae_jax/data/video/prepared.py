"""Videos as `encode_video` writes them, decoded from the table of their mp4 file without a pass over it.

Their pictures are shown when they are decoded. Whatever is otherwise, or damaged, is left to `Video`.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple, cast

import av
import numpy as np
from jaxtyping import Int64

from videomae_jax.data.video.frames import DECODER_ERRORS, Converters, DecodedFrame, orientation
from videomae_jax.data.video.opening import decoder_limits
from videomae_jax.data.video.passes import STRICT

_SAMPLE_ENTRY = 78
"""Bytes of the description of H.264 before what it contains."""
_EXPECTED = frozenset({b"avcC", b"pasp", b"btrt"})
_UPRIGHT = np.array([[1 << 16, 0, 0], [0, 1 << 16, 0], [0, 0, 1 << 30]], ">i4").tobytes()


Span = tuple[int, int]
"""First byte and the one after the last."""


class Table(NamedTuple):
    """What an mp4 file says of its pictures, in the order of decoding."""

    parameters: bytes
    height: int
    width: int
    places: list[int]
    sizes: list[int]
    keyframes: list[int]


def read_table(content: bytes, frames: int, max_pixels: int) -> Table | None:
    """The table of a file with so many frames of at most so many pixels; None where it is not as prepared."""
    try:
        table = _read_table(content)
    except (KeyError, ValueError, IndexError):
        return None
    fits = len(table.sizes) == frames and table.height * table.width <= max_pixels
    return table if fits else None


class PreparedVideo:
    """One such video, for reading frames by their positions."""

    def __init__(self, path: str, content: bytes, table: Table, max_pixels: int) -> None:
        self._content, self._table, self._max_pixels = content, table, max_pixels
        self._converters = Converters(path)

    def read_frames(self, wanted: Sequence[int]) -> Iterator[tuple[int, DecodedFrame]]:
        """Yield (position, frame) for rising positions, and end early where a frame is not as expected."""
        context = self._open()
        reached, turned = -1, None
        for target in wanted:
            start = self._table.keyframes[bisect_right(self._table.keyframes, target) - 1]
            if reached < start - 1:
                if reached >= 0:
                    context.flush_buffers()
                reached = start - 1
            frame = None
            for position in range(reached + 1, target + 1):
                frame = self._decode(context, position)
                if frame is None:
                    return
            assert frame is not None
            reached, turned = target, turned or orientation(frame)
            yield target, DecodedFrame(frame, self._converters, turned)

    def _open(self) -> av.VideoCodecContext:
        context = cast(av.VideoCodecContext, av.CodecContext.create("h264", "r"))
        context.extradata, context.thread_count = self._table.parameters, 1
        context.options = decoder_limits(self._max_pixels) | STRICT
        return context

    def _decode(self, context: av.VideoCodecContext, position: int) -> av.VideoFrame | None:
        """The one frame of a packet; None where something else comes of it."""
        table = self._table
        place = table.places[position]
        packet = av.Packet(self._content[place : place + table.sizes[position]])
        packet.pts = packet.dts = position
        try:
            frames = context.decode(packet)
        except (*DECODER_ERRORS, ValueError):
            return None
        if len(frames) != 1 or frames[0].pts != position or frames[0].is_corrupt:
            return None
        same_size = (frames[0].height, frames[0].width) == (table.height, table.width)
        return frames[0] if same_size else None


def _read_table(content: bytes) -> Table:
    """As `read_table`; raises KeyError, ValueError or IndexError where something is missing or unexpected."""
    track = _inside(content, (0, len(content)), b"moov", b"trak")
    header, boxes = _inside(content, track, b"tkhd"), _boxes(content, track)
    if content[header[1] - 44 : header[1] - 8] != _UPRIGHT:
        raise ValueError("it is to be turned")
    if b"edts" in boxes:
        edits = _numbers(content, _inside(content, track, b"edts", b"elst"), 4).tolist()
        if len(edits) != 4 or edits[0] != 1 or edits[2] != 0:
            raise ValueError("a part of it is not shown")
    boxes = _boxes(content, _inside(content, track, b"mdia", b"minf", b"stbl"))
    if b"ctts" in boxes:
        raise ValueError("pictures are shown in another order")
    parameters, height, width = _description(content, boxes[b"stsd"])
    same_size, _, *sizes = _numbers(content, boxes[b"stsz"], 4).tolist()
    if same_size or not sizes:
        raise ValueError("pictures are of one size, or there are none")
    places = _places(content, boxes, np.array(sizes))
    keyframes = (_numbers(content, boxes[b"stss"], 8) - 1).tolist()
    if keyframes[0] or len(places) != len(sizes) or places[-1] + sizes[-1] > len(content):
        raise ValueError("it is cut short, or begins in the middle")
    return Table(parameters, height, width, places.tolist(), sizes, keyframes)


def _description(content: bytes, span: Span) -> tuple[bytes, int, int]:
    """The parameters for the decoder, and height and width; all else in a file tells the same or nothing."""
    start, end = _inside(content, (span[0] + 8, span[1]), b"avc1")
    boxes = _boxes(content, (start + _SAMPLE_ENTRY, end))
    if not _EXPECTED.issuperset(boxes):
        raise ValueError("more is said of the pictures than is read here")
    width, height = np.frombuffer(content[start + 24 : start + 28], ">u2").tolist()
    return content[slice(*boxes[b"avcC"])], height, width


def _places(
    content: bytes, boxes: dict[bytes, Span], sizes: Int64[np.ndarray, " n"]
) -> Int64[np.ndarray, " n"]:
    """Where each picture begins: they follow each other in chunks."""
    chunks = _numbers(content, boxes[b"stco"], 8)
    first, count, _ = _numbers(content, boxes[b"stsc"], 8).reshape(-1, 3).T
    counts = np.repeat(count, np.diff(first, append=len(chunks) + 1))
    begins, before = np.cumsum(counts) - counts, np.cumsum(sizes) - sizes
    return np.repeat(chunks - before[begins], counts) + before


def _inside(content: bytes, span: Span, *kinds: bytes) -> Span:
    """What the only box of a kind holds, of those in the only one of the kind before, and so on."""
    for kind in kinds:
        span = _boxes(content, span)[kind]
    return span


def _boxes(content: bytes, span: Span) -> dict[bytes, Span]:
    """What the boxes in a part of the file hold; raises ValueError where there are two of a kind."""
    found: dict[bytes, Span] = {}
    position, end = span
    while position < end:
        size, kind = (
            int.from_bytes(content[position : position + 4], "big"),
            content[position + 4 : position + 8],
        )
        if size < 8 or position + size > end or kind in found:
            raise ValueError("boxes are not as expected")
        found[kind] = position + 8, position + size
        position += size
    return found


def _numbers(content: bytes, span: Span, skipped: int) -> Int64[np.ndarray, " n"]:
    """Numbers of 32 bits, from so many bytes on."""
    return np.frombuffer(content, ">u4", (span[1] - span[0] - skipped) // 4, span[0] + skipped).astype(
        np.int64
    )
