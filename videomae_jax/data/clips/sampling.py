"""Which frames a clip takes: the reference's rules, with draws from a numpy Generator.

*Dense* clips take frames `sampling_rate` apart from one stretch of a video, *uniform* ones a frame from each
of `num_frames` even parts. `num_frames_in_video` counts the frames of the segment that is read.

A test with 2 temporal segments and 3 spatial crops averages 6 views. Here a clip of 4 frames is taken from a
video of 16, whose frames are 8 wide and 4 high after scaling; 0 and 1 mark the frames of the two clips, x the
columns of a crop:

    frame                      0  1  2  3  4  5  6  7  8  9 10 11 12 13 14 15
    dense, sampling rate 2     0     0     0     0     1     1     1     1
    dense, sampling rate 3     0        0        01       01       1        1
    uniform                    0     1     0     1     0     1     0     1

    column                     0  1  2  3  4  5  6  7
    crop (0, 0, 4, 4)          x  x  x  x
    centre crop (2, 0, 6, 4)         x  x  x  x
    crop (4, 0, 8, 4)                      x  x  x  x
"""

import numpy as np
from jaxtyping import Float64, Int64

from videomae_jax.config import LabelledDataConfig, VideosConfig


def num_starts(num_frames_in_video: int, num_frames: int, sampling_rate: int) -> int:
    """How many starts a clip can have; 1 for videos too short to fill it."""
    return max(0, num_frames_in_video - num_frames * sampling_rate) + 1


def pretrain_indices(
    num_frames_in_video: int, num_frames: int, sampling_rate: int, start: int
) -> Int64[np.ndarray, " T"]:
    """Every `sampling_rate`-th frame from `start`; where a video ends early its last such frame repeats.

    Like the reference, the video's very last frame is never reached by stepping.
    """
    indices = start + sampling_rate * np.arange(num_frames)
    if num_frames_in_video >= start + num_frames * sampling_rate:
        return indices
    steps = max(0, num_frames_in_video - 2 - start) // sampling_rate
    return np.minimum(indices, start + steps * sampling_rate)


def draw_start(
    rng: np.random.Generator, num_frames_in_video: int, num_frames: int, sampling_rate: int
) -> int:
    """A start drawn evenly from those that leave room for the whole clip."""
    return int(rng.integers(num_starts(num_frames_in_video, num_frames, sampling_rate)))


def centre_indices(num_frames_in_video: int, num_frames: int, sampling_rate: int) -> Int64[np.ndarray, " T"]:
    """The dense clip in the middle of the video."""
    shape = num_frames_in_video, num_frames, sampling_rate
    return pretrain_indices(*shape, (num_starts(*shape) - 1) // 2)


def draw_end(rng: np.random.Generator, num_frames_in_video: int, num_frames: int, sampling_rate: int) -> int:
    """The end of a clip for fine-tuning, drawn evenly; like the reference, never the end of the video.

    A video no longer than the clip's stretch has no choice: the end of the video.
    """
    stretch = num_frames * sampling_rate
    if num_frames_in_video <= stretch:
        return num_frames_in_video
    return int(rng.integers(stretch, num_frames_in_video))


def finetune_indices(
    num_frames_in_video: int, num_frames: int, sampling_rate: int, end: int
) -> Int64[np.ndarray, " T"]:
    """`num_frames` frames spread evenly over the `num_frames` x `sampling_rate` ones before `end`.

    Videos that are no longer than that give every `sampling_rate`-th frame or so, and then their last.
    """
    stretch = num_frames * sampling_rate
    if num_frames_in_video > stretch:
        indices = np.linspace(end - stretch, end, num_frames)
    else:
        end = num_frames_in_video
        indices = np.full(num_frames, end, np.float64)
        indices[: end // sampling_rate] = np.linspace(0, end, end // sampling_rate)
    return np.minimum(indices, end - 1).astype(np.int64)


def draw_uniform_indices(
    rng: np.random.Generator, num_frames_in_video: int, num_frames: int
) -> Int64[np.ndarray, " T"]:
    """A frame drawn from each of `num_frames` parts of equal whole length; what is left at the end is unused.

    Like the reference, a video with fewer frames gives its first one again and again.
    """
    length = num_frames_in_video // num_frames
    if not length:
        return np.zeros(num_frames, np.int64)
    return length * np.arange(num_frames) + rng.integers(length, size=num_frames)


def dense_test_indices(
    num_frames_in_video: int, num_frames: int, sampling_rate: int, num_segments: int
) -> Int64[np.ndarray, "segments T"]:
    """Clips of every `sampling_rate`-th frame, evenly from the first to the last; short videos repeat theirs.

    A single segment, for which the reference divides by zero, is the middle clip.
    """
    if num_segments == 1:
        return centre_indices(num_frames_in_video, num_frames, sampling_rate)[None]
    frames = np.arange(0, num_frames_in_video, sampling_rate)
    room = max(0, len(frames) - num_frames)
    starts = (np.arange(num_segments) * (room / (num_segments - 1))).astype(np.int64)
    return frames[np.minimum(starts[:, None] + np.arange(num_frames), len(frames) - 1)]


def uniform_test_indices(
    num_frames_in_video: int, num_frames: int, num_segments: int
) -> Int64[np.ndarray, "segments T"]:
    """The video in `num_frames` even parts: of each, clip k takes the frame k / `num_segments` on the way.

    A single clip takes the middle of each part, as when validating; the originals' tests have several.
    """
    if num_segments == 1:
        return uniform_test_indices(num_frames_in_video, num_frames, 2)[1:]
    parts = num_segments * np.arange(num_frames) + np.arange(num_segments)[:, None]
    return num_frames_in_video * parts // (num_segments * num_frames)


def segment_indices(
    num_frames_in_video: int, num_frames: int, data: VideosConfig, num_segments: int
) -> Int64[np.ndarray, "segments T"]:
    """The clips of a test, sampled as `data` says; a single one is the middle, as when validating."""
    if isinstance(data, LabelledDataConfig) and data.sampling == "uniform":
        return uniform_test_indices(num_frames_in_video, num_frames, num_segments)
    return dense_test_indices(num_frames_in_video, num_frames, data.sampling_rate, num_segments)


def clip_seconds(
    times: Float64[np.ndarray, " t"], first: Int64[np.ndarray, " n"], end: Int64[np.ndarray, " n"]
) -> Float64[np.ndarray, "n 2"]:
    """Times of frames `first` and `end`; the frame after the video's last comes as late as that one did."""
    step = times[-1] - times[-2] if len(times) > 1 else 0.0
    times = np.append(times, times[-1] + step)
    return np.stack([times[first], times[end]], axis=1)
