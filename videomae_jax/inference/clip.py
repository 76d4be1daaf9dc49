"""A clip of a video, a file or one of a set (FOLDER#SPLIT/POSITION), as a model takes it."""

import numpy as np
from jaxtyping import UInt8

from videomae_jax.data.clips.sampling import centre_indices
from videomae_jax.data.cropping import centre_square
from videomae_jax.data.records import VideoLike, as_records
from videomae_jax.data.sets import Decoder, find_segment, open_record
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
    try:
        with open_record(record, decoder, max_pixels) as opened:
            times = opened.timestamps
            first, count = find_segment(record, opened)
            indices = first + centre_indices(count, config.num_frames, sampling_rate)
            clip = np.empty((len(indices), config.image_size, config.image_size, 3), np.uint8)
            for index, frame in opened.read(np.unique(indices).tolist()):
                clip[indices == index] = centre_square(frame, config.image_size)
    except VideoError as error:
        raise InputError(str(error)) from error
    seconds = float(times[-1] - times[0]) / max(1, len(times) - 1) * sampling_rate
    return clip, min(max(seconds, 0.05), 0.5)
