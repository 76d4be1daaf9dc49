"""A classifier made ready for uint8 clips: on all devices, with the normalisation that it was trained with.

Views of a video are classified by themselves; its score is the mean of their softmax, as in the original
(there since commit 2254c5e), taken in float64 and in the order of the views, so that no batching changes it.
Models of several labels at a time have sigmoids instead, those of regression the values themselves.
"""

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Float64, Int64, UInt8

from videomae_jax.checkpoints.processing_json import read_processing
from videomae_jax.config import LabelledDataConfig, ViewsConfig
from videomae_jax.data.clips.readers import TestViews
from videomae_jax.data.loading.batches import ClipBatch, each_video
from videomae_jax.data.loading.slots import Failure
from videomae_jax.data.records import VideoRecord
from videomae_jax.errors import RunError
from videomae_jax.model_config import VideoMAEConfig, check_rgb
from videomae_jax.models.axes import axis_rules
from videomae_jax.models.classification import (
    VideoMAEForVideoClassification,
    VideoMAEForVideoClassificationOutput,
)
from videomae_jax.processing import IMAGENET_MEAN, IMAGENET_STD, Processing
from videomae_jax.training.memory import out_of_memory_explained
from videomae_jax.training.sharding import RULES, OnMesh, batch_sharding, make_mesh, replicated


@dataclass(frozen=True)
class Normalization:
    """Pixels from 0 to 255 times `scale`, less `mean`, divided by `std`; by default ImageNet's."""

    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    scale: float = 1 / 255

    def __call__(self, pixels: UInt8[Array, "... c"]) -> Float[Array, "... c"]:
        mean, std = (jnp.array(values, jnp.float32) for values in (self.mean, self.std))
        return (pixels.astype(jnp.float32) * jnp.float32(self.scale) - mean) / std


def read_normalization(source: str | Path, revision: str | None = None) -> Normalization:
    """That with which a checkpoint of any kind was trained; ImageNet's where it does not say."""
    return Normalization(*(read_processing(source, revision) or Processing()).normalization)


class Predictor:
    """A classifier on a mesh of all devices. `config` is the model's; parameters lie whole on each device."""

    def __init__(
        self, config: VideoMAEConfig, params: Any, normalization: Normalization | None = None
    ) -> None:
        """Place `params`, which every process holds whole; raises InputError for a model of no RGB videos."""
        check_rgb("scoring", config)
        self.config, self.normalization = config, normalization or Normalization()
        self.mesh = make_mesh()
        everywhere, batch = replicated(self.mesh), batch_sharding(self.mesh)
        self.params = jax.tree.map(
            lambda leaf: jax.make_array_from_process_local_data(everywhere, np.asarray(leaf)), params
        )
        jitted = jax.jit(
            partial(view_scores, config=config, normalization=self.normalization),
            in_shardings=(everywhere, batch),
            out_shardings=batch,
        )
        self._classify = OnMesh(jitted, self.mesh)

    @classmethod
    def from_pretrained(cls, source: str | Path, *, revision: str | None = None) -> "Predictor":
        """From a Hugging Face folder or hub id, a work folder or a step folder.

        Raises InputError where there is no classifier.
        """
        model, params = VideoMAEForVideoClassification.from_pretrained(source, revision=revision)
        return cls(model.config, params, read_normalization(source, revision))

    def start(self, clips: UInt8[np.ndarray, "b T H W c"]) -> jax.Array:
        """Start to classify this process's part of a batch: scores (b, y) that `rows` waits for.

        All processes must call it with as many clips, a multiple of the devices of each.
        """
        return self._classify(
            self.params, jax.make_array_from_process_local_data(batch_sharding(self.mesh), clips)
        )


def view_scores(
    params: Any, clips: UInt8[Array, "b T H W c"], *, config: VideoMAEConfig, normalization: Normalization
) -> Float[Array, "b y"]:
    with axis_rules(RULES):
        output = VideoMAEForVideoClassification(config).apply({"params": params}, normalization(clips))
    assert isinstance(output, VideoMAEForVideoClassificationOutput)
    logits = output.logits.astype(jnp.float32)
    if config.score_kind == "value":
        return logits
    return jax.nn.sigmoid(logits) if config.score_kind == "sigmoid" else jax.nn.softmax(logits)


def rows(split: jax.Array) -> Float32[np.ndarray, "b y"]:
    """The rows of a batch that this process put in, in its order."""
    shards = sorted(split.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return np.concatenate([np.asarray(shard.data) for shard in shards])


@dataclass(frozen=True)
class Scored:
    """Some videos that were read, each with the mean score of its views, and those that could not be."""

    record_ids: Int64[np.ndarray, " n"]
    """Positions in the videos asked for."""
    scores: Float64[np.ndarray, "n y"]
    failures: tuple[Failure, ...]


def score_videos(
    predictor: Predictor,
    videos: tuple[VideoRecord, ...],
    data: LabelledDataConfig,
    views: ViewsConfig,
    *,
    batch_size: int,
    num_workers: int,
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
        yield np.concatenate([part, np.zeros((size - len(part), *part.shape[1:]), np.uint8)])


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


def smaller_batches() -> str:
    """What to do where the devices run out of memory."""
    return "lower --batch-size, or --test-batch-size of a run's final test"


__all__ = [
    "Normalization",
    "Predictor",
    "Scored",
    "read_normalization",
    "rows",
    "score_videos",
    "smaller_batches",
]
