"""What the headers of coded pictures say, without decoding: whether decoding can start at a picture, and for
H.264 and HEVC its place in the order of display.

Bits are those of ITU-T H.264 (7.3), H.265 (7.3) and H.263 (5.1), ISO/IEC 14496-2 (6.2), and the formats of
AV1 and VP9.
"""

from collections.abc import Callable
from typing import NamedTuple

H264_IDR, _H264_I_SLICES = 5, (2, 7)
# Profiles whose parameters begin with the format of the colours.
_H264_HIGH = frozenset({44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 144, 244})
_HEVC_IDR, _HEVC_RANDOM_ACCESS, _HEVC_BROKEN_LINK = (19, 20), range(16, 22), range(16, 19)


class Bits:
    """Numbers read one after the other; EOFError past the end."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def read(self, count: int) -> int:
        """An unsigned number of `count` bits."""
        self._left -= count
        if self._left < 0:
            raise EOFError
        return self._value >> self._left & (1 << count) - 1

    def golomb(self) -> int:
        """An unsigned exponential Golomb code."""
        zeros = self._left - (self._value & (1 << self._left) - 1).bit_length()
        return self.read(2 * zeros + 1) - 1

    def signed_golomb(self) -> int:
        """As `golomb`, with numbers below 0."""
        code = self.golomb()
        return (code + 1) // 2 if code % 2 else -(code // 2)


def unescaped(unit: bytes) -> Bits:
    """The bits of a unit of H.264 or HEVC, without the bytes that keep it from looking like a start code."""
    return Bits(unit.replace(b"\x00\x00\x03", b"\x00\x00"))


class Sequence(NamedTuple):
    """The parameters that pictures of H.264 and HEVC need to tell their order."""

    number_bits: int
    order_bits: int | None
    """Of the low bits of the order; 0 where pictures are shown as they are decoded, None where neither."""
    progressive: bool
    separate_colours: bool


class PictureSet(NamedTuple):
    """The parameters of HEVC's pictures that stand before their order."""

    extra_bits: int
    may_be_hidden: bool


class Picture(NamedTuple):
    """A picture's place in its sequence."""

    starts_sequence: bool
    order: int
    """The low bits."""
    is_reference: bool
    """The high bits of later ones follow from it."""


def can_start(codec: str, head: bytes, *, is_told: bool) -> bool:
    """Whether the picture that begins with these bytes needs none before it.

    `is_told`: the container names it among the places where decoding can start, and does not name all.
    """
    if codec not in _CAN_START:
        return True  # Only the container can tell.
    try:
        return _CAN_START[codec](head, is_told)
    except (EOFError, IndexError):
        return False


def display_order(
    codec: str, heads: list[bytes], sequences: set[bytes], picture_sets: set[bytes]
) -> list[int] | None:
    """Positions of pictures of H.264 or HEVC in the order of display; None where headers do not tell it."""
    try:
        read = _picture_reader(codec, sequences, picture_sets)
        return read and _display_order(heads, *read)
    except (EOFError, IndexError):
        return None


def h264_sequence(sequences: set[bytes]) -> Sequence | None:
    """The parameters of all pictures of H.264; None where they change or are unknown."""
    try:
        found = {_h264_sequence(unescaped(unit)) for unit in sequences}
    except (EOFError, IndexError):
        return None
    return found.pop() if len(found) == 1 else None


def h264_number(head: bytes, sequence: Sequence) -> int | None:
    """How many references, in a cycle, are before a picture of H.264; None where its first bytes do not tell.

    Read for many pictures of each clip, so without `Bits`, and from as many bytes as fit a machine word.
    """
    beginning = head[1:9]
    if b"\x00\x00\x03" in beginning:
        beginning = beginning.replace(b"\x00\x00\x03", b"\x00\x00")
    value, left = int.from_bytes(beginning, "big"), 8 * len(beginning)
    for _ in range(3):
        left = 2 * value.bit_length() - left - 1
        if left <= 0:
            return None
        value &= (1 << left) - 1
    left -= 2 * sequence.separate_colours + sequence.number_bits
    return value >> left & (1 << sequence.number_bits) - 1 if left >= 0 else None


def _display_order(
    heads: list[bytes], read: Callable[[bytes], Picture | None], bits: int
) -> list[int] | None:
    sequence, before, size = 0, 0, 1 << bits
    keys: list[tuple[int, int]] = []
    for head in heads:
        picture = read(head)
        if picture is None:
            return None
        if picture.starts_sequence or not keys:
            sequence, before = sequence + 1, 0
        # The full number is the one nearest to that of the last reference.
        ahead = (picture.order - before + size // 2 - 1) % size - size // 2 + 1
        order = before + ahead if bits else len(keys)
        if picture.is_reference:
            before = order
        keys.append((sequence, order))
    return sorted(range(len(keys)), key=keys.__getitem__)


def _picture_reader(
    codec: str, sequences: set[bytes], picture_sets: set[bytes]
) -> tuple[Callable[[bytes], Picture | None], int] | None:
    """What reads pictures, and the bits of their order; None where parameters change or are unknown."""
    if codec == "h264":
        found = {_h264_sequence(unescaped(unit)) for unit in sequences}
        before = {PictureSet(0, False)}
    else:
        found = {_hevc_sequence(unescaped(unit)) for unit in sequences}
        before = {_hevc_picture_set(unescaped(unit)) for unit in picture_sets}
    if len(found) != 1 or len(before) != 1:
        return None
    (sequence,), (picture_set,) = found, before
    if sequence.order_bits is None or picture_set.may_be_hidden:
        return None
    if codec == "h264":
        return lambda head: _h264_picture(head, sequence), sequence.order_bits
    return lambda head: _hevc_picture(head, sequence, picture_set), sequence.order_bits


def _h264_sequence(bits: Bits) -> Sequence:
    bits.read(8)
    profile = bits.read(8)
    bits.read(16)
    bits.golomb()
    separate_colours = False
    if profile in _H264_HIGH:
        colours = bits.golomb()
        separate_colours = colours == 3 and bool(bits.read(1))
        bits.golomb(), bits.golomb(), bits.read(1)
        if bits.read(1):
            for number in range(12 if colours == 3 else 8):
                if bits.read(1):
                    _skip_scaling_list(bits, 16 if number < 6 else 64)
    number_bits, kind, order_bits = bits.golomb() + 4, bits.golomb(), None
    if kind == 0:
        order_bits = bits.golomb() + 4
    elif kind == 2:
        order_bits = 0
    else:  # A cycle of differences, which hardly anything writes.
        return Sequence(number_bits, None, True, separate_colours)
    bits.golomb(), bits.read(1), bits.golomb(), bits.golomb()
    return Sequence(number_bits, order_bits, bool(bits.read(1)), separate_colours)


def _skip_scaling_list(bits: Bits, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            following = (last + bits.signed_golomb()) % 256
        last = following or last


def _h264_slice_type(head: bytes) -> int:
    bits = Bits(head[1:9])
    bits.golomb()
    return bits.golomb()


def _h264_picture(head: bytes, sequence: Sequence) -> Picture | None:
    bits = unescaped(head)
    is_reference, kind = bits.read(8) & 96 > 0, head[0] & 31
    bits.golomb(), bits.golomb(), bits.golomb()
    bits.read(2 * sequence.separate_colours + sequence.number_bits)
    if not sequence.progressive and bits.read(1):
        return None  # One of two fields, which may share a packet or not.
    if kind == H264_IDR:
        bits.golomb()
    return Picture(kind == H264_IDR, bits.read(sequence.order_bits or 0), is_reference)


def _h264_can_start(head: bytes, is_told: bool) -> bool:
    return head[0] & 31 == H264_IDR or (is_told and _h264_slice_type(head) in _H264_I_SLICES)


def _hevc_kind(head: bytes) -> int:
    return head[0] >> 1 & 63


def _hevc_sequence(bits: Bits) -> Sequence:
    bits.read(20)
    sublayers = bits.read(3)
    bits.read(1 + 96)
    present = [(bits.read(1), bits.read(1)) for _ in range(sublayers)]
    bits.read(2 * (8 - sublayers) if sublayers else 0)
    for profile, level in present:
        bits.read(88 * profile + 8 * level)
    bits.golomb()
    separate_colours = bits.golomb() == 3 and bool(bits.read(1))
    bits.golomb(), bits.golomb()
    if bits.read(1):
        bits.golomb(), bits.golomb(), bits.golomb(), bits.golomb()
    bits.golomb(), bits.golomb()
    return Sequence(0, bits.golomb() + 4, True, separate_colours)


def _hevc_picture_set(bits: Bits) -> PictureSet:
    bits.read(16)
    bits.golomb(), bits.golomb(), bits.read(1)
    may_be_hidden = bool(bits.read(1))
    return PictureSet(bits.read(3), may_be_hidden)


def _hevc_picture(head: bytes, sequence: Sequence, picture_set: PictureSet) -> Picture | None:
    bits, kind = unescaped(head), _hevc_kind(head)
    if kind in _HEVC_BROKEN_LINK:
        return None  # Pictures that follow it may be left out by the decoder.
    layer = bits.read(16) & 7
    if not bits.read(1):
        return None
    bits.read(16 <= kind <= 23)
    bits.golomb()
    bits.read(picture_set.extra_bits)
    bits.golomb()
    bits.read(2 * sequence.separate_colours)
    if kind in _HEVC_IDR:
        return Picture(True, 0, True)
    # Leading pictures and those of even types below 16 do not count.
    counts = layer == 1 and (kind >= 16 or (kind % 2 == 1 and kind not in (7, 9)))
    return Picture(False, bits.read(sequence.order_bits or 0), counts)


def _h263_can_start(head: bytes, is_told: bool) -> bool:
    bits = Bits(head)
    if bits.read(22) != 32:
        return False
    bits.read(13)
    if bits.read(3) != 7:
        return bits.read(1) == 0
    if bits.read(3) == 1:
        bits.read(18)
    return bits.read(3) == 0


def _vp9_can_start(head: bytes, is_told: bool) -> bool:
    shift = 0 if head[0] >> 4 & 3 < 3 else 1
    return head[0] >> 6 == 2 and head[0] << shift >> 2 & 3 == 0


def _av1_can_start(head: bytes, is_told: bool) -> bool:
    position = 0
    while True:
        header, position = head[position], position + 1
        position += header >> 2 & 1
        size, shift = 0, 0
        while header & 2:
            size |= (head[position] & 127) << shift
            shift, position = shift + 7, position + 1
            if head[position - 1] < 128:
                break
        if header >> 3 & 15 in (3, 6):
            return head[position] >> 4 == 1  # Not one shown before, a keyframe, and shown.
        if not header & 2:
            return False
        position += size


_CAN_START: dict[str, Callable[[bytes, bool], bool]] = {
    "av1": _av1_can_start,
    "h263": _h263_can_start,
    "h264": _h264_can_start,
    "hevc": lambda head, is_told: _hevc_kind(head) in _HEVC_RANDOM_ACCESS,
    "mjpeg": lambda head, is_told: True,
    "mpeg4": lambda head, is_told: head[4] >> 6 == 0,
    "vp9": _vp9_can_start,
}
