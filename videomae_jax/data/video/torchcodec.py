"""Frames decoded by torchcodec, where it is installed; which frames there are, and when, is PyAV's to say."""

import importlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from videomae_jax.data.video.decoder import Video
from videomae_jax.data.video.frames import Frame, RgbFrame, VideoError
from videomae_jax.errors import InputError

# Matrices beyond those of common video, such as YCgCo (8), BT.2020 with constant luminance (10), ICtCp (14).
_RARE_COLOURS = frozenset({8, *range(10, 32)})
_AVI_CHUNK_HEADER = 8
# Seconds; presentation times are sums of rounded numbers.
_SAME_TIME = 1e-4


class TorchcodecVideo(Video):
    """A video whose frames torchcodec decodes, found by their presentation times."""

    def read_frames(self, indices: Sequence[int]) -> Iterator[tuple[int, Frame]]:
        """Yield (index, frame) for each different index, rising; all of them are decoded at once.

        Raises VideoError when torchcodec cannot decode them or would give other frames, InputError when it
        cannot be loaded.
        """
        wanted = self.check_indices(indices)
        if reason := self._why_not():
            raise self._failed(wanted, reason)
        if wanted and self._passes.stream.codec_context.colorspace in _RARE_COLOURS:
            # PyAV says which it cannot convert; torchcodec would give others.
            for _, frame in super().read_frames(wanted[:1]):
                frame.rgb()
        times = self.timestamps[wanted]
        decoder_class = _load()
        try:
            decoder = decoder_class(
                self.path if self._passes.content is None else self._passes.content,
                stream_index=self._passes.stream.index,
                dimension_order="NHWC",
                num_ffmpeg_threads=1,
            )
            found = decoder.get_frames_played_at((times + _SAME_TIME / 2).tolist())
        except (RuntimeError, ValueError, IndexError) as error:
            raise self._failed(wanted, f"torchcodec says: {str(error).splitlines()[0]}") from error
        apart = np.abs(found.pts_seconds.numpy() - times)
        if apart.max(initial=0) > _SAME_TIME:
            worst = int(apart.argmax())
            detail = f"torchcodec gives a frame {apart[worst]:.3f} s from frame {wanted[worst]}"
            raise self._failed(wanted, detail)
        for index, image in zip(wanted, found.data.numpy(), strict=True):
            yield index, RgbFrame(image, self._converters)

    def _why_not(self) -> str | None:
        """Why torchcodec would give wrong frames; None where it does not."""
        packets = self._passes.packets
        if self._times is None:
            return "its packets do not prove which frames there are, which torchcodec takes for granted"
        if packets.starts != packets.told_starts or not self._index_is_whole():
            return "the index of its container leads to other frames than it says"
        shown = self.orientation
        if shown.mirrored or shown.ignored_degrees or (shown.turns and self._turns_in_pictures):
            return f"torchcodec shows it otherwise where a video is {shown.note}"
        return None

    def _index_is_whole(self) -> bool:
        """Whether the index of an AVI file has each packet in its place."""
        if self._passes.packets.container != "avi":
            return True
        index = [
            (entry.timestamp, entry.pos + _AVI_CHUNK_HEADER) for entry in self._passes.stream.index_entries
        ]
        return index == list(zip(self._passes.packets.dts, self._passes.packets.places, strict=True))

    def _failed(self, wanted: list[int], detail: str) -> VideoError:
        """The error for frames that torchcodec does not give: of the video, or else of torchcodec."""
        try:
            for _ in super().read_frames(wanted):
                pass
        except VideoError as error:
            return error
        return VideoError(self.path, "needs-pyav", detail)


def _load() -> Any:
    try:
        return importlib.import_module("torchcodec.decoders").VideoDecoder
    except (ImportError, OSError, RuntimeError) as error:
        raise InputError(
            "data.decoder=torchcodec, but torchcodec does not load: "
            f"{str(error).strip().splitlines()[0]}. It needs torch and FFmpeg's shared libraries: install "
            "them, or leave --data.decoder at pyav"
        ) from error
