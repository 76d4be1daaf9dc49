"""Builds small videos of many kinds, whose frames have their number drawn in so that any decoding shows it.

A `Build` says what to make: codec, container, pixels, times, turn, where it is cut, and what is broken.
"""

import io
import os
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.bitstream import BitStreamFilterContext

FRAMES, RATE = 40, 25
# A time base that every codec here can hold, fine enough for uneven times.
_TICKS = 1000
_ROWS, _COLUMNS = 3, 4
_WHITE, _BLACK = 215, 40

# The encoder of each codec, and its options. Sizes are small, so threads would only cost.
CODECS: dict[str, tuple[str, dict[str, str]]] = {
    "h264": ("libx264", {"g": "12", "bf": "3", "b_strategy": "0", "threads": "1"}),
    "h264-p": ("libx264", {"g": "12", "bf": "0", "threads": "1"}),
    "h264-open": ("libx264", {"g": "12", "bf": "3", "b_strategy": "0", "x264-params": "open-gop=1"}),
    "hevc": ("libx265", {"x265-params": "log-level=none:pools=none:frame-threads=1:keyint=12:open-gop=0"}),
    "hevc-open": (
        "libx265",
        {"x265-params": "log-level=none:pools=none:frame-threads=1:keyint=12:min-keyint=12:open-gop=1"},
    ),
    "mpeg4": ("mpeg4", {"g": "12", "bf": "2", "q": "2"}),
    "mpeg4-p": ("mpeg4", {"g": "12", "bf": "0", "q": "2"}),
    "mpeg2video": ("mpeg2video", {"g": "12", "bf": "2", "q": "2"}),
    "mpeg1video": ("mpeg1video", {"g": "12", "bf": "2", "q": "2"}),
    "h263": ("h263", {"g": "12", "q": "2"}),
    "h261": ("h261", {"g": "12", "q": "2"}),
    "vp8": ("libvpx", {"g": "12", "lag-in-frames": "10", "auto-alt-ref": "1", "deadline": "realtime"}),
    "vp9": ("libvpx-vp9", {"g": "12", "lag-in-frames": "10", "deadline": "realtime", "cpu-used": "8"}),
    "av1": ("libsvtav1", {"g": "12", "preset": "8", "crf": "8", "svtav1-params": "lp=1"}),
    "mjpeg": ("mjpeg", {"q": "2"}),
    "prores": ("prores_ks", {}),
    "dnxhd": ("dnxhd", {"profile": "dnxhr_lb"}),
    "ffv1": ("ffv1", {}),
    "flv1": ("flv", {"g": "12", "q": "2"}),
    "wmv1": ("wmv1", {"g": "12", "q": "2"}),
    "wmv2": ("wmv2", {"g": "12", "q": "2"}),
    "msmpeg4v3": ("msmpeg4", {"g": "12", "q": "2"}),
    "theora": ("libtheora", {"g": "12"}),
    "gif": ("gif", {}),
    "png": ("png", {}),
    "huffyuv": ("huffyuv", {}),
    "jpeg2000": ("jpeg2000", {}),
    "rawvideo": ("rawvideo", {}),
}
_SIZES = {"h263": (128, 96), "h261": (176, 144), "dnxhd": (256, 192)}
_PIXELS = {"mjpeg": "yuvj420p", "prores": "yuv422p10le", "dnxhd": "yuv422p", "gif": "rgb8", "png": "rgb24"}
_PIXELS |= {"huffyuv": "yuv422p"}
# Raw streams, and containers whose name is not their suffix.
_MUXERS = {"mkv": "matroska", "ts": "mpegts", "mpg": "mpeg", "wmv": "asf", "ogv": "ogg", "gif": "gif"}
_MUXERS |= {"m4v": "m4v", "vob": "vob", "m2ts": "mpegts"}
_NO_INTERMEDIATE = {"prores": "mov", "dnxhd": "mov"}


@dataclass(frozen=True)
class Build:
    """One file to make."""

    codec: str
    suffix: str
    pixels: str = ""
    """Empty: what is usual for the codec."""
    times: str = "constant"
    """constant, vfr, gap, repeated, decoding (all times are those of decoding), late or negative."""
    turn: tuple[float, bool, bool] = (0, False, False)
    """Degrees counter-clockwise, then mirrored left to right, then upside down, as the container says."""
    colours: str = ""
    """The matrix that x264 writes into the stream, by its name there."""
    turned_by_stream: bool = False
    """The turn is written into H.264 itself."""
    cut: str = ""
    """open: starts at a later keyframe with what follows it; middle: starts between two keyframes."""
    damage: str = ""
    """idx1, stss, cues: a part of the index is gone; half: the second half of the file is gone."""
    mux: tuple[tuple[str, str], ...] = ()
    """Options of the muxer."""
    frames: int = FRAMES

    def __str__(self) -> str:
        turn = "-".join(str(int(value)) for value in self.turn) if any(self.turn) else ""
        times = "" if self.times == "constant" else self.times
        parts = [self.codec, self.suffix, self.pixels, times, f"turn{turn}" if turn else ""]
        parts += [self.colours, "stream" if self.turned_by_stream else "", self.cut, self.damage]
        parts += [f"{key}.{value}" for key, value in self.mux]
        parts += ["" if self.frames == FRAMES else str(self.frames)]
        return " ".join(part for part in parts if part).replace("+", "&")


class NotBuildable(Exception):
    """This build of the decoder's library cannot make such a file."""


def draw(number: int, height: int = 48, width: int = 64) -> np.ndarray:
    """A picture with its number in large black and white blocks, which also tell which way is up."""
    bits = [number >> shift & 1 for shift in range(6)] + [_check(number) >> shift & 1 for shift in range(3)]
    cells = np.array([1, 1, *bits[:2], 0, *bits[2:]]).reshape(_ROWS, _COLUMNS)
    rows, columns = np.arange(height) * _ROWS // height, np.arange(width) * _COLUMNS // width
    grey = np.where(cells[rows[:, None], columns], _WHITE, _BLACK).astype(np.int16)
    # A slope that moves, so that there is something to predict and no frame repeats another.
    slope = (np.arange(width) + np.arange(height)[:, None] + 3 * number) % 24
    tint = np.array([1, 0, -1], np.int16)
    return np.clip(grey[:, :, None] + slope[:, :, None] - 12 + 8 * tint, 0, 255).astype(np.uint8)


def read_number(image: np.ndarray) -> int | None:
    """The number drawn into an upright picture; None where none can be read."""
    height, width = image.shape[0] // _ROWS, image.shape[1] // _COLUMNS
    grid = image[: height * _ROWS, : width * _COLUMNS].mean(-1).reshape(_ROWS, height, _COLUMNS, width)
    inner = grid[:, height // 4 : -(height // 4), :, width // 4 : -(width // 4)].mean((1, 3)).ravel()
    cells = [int(value > (_WHITE + _BLACK) / 2) for value in inner]
    number = sum(bit << shift for shift, bit in enumerate(cells[2:4] + cells[5:9]))
    check = sum(bit << shift for shift, bit in enumerate(cells[9:]))
    return number if cells[:2] == [1, 1] and not cells[4] and check == _check(number) else None


def _check(number: int) -> int:
    return ~(number ^ number >> 3) & 7


def ticks(times: str, frames: int = FRAMES) -> list[int]:
    """When each frame is shown, in thousandths of a second."""
    steps = np.full(frames - 1, _TICKS // RATE)
    if times == "vfr":
        steps = np.random.default_rng(0).integers(20, 90, frames - 1)
    elif times == "gap":
        steps[frames // 2] = 9000
    elif times == "repeated":
        steps[frames // 3] = 0
    return [0, *np.cumsum(steps).tolist()]


def build(made: Build, folder: Path) -> Path:
    """Make a file; raises NotBuildable with the reason."""
    path = folder / f"{made.codec}.{made.suffix}"
    try:
        with _as_before():
            packets, template = _encode(made)
        with template:
            _mux(path, made, packets, template.streams.video[0])
    except (av.error.FFmpegError, ValueError, OverflowError) as error:
        raise NotBuildable(f"{made}: {str(error).splitlines()[0]}") from error
    content = path.read_bytes()
    changed = _DAMAGES[made.damage](content) if made.damage else content
    if made.damage and changed == content:
        raise NotBuildable(f"{made}: there is nothing to break")
    if made.times == "repeated" and made.suffix in ("mp4", "mov"):
        changed = repeat_a_time(changed)
    path.write_bytes(changed)
    return path


@contextmanager
def _as_before() -> Iterator[None]:
    """Undo what SVT-AV1 does when root encodes: this thread, and all processes that it starts later, would
    have real-time priority, and nothing else would run beside them."""
    if sys.platform != "linux":
        yield
        return
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        if os.sched_getscheduler(0) != policy:
            os.sched_setscheduler(0, policy, parameters)


def _encode(made: Build) -> tuple[list[av.Packet], av.container.InputContainer]:
    """The packets, and the container in memory that they came from."""
    encoder, options = CODECS[made.codec]
    if encoder not in av.codecs_available:
        raise NotBuildable(f"there is no encoder {encoder} here")
    width, height = _SIZES.get(made.codec, (64, 48))
    if made.colours:
        options = options | {"x264-params": f"colormatrix={made.colours}"}
    file, packets = io.BytesIO(), []
    with av.open(file, "w", format=_NO_INTERMEDIATE.get(made.codec, "nut")) as container:
        stream = container.add_stream(encoder, rate=RATE, options=options)
        stream.width, stream.height = width, height
        stream.pix_fmt = made.pixels or _PIXELS.get(made.codec, "yuv420p")
        stream.codec_context.thread_count = 1
        uneven = made.times in ("vfr", "gap", "repeated")
        if uneven:
            stream.codec_context.time_base = Fraction(1, 10 * _TICKS)
        for number, tick in enumerate(ticks(made.times, made.frames)):
            frame = av.VideoFrame.from_ndarray(draw(number, height, width), format="rgb24")
            # Frames of one time are 0.1 ms apart here: no encoder takes less, and containers round it away.
            repeated = (
                made.times == "repeated" and number and tick == ticks(made.times, made.frames)[number - 1]
            )
            frame.pts = 10 * tick + repeated if uneven else number
            frame.time_base = Fraction(1, 10 * _TICKS) if uneven else Fraction(1, RATE)
            packets += stream.encode(frame)
        packets += stream.encode(None)
        copies = [_copy(packet) for packet in packets]
        container.mux(packets)
    return copies, av.open(io.BytesIO(file.getvalue()))


def _copy(packet: av.Packet) -> av.Packet:
    """Muxing changes a packet's times."""
    copy = av.Packet(bytes(packet))
    copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
    copy.duration, copy.is_keyframe = packet.duration, packet.is_keyframe
    return copy


def _mux(path: Path, made: Build, packets: list[av.Packet], template: av.VideoStream) -> None:
    name = _MUXERS.get(made.suffix, made.suffix)
    packets = _cut(packets, made.cut)
    step = packets[0].duration or round(1 / (RATE * packets[0].time_base))
    if made.times == "decoding":
        for number, packet in enumerate(packets):
            packet.pts = packet.dts = number * step
    shift = {"late": 100 * step, "negative": -5 * step}.get(made.times, 0)
    filters = _filter(made, template)
    with av.open(str(path), "w", format=name, options=dict(made.mux)) as container:
        stream = container.add_stream_from_template(template, opaque=True)
        stream.time_base = packets[0].time_base
        if any(made.turn) and not made.turned_by_stream:
            stream.set_display_rotation(*made.turn)
        for packet in packets:
            packet.duration = packet.duration or step
            packet.pts += shift
            packet.dts += shift
            for each in filters.filter(packet) if filters else [packet]:
                each.stream = stream
                container.mux_one(each)


def _cut(packets: list[av.Packet], cut: str) -> list[av.Packet]:
    """What is left after the first packets are dropped, at times that start near 0."""
    keyframes = [number for number, packet in enumerate(packets) if packet.is_keyframe]
    first = {"": 0, "open": keyframes[min(1, len(keyframes) - 1)], "middle": 5}[cut]
    left = packets[first:]
    if not left or (cut and not first):
        raise NotBuildable("there is only one keyframe")
    start = min(packet.dts for packet in left) if cut else 0
    for packet in left:
        packet.pts, packet.dts = packet.pts - start, packet.dts - start
    return left


def _filter(made: Build, template: av.VideoStream) -> BitStreamFilterContext | None:
    """What changes packets on their way: raw streams need their headers within, or a turn is written."""
    if not made.turned_by_stream:
        in_band = made.suffix in ("h264", "hevc", "m4v") or (
            made.codec.startswith("mpeg4") and made.suffix == "ts"
        )
        return BitStreamFilterContext("dump_extra", template) if in_band else None
    degrees, left_right, upside_down = made.turn
    # H.264 mirrors first and turns then, which is the other turn first.
    degrees = -degrees % 360 if left_right != upside_down else degrees
    flips = ["horizontal"] * left_right + ["vertical"] * upside_down
    text = f"h264_metadata=display_orientation=insert:rotate={degrees:g}"
    text += f":flip={'+'.join(flips)}" if flips else ""
    return BitStreamFilterContext(text, template)


def _without_index_entry(content: bytes) -> bytes:
    """An AVI file whose index misses a frame in the middle."""
    at = content.rfind(b"idx1")
    if at < 0:
        return content
    (size,) = struct.unpack_from("<I", content, at + 4)
    gone = at + 8 + size // 32 * 16
    # What was the last entry becomes a piece of junk, so that the sizes around stay true.
    kept = content[at + 8 : gone] + content[gone + 16 : at + 8 + size]
    junk = b"JUNK" + struct.pack("<I", 8) + bytes(8)
    return content[:at] + b"idx1" + struct.pack("<I", size - 16) + kept + junk + content[at + 8 + size :]


def _void_cues(content: bytes) -> bytes:
    """A Matroska file whose table of keyframes is a void element."""
    at = content.rfind(b"\x1c\x53\xbb\x6b")
    if at < 0:
        return content
    width = 9 - content[at + 4].bit_length()
    size = int.from_bytes(content[at + 4 : at + 4 + width], "big") & (1 << 7 * width) - 1
    end = at + 4 + width + size
    return (
        content[:at] + b"\xec\x01" + (end - at - 9).to_bytes(7, "big") + bytes(end - at - 9) + content[end:]
    )


def _first_half(content: bytes) -> bytes:
    """What is left of a file whose copying stopped; AVI files begin with much that is empty."""
    start = max(0, content.find(b"movi"))
    return content[: start + (len(content) - start) * 6 // 10]


def repeat_a_time(content: bytes) -> bytes:
    """An mp4 file whose table of times gives one frame in the middle no duration."""
    at = content.find(b"stts")
    if at < 0:
        return content
    (count,) = struct.unpack_from(">I", content, at + 8)
    entries = [struct.unpack_from(">II", content, at + 12 + 8 * number) for number in range(count)]
    shortest = min(range(count), key=lambda number: entries[number][1])
    return content[: at + 16 + 8 * shortest] + bytes(4) + content[at + 20 + 8 * shortest :]


_DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "idx1": _without_index_entry,
    "stss": lambda content: content.replace(b"stss", b"free"),
    "cues": _void_cues,
    "half": _first_half,
}
