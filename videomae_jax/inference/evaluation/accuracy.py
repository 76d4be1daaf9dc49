"""How well scores of classes fit labels."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Int64

from videomae_jax.models.ranking import best_classes, classes_ahead


@dataclass(frozen=True)
class Accuracy:
    """Hits among videos that could be read, and the videos that could not."""

    correct: int
    read: int
    failed: int = 0

    @property
    def share(self) -> float:
        """Hits per video read."""
        return self.correct / self.read

    @property
    def standard_error(self) -> float:
        """Of a binomial: how far `share` would stray if as many other videos of this kind were drawn."""
        return math.sqrt(self.share * (1 - self.share) / self.read)

    @property
    def share_failures_wrong(self) -> float:
        """Hits per video, one that could not be read counting as wrong."""
        return self.correct / (self.read + self.failed)


@dataclass(frozen=True)
class ClassAccuracy:
    """Hits among the videos of one class that could be read."""

    number: int
    name: str
    videos: int
    correct: int

    @property
    def share(self) -> float | None:
        """None where there is no video."""
        return self.correct / self.videos if self.videos else None


def class_accuracies(
    scores: Float[np.ndarray, "n y"], labels: Int[np.ndarray, " n"], names: tuple[str, ...]
) -> tuple[ClassAccuracy, ...]:
    """Top-1 for each class by itself."""
    hits = classes_ahead(scores, labels) == 0
    videos, correct = (np.bincount(each, minlength=len(names)) for each in (labels, labels[hits]))
    return tuple(ClassAccuracy(n, name, int(videos[n]), int(correct[n])) for n, name in enumerate(names))


def confusion_matrix(
    scores: Float[np.ndarray, "n y"], labels: Int[np.ndarray, " n"]
) -> Int64[np.ndarray, "y y"]:
    """How many videos of each class (row) were taken for which (column)."""
    num_labels = scores.shape[1]
    pairs = labels * num_labels + best_classes(scores, 1)[:, 0]
    return np.bincount(pairs, minlength=num_labels**2).reshape(num_labels, num_labels)
