"""Classification by the labels of the nearest features: the k-NN of self-supervised papers."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int, Int64

TEMPERATURE = 0.07
_QUERIES = 256


def neighbour_scores(
    bank: Float32[np.ndarray, "n d"],
    labels: Int64[np.ndarray, " n"],
    queries: Float32[np.ndarray, "q d"],
    ks: tuple[int, ...],
    num_labels: int,
) -> Float32[np.ndarray, "ks q y"]:
    """Each class's share of the k nearest features, by cosine, for each k (at most n).

    A neighbour counts exp(cosine / 0.07).
    """
    bank, queries = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (bank, queries))
    on_device = [jnp.asarray(each) for each in (bank, labels)]
    scores = []
    for first in range(0, len(queries), _QUERIES):
        part = queries[first : first + _QUERIES]
        scores.append(_vote(*on_device, part, ks=ks, num_labels=num_labels))
    return np.concatenate([np.asarray(each) for each in scores], axis=1)


@partial(jax.jit, static_argnames=("ks", "num_labels"))
def _vote(
    bank: Float[Array, "n d"],
    labels: Int[Array, " n"],
    queries: Float[Array | np.ndarray, "q d"],
    ks: tuple[int, ...],
    num_labels: int,
) -> Float[Array, "ks q y"]:
    cosines = jnp.matmul(queries, bank.T, precision=jax.lax.Precision.HIGHEST)
    nearest, rows = jax.lax.top_k(cosines, max(ks))
    # Relative to the nearest, which changes no share.
    weights = jnp.exp((nearest - nearest[:, :1]) / TEMPERATURE)
    votes = jnp.cumsum(jax.nn.one_hot(labels[rows], num_labels) * weights[..., None], axis=1)
    return jnp.stack([votes[:, k - 1] / votes[:, k - 1].sum(axis=1, keepdims=True) for k in ks])
