"""Where a label's class stands among all: of equal scores, the class with the lowest number is the better."""

from typing import Any

import numpy as np
from jaxtyping import Array, Float, Int, Int64

TOP = 5
"""Accuracy is also counted among so many best classes, where there are more classes."""


def classes_ahead(
    scores: Float[Array | np.ndarray, "n y"], labels: Int[Array | np.ndarray, " n"]
) -> Int[Array | np.ndarray, " n"]:
    """How many classes are better than the label's own: 0 is a hit, below 5 a hit among the best five.

    Scores that are no numbers make it a miss. Of NumPy's arrays and of JAX's.
    """
    xp: Any = scores.__array_namespace__()
    own = xp.take_along_axis(scores, labels[:, None], axis=1)
    behind = (scores < own) | ((scores == own) & (xp.arange(scores.shape[1]) >= labels[:, None]))
    return (~behind).sum(axis=1)


def best_classes(scores: Float[np.ndarray, "n y"], k: int) -> Int64[np.ndarray, "n k"]:
    """The `k` best classes of each row, the best first."""
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]
