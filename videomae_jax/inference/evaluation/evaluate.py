"""A classifier's scores on labelled videos, and what follows from them.

A video is its path and segment, never its file name alone, so files of one name in two folders stay apart.
One that cannot be read is counted and reported; no other takes its place.
"""

import pickle
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Float64, Int64
from tqdm import tqdm

from videomae_jax.config import LabelledDataConfig, ViewsConfig
from videomae_jax.data.loading.failures import Failure
from videomae_jax.data.loading.workers import Workers
from videomae_jax.data.records import VideoRecord
from videomae_jax.errors import RunError
from videomae_jax.inference.evaluation.accuracy import Accuracy, ClassAccuracy, class_accuracies
from videomae_jax.inference.predictor import Predictor
from videomae_jax.inference.views import Scored, score_videos
from videomae_jax.model_config import ScoreKind
from videomae_jax.models.ranking import TOP, classes_ahead


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The scores of all videos, and what follows from them."""

    videos: Sequence[VideoRecord]
    """With the labels as the model numbers them."""
    class_names: tuple[str, ...]
    scores: Float64[np.ndarray, "n y"]
    """Mean score of the views of each video, as in `Predictor`; 0 where it could not be read."""
    failures: Mapping[int, Failure]
    """Why a video could not be read, by its position in `videos`."""
    score_kind: ScoreKind = "softmax"

    @property
    def labels(self) -> Int64[np.ndarray, " n"]:
        return np.array([video.label for video in self.videos], np.int64)

    @property
    def read(self) -> Int64[np.ndarray, " r"]:
        """Positions of the videos that could be read."""
        return np.array([n for n in range(len(self.videos)) if n not in self.failures], np.int64)

    def top(self, k: int) -> Accuracy:
        """How often the label is among the `k` best classes."""
        hits = classes_ahead(self.scores[self.read], self.labels[self.read]) < k
        return Accuracy(int(hits.sum()), len(hits), len(self.failures))

    @property
    def top1(self) -> Accuracy:
        return self.top(1)

    @property
    def top5(self) -> Accuracy | None:
        """None where there are no more than five classes."""
        return self.top(TOP) if len(self.class_names) > TOP else None

    @property
    def classes(self) -> tuple[ClassAccuracy, ...]:
        return class_accuracies(self.scores[self.read], self.labels[self.read], self.class_names)


def evaluate_videos(
    predictor: Predictor,
    videos: Sequence[VideoRecord],
    class_names: tuple[str, ...],
    data: LabelledDataConfig,
    views: ViewsConfig,
    *,
    batch_size: int = 32,
    num_workers: int = 4,
    workers: Workers | None = None,
) -> Evaluation:
    """Score labelled videos, on all processes together; the result is the same on each of them.

    Args: see `score_videos`. Raises RunError when no video could be read, and as `score_videos` does.
    """
    parts = []
    scored = score_videos(
        predictor, videos, data, views, batch_size=batch_size, num_workers=num_workers, workers=workers
    )
    with tqdm(total=len(videos), desc="evaluating", unit="video", disable=jax.process_index() > 0) as bar:
        for part in scored:
            parts.append(part)
            bar.update((len(part.record_ids) + len(part.failures)) * jax.process_count())
        bar.update(len(videos) - bar.n)
    whole = _from_all_processes(parts, predictor.config.num_labels)
    scores = np.zeros((len(videos), predictor.config.num_labels))
    scores[whole.record_ids] = whole.scores
    unread = sorted(set(range(len(videos))) - set(whole.record_ids.tolist()))
    if len(unread) == len(videos):
        raise RunError(
            f"none of the {len(videos)} videos could be read, the first being {whole.failures[0].error}. "
            "See which can be with: videomae-jax check-data LIST"
        )
    failures = _by_position(unread, videos, whole.failures)
    return Evaluation(videos, class_names, scores, failures, predictor.config.score_kind)


def _from_all_processes(parts: list[Scored], num_labels: int) -> Scored:
    """What all processes together have scored, from this one's share of it."""
    everything = [part for share in _gather(pickle.dumps(parts)) for part in pickle.loads(share)]
    return Scored(
        np.concatenate([np.zeros(0, np.int64), *(part.record_ids for part in everything)]),
        np.concatenate([np.zeros((0, num_labels)), *(part.scores for part in everything)]),
        tuple(failure for part in everything for failure in part.failures),
    )


def _gather(content: bytes) -> list[bytes]:
    """The bytes of every process; as bytes, because JAX would round float64 to float32."""
    lengths = np.ravel(multihost_utils.process_allgather(np.array(len(content), np.int32)))
    padded = np.zeros(lengths.max(), np.uint8)
    padded[: len(content)] = np.frombuffer(content, np.uint8)
    everything = multihost_utils.process_allgather(padded).reshape(len(lengths), -1)
    return [row[:length].tobytes() for row, length in zip(everything, lengths, strict=True)]


def _by_position(
    unread: list[int], videos: Sequence[VideoRecord], failures: tuple[Failure, ...]
) -> dict[int, Failure]:
    """Each failure with its video's position; segments of one file come in their order."""
    by_path = defaultdict(list)
    for failure in failures:
        by_path[failure.path].append(failure)
    return {position: by_path[videos[position].path].pop(0) for position in unread}
