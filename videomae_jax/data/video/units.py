"""Finding pictures, and what stands between them, in packets."""

from collections.abc import Iterator

from videomae_jax.data.video.jpeg import jpeg_tables

BEGINNING = 192
"""Bytes of a packet in which its picture is looked for; larger ones of captions and the like come with
keyframes, which are looked at in full."""
_HEAD = 64
_MPEG4_PICTURE, _START_CODE = b"\x00\x00\x01\xb6", b"\x00\x00\x01"
_ORIENTATION_MESSAGE = 47


class Units:
    """The units of one stream: those of H.264 and HEVC outside pictures are kept where they matter here."""

    def __init__(self, codec: str, extradata: bytes) -> None:
        self.codec, self.turns, self.change = codec, False, False
        """`turns`: a message tells how to turn pictures; `change`: parameters are not always the same."""
        self.sequences: set[bytes] = set()
        self.picture_sets: set[bytes] = set()
        self._hevc, self._in_units = codec == "hevc", codec in ("h264", "hevc")
        self._length = 0
        self._heads: dict[int, bytes] = {}
        if self._in_units and extradata[:1] == b"\x01":
            self._read_record(extradata)
        elif self._in_units:
            self._first_picture(extradata)

    def look(self, position: int, packet: memoryview) -> None:
        """Take in all of a packet of H.264, HEVC or Motion JPEG."""
        self._heads[position] = jpeg_tables(packet) if self.codec == "mjpeg" else self._first_picture(packet)

    def head(self, position: int, beginning: bytes) -> bytes:
        """The first bytes of the first picture in a packet, empty where there is none; see `jpeg_tables`."""
        if position in self._heads:
            return self._heads[position]
        if self._in_units:
            self._heads[position] = head = self._only_picture(beginning) or self._first_picture(beginning)
            return head
        if self.codec == "mpeg4":
            start = beginning.find(_MPEG4_PICTURE)
            return beginning[start : start + _HEAD] if start >= 0 else b""
        return beginning

    def _only_picture(self, content: bytes) -> bytes:
        """As `_first_picture` for H.264 in MP4 and Matroska, where the packet begins with it; else empty."""
        start = self._length
        if self._hevc or not 0 < start < len(content) or content[start] & 31 != 1:
            return b""
        return content[start : start + min(_HEAD, int.from_bytes(content[:start], "big"))]

    def _first_picture(self, content: bytes | memoryview) -> bytes:
        for start, end in self._split(content):
            first = content[start]
            if (first >> 1 & 63) < 32 if self._hevc else first & 31 in (1, 5):
                return bytes(content[start : min(end, start + _HEAD)])
            self._keep(bytes(content[start:end]))
        return b""

    def _split(self, content: bytes | memoryview) -> Iterator[tuple[int, int]]:
        position, width = 0, self._length
        if width:
            while position + width < len(content):
                start = position + width
                position = start + int.from_bytes(content[position:start], "big")
                if position > start:
                    yield start, position
            return
        content = bytes(content)
        start = content.find(_START_CODE) + 3
        while 3 <= start < len(content):
            following = content.find(_START_CODE, start)
            yield start, following if following >= 0 else len(content)
            start = following + 3

    def _read_record(self, data: bytes) -> None:
        """Parameters and the size of lengths, from the record that MP4 and Matroska have for the stream."""
        place = 21 if self._hevc else 4
        if len(data) <= place + 1:
            return
        self._length = (data[place] & 3) + 1
        lists, position = (data[place + 1], place + 2) if self._hevc else (2, place + 1)
        for number in range(lists):
            if self._hevc:
                count, position = int.from_bytes(data[position + 1 : position + 3], "big"), position + 3
            else:
                count = int.from_bytes(data[position : position + 1], "big") & (255 if number else 31)
                position += 1
            for _ in range(count):
                size = int.from_bytes(data[position : position + 2], "big")
                if unit := data[position + 2 : position + 2 + size]:
                    self._keep(unit)
                position += 2 + size

    def _keep(self, unit: bytes) -> None:
        kind = unit[0] >> 1 & 63 if self._hevc else unit[0] & 31
        if kind == (33 if self._hevc else 7):
            self.change |= bool(self.sequences) and unit.rstrip(b"\x00") not in self.sequences
            self.sequences.add(unit.rstrip(b"\x00"))
        elif self._hevc and kind == 34:
            self.picture_sets.add(unit.rstrip(b"\x00"))
        elif kind == (39 if self._hevc else 6):
            self.turns |= _ORIENTATION_MESSAGE in _messages(unit[2 if self._hevc else 1 :])


def _messages(content: bytes) -> Iterator[int]:
    """Kinds of the messages in a unit of supplemental information."""
    position = 0
    while position + 2 < len(content):
        numbers = []
        for _ in range(2):
            number = 0
            while position < len(content) and content[position] == 255:
                number, position = number + 255, position + 1
            number += content[position] if position < len(content) else 0
            numbers.append(number)
            position += 1
        yield numbers[0]
        position += numbers[1]
