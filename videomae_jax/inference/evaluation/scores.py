"""How well scores of classes fit labels. Of equal scores, the class with the lowest number is the better."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Int64

TOP = 5
"""Accuracy is also counted among so many best classes, where there are more classes."""


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


def best_classes(scores: Float[np.ndarray, "n y"], k: int) -> Int64[np.ndarray, "n k"]:
    """The `k` best classes of each row, the best first."""
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


def classes_ahead(scores: Float[np.ndarray, "n y"], labels: Int[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """How many classes are better than the label's own: 0 is a hit, below 5 a hit among the best five."""
    own = np.take_along_axis(scores, labels[:, None], axis=1)
    before = np.arange(scores.shape[1]) < labels[:, None]
    return ((scores > own) | ((scores == own) & before)).sum(axis=1)


def accuracy(
    scores: Float[np.ndarray, "n y"], labels: Int[np.ndarray, " n"], k: int, failed: int = 0
) -> Accuracy:
    """How often the label is among the `k` best classes."""
    return Accuracy(int((classes_ahead(scores, labels) < k).sum()), len(labels), failed)


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


__all__ = [
    "TOP",
    "Accuracy",
    "ClassAccuracy",
    "accuracy",
    "best_classes",
    "class_accuracies",
    "classes_ahead",
    "confusion_matrix",
]
