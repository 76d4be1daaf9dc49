"""What a plain decode of a file gives, from the first packet to the last, and how the reader compares."""

import random
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np

from videomae_jax.data.video import VideoError, open_video
from videomae_jax.data.video.opening import OPEN_OPTIONS

_ERRORS = (av.error.FFmpegError, EOFError)


@dataclass
class Plain:
    """What comes out when a file is decoded without any of our code."""

    images: list[np.ndarray] = field(default_factory=list)
    """RGB, as stored."""
    times: list[float] = field(default_factory=list)
    """Seconds; NaN where the file does not say."""
    damage: list[str] = field(default_factory=list)
    """What the decoder complained about."""
    packets: int = 0
    opened: bool = False
    matrix: np.ndarray | None = None
    """Of the first frame, how to display it."""
    undetermined: set[int] = field(default_factory=set)
    """Frames in which a decoder that finds no data leaves what its memory held, so that nothing is right."""

    @property
    def ordered(self) -> bool:
        """Whether the times are there and rise, so that they can name frames."""
        return bool(self.times) and bool((np.diff(self.times) > 0).all())


@dataclass
class Comparison:
    """How the reader's frames, each asked for alone, compare with those of the plain decode."""

    count: int = 0
    """Frames that the reader says there are."""
    times: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    refused: dict[int, VideoError] = field(default_factory=dict)
    """By frame; -1 where the file itself was refused."""


def decode_plainly(path: Path, *, mutated: bool = False) -> Plain:
    """Decode everything with one pass of PyAV; of a `mutated` file, find what is undetermined."""
    plain = _decode_all(path, deque(maxlen=0))
    if mutated:
        # A frame that is kept does not pass its memory on to the next.
        others = [_decode_all(path, deque(maxlen=most)).images for most in (1, 2, None)]
        for images in (*others, _decode_backwards(path)):
            pairs = enumerate(zip(plain.images, images, strict=False))
            plain.undetermined |= {number for number, (one, two) in pairs if not np.array_equal(one, two)}
    return plain


def _decode_backwards(path: Path) -> list[np.ndarray]:
    """The frames of a Motion JPEG file, decoded from the last to the first; nothing for other codecs."""
    images: list[np.ndarray] = []
    with suppress(*_ERRORS, ValueError), av.open(str(path)) as container:
        stream = container.streams.best("video")
        if stream is None or stream.codec_context is None or stream.codec_context.name != "mjpeg":
            return []
        decoder = av.CodecContext.create("mjpeg", "r")
        for packet in reversed([packet for packet in container.demux(stream) if packet.size]):
            with suppress(*_ERRORS, ValueError):
                images += [frame.to_ndarray(format="rgb24") for frame in decoder.decode(packet)]
    return images[::-1]


def _decode_all(path: Path, kept: deque[av.VideoFrame]) -> Plain:
    plain = Plain()
    try:
        with av.open(str(path), **OPEN_OPTIONS) as container:
            stream = container.streams.best("video")
            if stream is None or stream.codec_context is None:
                plain.damage.append("no video")
                return plain
            plain.opened = True
            stream.codec_context.thread_count = 1
            for packet in container.demux(stream):
                if packet.is_corrupt:
                    plain.damage.append("a packet is marked as corrupt")
                plain.packets += packet.size > 0
                _decode(packet, plain, kept)
    except (*_ERRORS, OSError, ValueError) as error:
        plain.damage.append(f"the file: {error}")
    return plain


def _decode(packet: av.Packet, plain: Plain, kept: deque[av.VideoFrame]) -> None:
    try:
        for frame in packet.decode():
            kept.append(frame)
            if not plain.images and "DISPLAYMATRIX" in frame.side_data:
                plain.matrix = np.frombuffer(frame.side_data["DISPLAYMATRIX"], np.int32)
            plain.images.append(frame.to_ndarray(format="rgb24"))
            plain.times.append(float("nan") if frame.time is None else frame.time)
            if frame.is_corrupt:
                plain.damage.append(f"frame {len(plain.images) - 1} is marked as damaged")
    except (*_ERRORS, ValueError) as error:
        plain.damage.append(f"a packet: {error}")


def compare(path: Path, plain: Plain, turn=None, fresh: int = 4, unbroken: Plain | None = None) -> Comparison:
    """Ask for each frame alone, `fresh` of them with the file opened anew, the others in any order.

    Without a `turn`, frames are to be turned as the first one says. Where a plain decode has no
    frame at that time, lost behind a packet that nobody needs, it has to be that of the `unbroken` file.
    """
    found = Comparison()
    upright = [turned(image, turn) if turn else displayed(image, plain.matrix) for image in plain.images]
    truth = dict(zip(np.round(unbroken.times, 3), unbroken.images, strict=True)) if unbroken else {}
    rng = random.Random(0)
    try:
        with open_video(path) as video:
            found.count = len(video.timestamps)
            found.times = video.timestamps.tolist()
            order = rng.sample(range(found.count), found.count)
            for index in order:
                _ask(video, index, found, upright, plain, truth)
        for index in rng.sample(range(found.count), min(fresh, found.count)):
            with open_video(path) as video:
                _ask(video, index, found, upright, plain, truth)
        with open_video(path) as video:
            for position, image, _ in video.stream():
                if not _is_right(image, position, found, upright, plain, truth):
                    found.wrong.append(f"stream() gives another frame as {position}")
    except VideoError as error:
        found.refused.setdefault(-1, error)
    return found


def _ask(video, index, found, upright, plain, truth):
    try:
        image = video.frames([index])[0]
    except VideoError as error:
        found.refused[index] = error
        return
    if not _is_right(image, index, found, upright, plain, truth):
        same = [number for number, other in enumerate(upright) if np.array_equal(image, other)]
        found.wrong.append(f"frame {index} is {f'frame {same[0]}' if same else 'none of the video'}")


def _is_right(image, index, found, upright, plain, truth):
    """Whether this is the frame in this place or, where some are missing, at this time."""
    places = np.flatnonzero(np.abs(np.array(plain.times) - found.times[index]) < 1e-4).tolist()
    places += [index] * (found.count == len(upright))
    if not places:
        return np.array_equal(image, truth.get(round(found.times[index], 3)))
    return any(place in plain.undetermined or np.array_equal(image, upright[place]) for place in places)


def is_true(refusal: VideoError, plain: Plain) -> bool:
    """Whether what the reader says of a file is so."""
    sizes = {image.shape for image in plain.images}
    match refusal.reason:
        case "damaged":
            return bool(plain.damage) or len(plain.images) < plain.packets
        case "no-frames":
            return plain.opened and not plain.images
        case "mixed-sizes":
            return len(sizes) > 1
        case "still-image":
            return plain.packets <= 1
        case "not-a-video" | "empty":
            return not plain.opened
        case "no-video-stream" | "no-decoder":
            return not plain.opened and plain.damage == ["no video"]
    return False


def displayed(image: np.ndarray, matrix: np.ndarray | None) -> np.ndarray:
    """As it is shown: a pixel moves from (x, y) to (a x + c y, b x + d y), where that is by right angles."""
    if matrix is None:
        return image
    a, b, c, d = matrix[[0, 1, 3, 4]].astype(float)
    if max(abs(b), abs(c)) <= 0.01 * min(abs(a), abs(d)):
        across, down = a, d
    elif max(abs(a), abs(d)) <= 0.01 * min(abs(b), abs(c)):
        image, across, down = image.transpose(1, 0, 2), c, b
    else:
        return image
    return image[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1]


def turned(image: np.ndarray, turn: tuple[float, bool, bool]) -> np.ndarray:
    """As it is shown: degrees counter-clockwise, then mirrored left to right, then upside down."""
    degrees, left_right, upside_down = turn
    image = np.rot90(image, round(degrees / 90)) if degrees % 90 == 0 else image
    image = image[:, ::-1] if left_right else image
    return image[::-1] if upside_down else image
