"""Frames decoded by torchcodec, where it is installed; which frames there are, and when, is PyAV's to say."""

import importlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from videomae_jax.data.cropping import Frame, RgbFrame
from videomae_jax.data.video import Video
from videomae_jax.data.video_frames import VideoError
from videomae_jax.errors import InputError

# Seconds; presentation times are sums of rounded numbers.
_SAME_TIME = 1e-4


class TorchcodecVideo(Video):
    """A video whose frames torchcodec decodes, found by their presentation times."""

    def read_frames(self, indices: Sequence[int]) -> Iterator[tuple[int, Frame]]:
        """Yield (index, frame) for each different index, rising; all of them are decoded at once.

        Raises VideoError when torchcodec cannot decode them or gives other frames, InputError when it cannot
        be loaded.
        """
        wanted = self.check_indices(indices)
        if self._times is None and not self.scan.tells_times:
            raise VideoError(
                self.path,
                "needs-pyav",
                "its times are not those of its frames, by which torchcodec finds them",
            )
        if self.orientation.mirrored or (self._turns_in_pictures and self.orientation.turns):
            raise VideoError(
                self.path, "needs-pyav", f"torchcodec does not undo this: {self.orientation.note}"
            )
        times = self.timestamps[wanted]
        decoder_class = _load()
        try:
            decoder = decoder_class(
                self.path if self._content is None else self._content,
                stream_index=self._stream.index,
                dimension_order="NHWC",
                num_ffmpeg_threads=1,
            )
            found = decoder.get_frames_played_at((times + _SAME_TIME / 2).tolist())
        except (RuntimeError, ValueError, IndexError) as error:
            detail = f"torchcodec says: {str(error).splitlines()[0]}"
            raise VideoError(self.path, "damaged", detail) from error
        apart = np.abs(found.pts_seconds.numpy() - times)
        if apart.max(initial=0) > _SAME_TIME:
            worst = int(apart.argmax())
            detail = f"torchcodec gives a frame {apart[worst]:.3f} s from frame {wanted[worst]}"
            raise VideoError(self.path, "damaged", detail)
        for index, image in zip(wanted, found.data.numpy(), strict=True):
            yield index, RgbFrame(image)


def _load() -> Any:
    try:
        return importlib.import_module("torchcodec.decoders").VideoDecoder
    except (ImportError, OSError, RuntimeError) as error:
        raise InputError(
            "data.decoder=torchcodec, but torchcodec does not load: "
            f"{str(error).strip().splitlines()[0]}. It needs torch and FFmpeg's shared libraries: install "
            "them, or leave --data.decoder at pyav"
        ) from error
