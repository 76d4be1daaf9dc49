"""A clip of a video file, as a model takes it."""

import os

import numpy as np
from jaxtyping import UInt8

from videomae_jax.config import VideoMAEConfig, check_rgb
from videomae_jax.data.cropping import centre_clip
from videomae_jax.data.prepared import open_record
from videomae_jax.data.sampling import centre_start, pretrain_indices
from videomae_jax.data.sources import VideoRecord
from videomae_jax.data.video import VideoError
from videomae_jax.errors import InputError


def read_clip(
    path: str | os.PathLike[str], config: VideoMAEConfig, sampling_rate: int | None = None
) -> UInt8[np.ndarray, "T H W c"]:
    """The middle square of the middle clip of a video: RGB frames, every `sampling_rate`-th one.

    The rate is 4 unless given, as the published models are trained; that of a run here is in its processor.
    Raises InputError when the video cannot be read.
    """
    return read_timed_clip(path, config, sampling_rate or 4)[0]


def read_timed_clip(
    path: str | os.PathLike[str], config: VideoMAEConfig, sampling_rate: int
) -> tuple[UInt8[np.ndarray, "T H W c"], float]:
    """As `read_clip`, with the seconds between its frames."""
    check_rgb("read_clip", config)
    try:
        with open_record(VideoRecord(os.fspath(path), "")) as video:
            times = video.timestamps
            start = centre_start(len(times), config.num_frames, sampling_rate)
            indices = pretrain_indices(len(times), config.num_frames, sampling_rate, start)
            clip = np.empty((len(indices), config.image_size, config.image_size, 3), np.uint8)
            for index, frame in video.read(np.unique(indices).tolist()):
                clip[indices == index] = centre_clip(frame[None], config.image_size)
    except VideoError as error:
        raise InputError(str(error)) from error
    seconds = float(times[-1] - times[0]) / max(1, len(times) - 1) * sampling_rate
    return clip, min(max(seconds, 0.05), 0.5)


__all__ = ["read_clip", "read_timed_clip"]
