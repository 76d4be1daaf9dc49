"""A clip of a video, a file or one of a set (FOLDER#SPLIT/POSITION), as a model takes it."""

import numpy as np
from jaxtyping import UInt8

from videomae_jax.config import VideosConfig, ViewsConfig
from videomae_jax.data.clips.readers import TestViews
from videomae_jax.data.records import VideoLike, as_records
from videomae_jax.data.sets import Decoder
from videomae_jax.data.video import VideoError
from videomae_jax.data.video.decoder import MAX_PIXELS
from videomae_jax.errors import InputError
from videomae_jax.model_config import VideoMAEConfig, check_rgb


def read_clip(
    video: VideoLike,
    config: VideoMAEConfig,
    sampling_rate: int | None = None,
    decoder: Decoder = "pyav",
    max_pixels: int = MAX_PIXELS,
) -> UInt8[np.ndarray, "T H W c"]:
    """The centre crop of the middle clip of a video: RGB frames, every `sampling_rate`-th one.

    The rate is 4 unless given, as the published models are trained; that of a run here is in its processor.
    Raises InputError when the video cannot be read.
    """
    return read_timed_clip(video, config, sampling_rate or 4, decoder, max_pixels)[0]


def read_timed_clip(
    video: VideoLike, config: VideoMAEConfig, sampling_rate: int, decoder: Decoder, max_pixels: int
) -> tuple[UInt8[np.ndarray, "T H W c"], float]:
    """As `read_clip`, with the seconds between its frames."""
    check_rgb("read_clip", config)
    [record] = as_records([video])
    data = VideosConfig(sampling_rate=sampling_rate, decoder=decoder, max_pixels=max_pixels)
    try:
        found = TestViews(config, data, ViewsConfig(1, 1), times=True)(record, None)
    except VideoError as error:
        raise InputError(str(error)) from error
    [(begin, end)], [clip] = found["seconds"], found["video"]
    frames = (config.num_frames - 1) * sampling_rate + 1
    return clip, min(max(float(end - begin) / frames * sampling_rate, 0.05), 0.5)
