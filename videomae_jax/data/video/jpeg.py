"""Which tables a coded picture of Motion JPEG brings along (ITU-T T.81, B.2)."""

OWN, USUAL = b"own", b"usual"
_START, _SCAN = 0xD8, 0xDA
_QUANTISATION, _CODES = 0xDB, 0xC4
_FRAMES = frozenset(range(0xC0, 0xD0)) - {_CODES, 0xC8, 0xCC}


def jpeg_tables(packet: memoryview) -> bytes:
    """OWN where a picture brings all tables that it needs, USUAL where it leaves out those of codes.

    Many AVI files leave them out. Empty where any other is missing, or the picture's header is damaged.
    """
    try:
        return _tables(packet)
    except IndexError:
        return b""


def _tables(packet: memoryview) -> bytes:
    quantisation: set[int] = set()
    codes: set[int] = set()
    needed: set[int] | None = None
    if packet[0] != 255 or packet[1] != _START:
        return b""
    position = 2
    while True:
        while packet[position] == packet[position + 1] == 255:
            position += 1  # Filling.
        marker = packet[position + 1]
        size = packet[position + 2] << 8 | packet[position + 3]
        segment = packet[position + 4 : position + 2 + size]
        if packet[position] != 255 or marker < 0xC0 or 0xD0 <= marker <= 0xD9 or len(segment) != size - 2:
            return b""
        position += 2 + size
        if marker == _QUANTISATION:
            quantisation |= _quantisation_tables(segment)
        elif marker == _CODES:
            codes |= _code_tables(segment)
        elif marker in _FRAMES:
            needed = {segment[8 + 3 * number] for number in range(segment[5])}
        elif marker == _SCAN:
            used = [segment[2 + 2 * number] for number in range(segment[0])]
            if needed is None or not needed <= quantisation:
                return b""
            if not codes:
                return USUAL
            return OWN if codes >= {each >> 4 for each in used} | {16 | each & 15 for each in used} else b""


def _quantisation_tables(segment: memoryview) -> set[int]:
    found, position = set(), 0
    while position < len(segment):
        found.add(segment[position] & 15)
        position += 1 + 64 * (1 + (segment[position] >> 4))
    if position != len(segment):
        raise IndexError
    return found


def _code_tables(segment: memoryview) -> set[int]:
    """Of each table, 16 times whether it is for values after the first of a block, plus its number."""
    found, position = set(), 0
    while position < len(segment):
        found.add(segment[position])
        position += 17 + sum(segment[position + 1 : position + 17])
    if position != len(segment):
        raise IndexError
    return found
