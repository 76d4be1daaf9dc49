"""The packets of a video stream, read without decoding, and what they prove about its frames."""

from bisect import bisect_left
from collections import abc
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import av

from videomae_jax.data.video.bitstream import (
    H264_IDR,
    Sequence,
    can_start,
    display_order,
    h264_number,
    h264_sequence,
)
from videomae_jax.data.video.frames import DECODER_ERRORS
from videomae_jax.data.video.units import BEGINNING, Units

# Containers that store when a frame is shown apart from when it is decoded.
_STORES_BOTH_TIMES = ("mov", "matroska")
# Codecs with exactly one packet for each frame. VP8, for one, has packets that show nothing, and MPEG-4 may
# hold two frames in one packet and none in the next.
_ONE_PACKET_ONE_FRAME = frozenset({"av1", "h264", "hevc", "vp9"})
# Codecs whose packets, where all are shown when they are decoded, are one frame each in any container.
_NEVER_REORDERED = frozenset({"h263", "mjpeg", "mpeg4"})
_REORDERED = frozenset({"h264", "hevc"})
# An MPEG-4 packet of this size or less says "nothing new" and gives no frame.
_MPEG4_EMPTY_PACKET = 8
_MPEG4_TWO_SIDED = 2
# In place of the number of a picture that starts a new count.
_STARTS_ANEW = -1
# Pictures whose marks are looked at together.
_AT_ONCE = 32

# Whether a picture's mark is right, where that has been found out.
_RIGHT, _WRONG = 1, 2

Identity = tuple[int | None, int | None]
Column = abc.Sequence[int | None]


@dataclass(frozen=True)
class Packets:
    """All packets of a stream that hold anything, in decoding order; times in units of the stream."""

    codec: str
    container: str
    may_reorder: bool
    """By what the decoder has seen of the stream."""
    units: Units
    pts: Column
    dts: Column
    places: Column
    """In the file."""
    keyframes: tuple[bool, ...]
    discarded: tuple[bool, ...]
    corrupt: tuple[bool, ...]
    sizes: tuple[int, ...]
    beginnings: tuple[bytes, ...]

    @cached_property
    def times(self) -> abc.Sequence[int] | None:
        """When each frame is shown, rising, in units of the stream; None where packets do not prove it."""
        times = [pts for pts in self.pts if pts is not None]
        if not times or len(times) < len(self.pts) or any(self.corrupt) or len(set(times)) < len(times):
            return None
        if None in self.places:  # A jump could not be checked: times in raw streams are only counted.
            return None
        if not self._proves_order(times) or self.starts[:1] != [0]:
            return None
        shown = sorted(
            times
            if not any(self.discarded)
            else [pts for pts, discarded in zip(times, self.discarded, strict=True) if not discarded]
        )
        # Pictures that are shown before the first that is decoded may lack what they are predicted from.
        leads = bool(shown) and shown[0] < times[0] and not self.discarded[0]
        return None if leads else shown or None

    @cached_property
    def told_starts(self) -> list[int]:
        """Positions of the packets where decoding can start by the container alone."""
        return [n for n, keyframe in enumerate(self.keyframes) if keyframe]

    @cached_property
    def starts(self) -> list[int]:
        """Positions of the packets where decoding can start, by the container and by the picture itself."""
        told = self.told_starts
        is_told = len(told) < len(self.keyframes)
        return [n for n in told if can_start(self.codec, self._head(n), is_told=is_told)]

    @cached_property
    def by_time(self) -> dict[int | None, int]:
        """The position of each packet by when it is shown, for where `times` are proven."""
        return dict(zip(self.pts, range(len(self.pts)), strict=True))

    def is_start(self, position: int) -> bool:
        """Whether decoding can start at this packet."""
        place = bisect_left(self.starts, position)
        return self.starts[place : place + 1] == [position]

    def identities(self, start: int) -> abc.Iterator[Identity]:
        """When packets from this position on are shown, and where they are: no two share that where `times`
        are proven. Times of decoding are not looked at: after a jump Matroska tells none for a while.
        """
        return zip(self.pts[start:], self.places[start:], strict=True)

    def find(self, identity: Identity, last: int) -> int | None:
        """The position in decoding order of this packet, where that is at most `last`, which it mostly is."""
        if identity == (self.pts[last], self.places[last]):
            return last
        try:
            position = self.pts.index(identity[0], 0, last)
        except ValueError:
            return None
        return position if self.places[position] == identity[1] else None

    def is_marked_right(self, position: int) -> bool:
        """Whether the decoder may take the word of this picture for being needed by others or not.

        Pictures of H.264 are numbered by the references before them, so the next one has the number of one
        that is none: where damage hides a reference, it has a higher one.
        """
        if self.codec != "h264":
            return True
        if not self.marks[position]:
            end = min(position + _AT_ONCE, len(self.pts))
            self.marks[position:end] = self.find_marks(position, end)
        return self.marks[position] == _RIGHT

    @cached_property
    def marks(self) -> bytearray:
        """For each picture of H.264 what `find_marks` says, or 0 where it was not asked yet."""
        return bytearray(len(self.pts))

    def find_marks(self, begin: int, end: int) -> bytes:
        """Whether marks are right, of pictures of H.264 that are decoded one after the other."""
        return bytes(_RIGHT if right else _WRONG for right in self._have_right_marks(begin, end))

    def _have_right_marks(self, begin: int, end: int) -> list[bool]:
        sequence = self._sequence
        if sequence is None:
            return [False] * (end - begin)
        heads = [self._head(n) for n in range(begin, min(end + 1, len(self.sizes)))]
        numbers = [
            (_STARTS_ANEW if head[0] & 31 == H264_IDR else h264_number(head, sequence)) if head else None
            for head in heads
        ]
        return [
            number is not None and (head[0] & 96 > 0 or following in (number, _STARTS_ANEW))
            for head, (number, following) in zip(heads, pairwise([*numbers, _STARTS_ANEW]), strict=True)
        ][: end - begin]

    @cached_property
    def _sequence(self) -> Sequence | None:
        return h264_sequence(self.units.sequences)

    def _head(self, position: int) -> bytes:
        return self.units.head(position, self.beginnings[position])

    def _proves_order(self, times: list[int]) -> bool:
        stores_both = self.container.startswith(_STORES_BOTH_TIMES)
        rises = _rises(times)
        if self.codec in _NEVER_REORDERED:
            return rises and self.pts == self.dts and self._shows_each_packet(copied=stores_both)
        if self.codec in _ONE_PACKET_ONE_FRAME and stores_both:
            return self._agrees(times, rises) if self.codec in _REORDERED else rises
        return False

    def _shows_each_packet(self, *, copied: bool) -> bool:
        if self.codec == "mjpeg":
            # Where some are missing, those of the picture decoded before serve: that depends on the start.
            tables = {self._head(n) for n in range(len(self.sizes))}
            return len(tables) == 1 and tables != {b""}
        if self.codec != "mpeg4":
            return True
        if min(self.sizes) <= _MPEG4_EMPTY_PACKET:
            return False
        # AVI has no times for pictures out of order; where others may have copied its times, pictures tell.
        heads = [self._head(n) for n in range(len(self.sizes))] if copied else []
        return all(len(head) > 4 and head[4] >> 6 != _MPEG4_TWO_SIDED for head in heads)

    def _agrees(self, times: list[int], rises: bool) -> bool:
        """Whether the container's order of pictures is that of H.264 or HEVC itself."""
        if rises and not self.may_reorder and not self.units.change:
            return True
        runs = (times[start:end] for start, end in pairwise([*self.starts, len(times)]))
        if not rises and _is_even(times) and not any(map(_rises, runs)):
            # Times that a writer took over from decoding would rise, and damage would leave a gap.
            return True
        heads = [self._head(n) for n in range(len(times))]
        if not all(heads):
            return False
        order = display_order(self.codec, heads, self.units.sequences, self.units.picture_sets)
        return order is not None and _rises([times[n] for n in order])


def read_packets(container: av.container.InputContainer, stream: av.VideoStream) -> Packets:
    """A pass over the file that decodes nothing; a file that was cut short gives what there is."""
    context = stream.codec_context
    codec = context.codec.canonical_name
    units = Units(codec, context.extradata or b"")
    begins = codec in _NEVER_REORDERED or codec in _ONE_PACKET_ONE_FRAME
    looks_at_all, looks_at_keyframes = codec == "mjpeg", codec in _REORDERED
    rows: list[tuple[int | None, int | None, int | None, bool, bool, bool, int, bytes]] = []
    try:
        for p in container.demux(stream):
            if p.size:
                beginning = bytes(memoryview(p)[:BEGINNING]) if begins else b""
                if looks_at_all or (looks_at_keyframes and p.is_keyframe):
                    units.look(len(rows), memoryview(p))
                rows.append(
                    (p.pts, p.dts, p.pos, p.is_keyframe, p.is_discard, p.is_corrupt, p.size, beginning)
                )
    except DECODER_ERRORS:
        pass
    columns: tuple[tuple, ...] = tuple(zip(*rows, strict=True)) or ((),) * 8  # type: ignore[type-arg]
    return Packets(codec, container.format.name, context.has_b_frames, units, *columns)


def _rises(times: list[int]) -> bool:
    """Whether different times are in order."""
    return times == sorted(times)


def _is_even(times: list[int]) -> bool:
    """Whether times are evenly spaced, but for rounding."""
    steps = [later - earlier for earlier, later in pairwise(sorted(times))]
    return not steps or max(steps) - min(steps) <= 1
