"""Writing video files: small ones to try things with, and those of prepared sets, quick to decode."""

import io
import os
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any, cast

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from jaxtyping import UInt8

from videomae_jax.data.video.frames import VideoError

_H264_OPTIONS = {"preset": "veryfast", "bf": "0", "mbtree": "0"}
"""With B-frames or a macroblock tree x264 gives the same frames other bytes now and then (decision 0005)."""


def write_video(path: str | os.PathLike[str], frames: UInt8[np.ndarray, "T H W 3"], fps: float) -> None:
    """Write RGB frames as an mp4 file: H.264, or MPEG-4 where there is no H.264 encoder.

    Odd sizes are kept by not halving the colour planes. The same frames give the same bytes.
    """
    height, width = frames.shape[1:3]
    with av.open(os.fspath(path), "w", format="mp4") as container:
        codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
        options = _H264_OPTIONS | {"crf": "18"} if codec == "libx264" else {"q": "3"}
        rate = Fraction(fps).limit_denominator(1001)
        stream = cast(av.VideoStream, container.add_stream(codec, rate=rate, options=options))
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuv444p" if codec == "libx264" and (width % 2 or height % 2) else "yuv420p"
        stream.codec_context.gop_size = 12
        stream.codec_context.thread_count = 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


class Film:
    """An mp4 file that is written frame by frame, each shown from its own time on; until `close`, any part
    that is on the disk can be played (H.264, or MPEG-4 where there is no H.264 encoder)."""

    def __init__(self, path: str | os.PathLike[str], height: int, width: int) -> None:
        options = {"movflags": "frag_keyframe+empty_moov"}
        self._container = av.open(os.fspath(path), "w", format="mp4", options=options)
        codec, more = ("libx264", _H264_OPTIONS) if "libx264" in av.codecs_available else ("mpeg4", {})
        self._stream = cast(av.VideoStream, self._container.add_stream(codec, rate=25, options=more))
        self._stream.width, self._stream.height = width, height
        halved = not (width % 2 or height % 2) or codec == "mpeg4"
        self._stream.pix_fmt = "yuv420p" if halved else "yuv444p"
        self._stream.codec_context.time_base = self._stream.time_base = Fraction(1, 1000)
        self._stream.codec_context.gop_size, self._stream.codec_context.thread_count = 50, 1
        self._last = -1

    def add(self, image: UInt8[np.ndarray, "h w 3"], seconds: float) -> None:
        """Append a frame, a millisecond after the one before or later; one of another size is scaled."""
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        if (frame.height, frame.width) != (self._stream.height, self._stream.width):
            frame = frame.reformat(self._stream.width, self._stream.height)
        self._last = max(self._last + 1, round(1000 * seconds))
        frame.pts, frame.time_base = self._last, Fraction(1, 1000)
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Write what the encoder still holds."""
        self._container.mux(self._stream.encode(None))
        self._container.close()


def encode_video(
    path: str,
    frames: Iterable[UInt8[np.ndarray, "h w 3"]],
    fps: float,
    *,
    keyframe_every: int,
    crf: int,
    num_runs: int = 1,
) -> bytes:
    """Encode RGB frames of one even size to the bytes of an mp4 file that is quick to decode (H.264).

    With `num_runs` = n, frames n apart are stored side by side: first frames 0, n, 2n, ..., then 1, n + 1,
    and so on, each run with keyframes of its own. The same frames give the same bytes. Raises VideoError
    (not-encodable), naming `path`, when the encoder refuses them.
    """
    rate = Fraction(fps).limit_denominator(1001)
    file = io.BytesIO()
    try:
        with av.open(file, "w", format="mp4") as container:
            stream = cast(av.VideoStream, container.add_stream("libx264", rate=rate))
            encoders: list[av.VideoCodecContext] = []
            runs: list[list[av.Packet]] = [[] for _ in range(num_runs)]
            reformatter = VideoReformatter()
            for number, image in enumerate(frames):
                if number < num_runs:
                    first = stream.codec_context if number == 0 else _video_encoder()
                    encoders.append(_set_up(first, image.shape[:2], rate, keyframe_every, crf))
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
                frame = reformatter.reformat(frame, format="yuv420p", threads=1)
                position, run = divmod(number, num_runs)
                frame.pts, frame.time_base = position, 1 / rate
                runs[run] += encoders[run].encode(frame)
            _mux_runs(container, stream, encoders, runs)
    except av.error.FFmpegError as error:
        raise VideoError(path, "not-encodable", f"the encoder says: {error.strerror}") from error
    return file.getvalue()


def _video_encoder() -> av.VideoCodecContext:
    return cast(av.VideoCodecContext, av.CodecContext.create("libx264", "w"))


def _set_up(
    encoder: av.VideoCodecContext, size: tuple[int, ...], rate: Fraction, keyframe_every: int, crf: int
) -> av.VideoCodecContext:
    encoder.height, encoder.width = size
    encoder.pix_fmt, encoder.framerate, encoder.time_base = "yuv420p", rate, 1 / rate
    encoder.gop_size, encoder.thread_count = keyframe_every, 1
    encoder.flags |= av.codec.context.Flags.global_header
    encoder.options = _H264_OPTIONS | {"tune": "fastdecode", "crf": str(crf)}
    return encoder


def _mux_runs(
    container: Any,
    stream: av.VideoStream,
    encoders: Sequence[av.VideoCodecContext],
    runs: Sequence[list[av.Packet]],
) -> None:
    """Write the runs one after the other, with times that go on from one to the next."""
    position = 0
    for run, encoder in enumerate(encoders):
        for packet in runs[run] + encoder.encode(None):
            packet.pts = packet.dts = position
            packet.stream = stream
            container.mux(packet)
            position += 1
