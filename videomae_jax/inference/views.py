"""Views of a video, clips at several times and crops of each: which are taken, and the mean of their scores.

Views are classified by themselves; a video's score is the mean of their softmax, as in the original (there
since commit 2254c5e), taken in float64 and in the order of the views, so that no batching changes it. Models
of several labels at a time have sigmoids instead, those of regression the values themselves.
"""

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import jax
import numpy as np
from jaxtyping import Float64, Int64, UInt8

from videomae_jax.checkpoints.processing_json import read_processing
from videomae_jax.config import LabelledDataConfig, ViewsConfig
from videomae_jax.data.clips.readers import TestViews
from videomae_jax.data.loading.batches import each_video
from videomae_jax.data.loading.failures import Failure
from videomae_jax.data.loading.filling import ClipBatch
from videomae_jax.data.loading.workers import Workers
from videomae_jax.data.records import VideoRecord
from videomae_jax.data.sets import Decoder
from videomae_jax.data.video.decoder import MAX_PIXELS
from videomae_jax.errors import InputError, RunError
from videomae_jax.inference.predictor import Predictor, rows
from videomae_jax.model_config import Dtype
from videomae_jax.processing import Processing
from videomae_jax.training.memory import out_of_memory_explained, smaller_batches

Sampling = Literal["dense", "uniform"]


@dataclass(frozen=True, kw_only=True)
class DenseInference:
    """How commands read videos and compute with them."""

    sampling_rate: int | None = None
    """Take every n-th frame; by default as in training, or 4. Without effect on uniform sampling."""
    root: str | None = None
    """What relative paths in lists start from; by default the folder of the list."""
    decoder: Decoder = "pyav"
    """The library that decodes; torchcodec only where it is installed. Pixels differ a little."""
    max_pixels: int = MAX_PIXELS
    """Refuse videos with more pixels in a frame, which bounds the memory of reading."""
    dtype: Dtype = "auto"
    """Compute dtype: "auto" is bfloat16 or float16 on GPUs and TPUs, float32 on a CPU."""


@dataclass(frozen=True, kw_only=True)
class Inference(DenseInference):
    """The same, and which frames are taken."""

    sampling: Sampling | None = None
    """Frames `sampling_rate` apart, or spread over the whole video; by default as in training, or dense."""


def check_at_least_one(**numbers: int | None) -> None:
    """Raise InputError for an option below 1."""
    for name, value in numbers.items():
        if value is not None and value < 1:
            raise InputError(f"--{name.replace('_', '-')} {value} must be 1 or more")


def choose_views(
    checkpoint: str | Path,
    settings: Inference,
    num_segments: int | None = None,
    num_crops: int | None = None,
    revision: str | None = None,
) -> tuple[LabelledDataConfig, ViewsConfig]:
    """Settings for `TestViews`; None takes what is recorded with the checkpoint, as its training had it.

    Where nothing is recorded, those published for Kinetics: dense, every 4th frame, 5 segments, 3 crops.
    Raises InputError for a number below 1, and where there is no such checkpoint.
    """
    frames = {"sampling": settings.sampling, "sampling_rate": settings.sampling_rate}
    numbers = {"num_segments": num_segments, "num_crops": num_crops}
    check_at_least_one(sampling_rate=settings.sampling_rate, **numbers)
    trained = vars(read_processing(checkpoint, revision) or Processing())

    def settled(values: dict) -> dict:
        found = {name: trained[name] if value is None else value for name, value in values.items()}
        return {name: value for name, value in found.items() if value is not None}

    data = LabelledDataConfig(decoder=settings.decoder, max_pixels=settings.max_pixels)
    return replace(data, **settled(frames)), replace(ViewsConfig(), **settled(numbers))


@dataclass(frozen=True)
class Scored:
    """Some videos that were read, each with the mean score of its views, and those that could not be."""

    record_ids: Int64[np.ndarray, " n"]
    """Positions in the videos asked for."""
    scores: Float64[np.ndarray, "n y"]
    failures: tuple[Failure, ...]


def score_videos(
    predictor: Predictor,
    videos: Sequence[VideoRecord],
    data: LabelledDataConfig,
    views: ViewsConfig,
    *,
    batch_size: int,
    num_workers: int,
    workers: Workers | None = None,
) -> Generator[Scored, None, None]:
    """Every video exactly once, some at a time and in order; with several processes, this one's share.

    Args:
      data: which frames are taken; only `sampling` and `sampling_rate` count.
      batch_size: about how many views are classified at a time, over all devices.

    A video that cannot be read is never replaced and changes no other's score. Raises RunError when scores
    are not finite, memory runs out or a decoding process dies.
    """
    per_video, processes = views.num_segments * views.num_crops, jax.process_count()
    slots = max(1, min(batch_size // (per_video * processes), -(-len(videos) // processes)))
    steps = -(-slots * per_video // max(1, batch_size // processes))
    # Each step has as many views: all that a batch of videos gives, shared out over steps and devices.
    devices = len(predictor.mesh.local_devices)
    step_size = -(-slots * per_video // (steps * devices)) * devices
    read = each_video(
        videos,
        TestViews(predictor.config, data, views),
        batch_size=slots * processes,
        num_workers=num_workers,
        workers=workers,
        process_index=jax.process_index(),
        process_count=processes,
    )
    waiting: tuple[ClipBatch, list[jax.Array]] | None = None
    with closing(read), out_of_memory_explained(smaller_batches):
        for batch in read:
            started = [predictor.start(clips) for clips in _split(batch.arrays["video"], step_size)]
            if waiting:  # The batch before: its scores are fetched while this one is computed.
                yield _finish(*waiting, per_video)
            waiting = batch, started
        if waiting:
            yield _finish(*waiting, per_video)


def _split(clips: UInt8[np.ndarray, "b T H W c"], size: int) -> Iterator[UInt8[np.ndarray, "s T H W c"]]:
    """Parts of `size` clips, the last one filled up with black ones."""
    for start in range(0, len(clips), size):
        part = clips[start : start + size]
        if len(part) < size:
            part = np.concatenate([part, np.zeros((size - len(part), *part.shape[1:]), np.uint8)])
        yield part


def _finish(batch: ClipBatch, started: list[jax.Array], per_video: int) -> Scored:
    """Average the views of each video."""
    slots = batch.record_ids.reshape(-1, per_video)[:, 0]
    found = np.concatenate([rows(part) for part in started])[: len(slots) * per_video]
    each = found.astype(np.float64).reshape(len(slots), per_video, -1)[slots >= 0]
    if not np.isfinite(each).all():
        raise RunError(
            "the model's scores are not finite: its weights hold NaN or infinity, or overflow in its dtype"
        )
    return Scored(slots[slots >= 0], each.mean(axis=1), tuple(batch.failures))
