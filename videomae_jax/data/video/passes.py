"""Passes of the decoder over a file, from its beginning or from a packet where decoding can start."""

from collections.abc import Iterator
from functools import cached_property, partial

import av

from videomae_jax.data.video.frames import DECODER_ERRORS, VideoError
from videomae_jax.data.video.kept_packets import LONG, file_state, kept_packets
from videomae_jax.data.video.opening import decoder_limits, open_stream
from videomae_jax.data.video.packets import Identity, Packets, read_packets

# Codecs whose frames say that no other frame needs them, so that unwanted ones need no decoding.
_MARKS_UNREFERENCED = frozenset({"h264", "hevc", "mpeg4"})
# Codecs that give a picture before those that it needs, so that damage there is seen too late. Told to, they
# give nothing instead of patching up, and then everything is decoded once more in the ordinary way.
_SHOWS_BEFORE_NEEDED = frozenset({"h264", "hevc"})
STRICT = {"err_detect": "explode"}


class Passes:
    """An open file or its bytes `content`, decoded as often as is asked for."""

    def __init__(self, path: str, content: bytes | None, max_pixels: int) -> None:
        self._path, self.content, self._max_pixels = path, content, max_pixels
        self.errors = 0
        """Packets that the decoder refused so far."""
        self.sound = True
        """Whether all that the last pass decoded was."""
        self._strict, self._furthest = False, -1
        self._state = file_state(path) if content is None else ()
        self._open()

    def close(self) -> None:
        self._container.close()

    @cached_property
    def packets(self) -> Packets:
        """Of the stream, read without decoding."""
        read = partial(read_packets, self._container, self.stream)
        is_long = (self._container.duration or 0) >= LONG * av.time_base
        return kept_packets(self._path, self._state, read) if is_long and self._state else read()

    def decode(self, start: int, needed: set[int] | None = None) -> Iterator[av.VideoFrame]:
        """Frames in presentation order, from the packet at position `start` in decoding order or earlier.

        Given the times that are `needed`, frames that are neither needed nor referenced are left out.
        `sound` says whether all that has been decoded was.
        """
        self.sound = True
        packets = self.packets
        marked = packets.codec in _MARKS_UNREFERENCED
        # Pictures shown before the one where decoding starts are not asked for from there.
        begin = awaited = packets.pts[start] if start else None
        context, width = None, 0
        skips: bool | None = None
        for packet in self._demux(start, strict=needed is not None):
            if context is not self.stream.codec_context:
                context, skips = self.stream.codec_context, None
                width = context.width
                if not context.is_open:
                    context.options = decoder_limits(self._max_pixels) | (STRICT if self._strict else {})
            unneeded = bool(
                marked
                and needed is not None
                and packet.size
                and packet.pts not in needed
                and packets.is_marked_right(packets.by_time.get(packet.pts, 0))
            )
            if unneeded is not skips:
                context.skip_frame, skips = "NONREF" if unneeded else "DEFAULT", unneeded
            try:
                for frame in packet.decode():
                    if begin is None or frame.pts is None or frame.pts >= begin:
                        # The picture where decoding starts has to come first.
                        self.sound &= not frame.is_corrupt and awaited in (None, frame.pts)
                        awaited = None
                    yield frame
            except (*DECODER_ERRORS, ValueError) as error:  # The latter from a decoder that did not open.
                if width and not context.width:  # The decoder refuses the size that the picture tells.
                    detail = f"a picture in it has more than {self._max_pixels} pixels"
                    raise VideoError(self._path, "too-large", detail) from error
                self.errors += 1
                self.sound = False

    def _demux(self, start: int, *, strict: bool) -> Iterator[av.Packet]:
        """Packets from position `start` or an earlier one on, and at the end the one that flushes.

        `strict`: what is damaged is not patched up, where that would be seen too late.
        """
        strict &= self.packets.codec in _SHOWS_BEFORE_NEEDED
        changes, self._strict = strict != self._strict, strict
        if start <= self._furthest or (changes and self.stream.codec_context.is_open):
            self._reopen()  # What a decoder was told by later packets outlives a jump back.
        packet, arrived, packets = self._seek(start)
        expected: Iterator[Identity] | None = None
        position = 0
        if packet is None:
            self._reopen()
            packets = self._container.demux(self.stream)
        else:
            position = self._furthest = arrived
            expected = self.packets.identities(position + 1)
            yield packet
        try:
            for packet in packets:
                # Spelled out, as a function's call for each packet costs.
                if expected and packet.size and (packet.pts, packet.pos) != next(expected, None):
                    self.sound = False  # After the jump the file reads differently.
                position += 1
                if position > self._furthest:
                    self._furthest = position
                yield packet
        except DECODER_ERRORS:
            self.errors += 1

    def _reopen(self) -> None:
        self.close()
        self._open()
        self._furthest = -1

    def _seek(self, start: int) -> tuple[av.Packet | None, int, Iterator[av.Packet]]:
        """The packet at `start` or an earlier start, with its position; None if seeking leads elsewhere."""
        packets = self._container.demux(self.stream)
        if self.packets.times is None or not self.packets.pts:
            return None, 0, packets
        try:
            self._container.seek(self.packets.pts[start], stream=self.stream, backward=True)
            packet = next(packets, None)
        except DECODER_ERRORS:
            return None, 0, packets
        arrived = None if packet is None else self.packets.find((packet.pts, packet.pos), start)
        if arrived is None or not self.packets.is_start(arrived):
            return None, 0, packets
        return packet, arrived, packets

    def _open(self) -> None:
        self._container, self.stream = open_stream(self._path, self.content, self._max_pixels)
