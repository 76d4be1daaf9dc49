"""Attention by blocks of queries, with a gradient of its own, so that all scores never exist at once.

The forward pass keeps the logarithm of each softmax's sum, from which the backward pass computes a block's
weights anew (FlashAttention-2, Dao 2023). All heads of a block are one batched product, which keeps every
core busy; the blocks come one after the other.
"""

import jax
import jax.numpy as jnp
from einops import rearrange
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

ROWS = 200
"""Queries in a block, at most: 1,568 make 8 blocks of 196 and 1,408 make 8 of 176, with none to fill up."""

KEPT = "attention"
"""The name under which `jax.checkpoint` may keep what the backward pass needs of the forward one."""

Residuals = tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]
"""q, k, v and the result as given and returned, and the logarithm of the sums by block."""


def _blocks(x: Float[Array, "b m k e"]) -> Float[Array, "s b k r e"]:
    """Blocks of equally many queries, in float32; the last is filled up with zeros."""
    blocks = -(-x.shape[1] // ROWS)
    rows = -(-x.shape[1] // blocks)
    x = jnp.pad(x, ((0, 0), (0, blocks * rows - x.shape[1]), (0, 0), (0, 0)))
    return rearrange(x, "b (s r) k e -> s b k r e", s=blocks).astype(jnp.float32)


def _joined(x: Float[Array, "s b k r e"], like: Float[Array, "b m k e"]) -> Float[Array, "b m k e"]:
    return rearrange(x, "s b k r e -> b (s r) k e")[:, : like.shape[1]].astype(like.dtype)


def _by_head(x: Float[Array, "b n k e"]) -> Float[Array, "b k n e"]:
    return rearrange(x, "b n k e -> b k n e").astype(jnp.float32)


@jax.custom_vjp
def blockwise_attention(
    q: Float[Array, "b m k e"], k: Float[Array, "b n k e"], v: Float[Array, "b n k e"]
) -> Float[Array, "b m k e"]:
    """softmax(q kᵀ / sqrt(e)) v for each of k heads, computed in float32, in the dtype of q."""
    return _forward(q, k, v)[0]


def _forward(
    q: Float[Array, "b m k e"], k: Float[Array, "b n k e"], v: Float[Array, "b n k e"]
) -> tuple[Float[Array, "b m k e"], Residuals]:
    keys, values = _by_head(k), _by_head(v)

    def block(q: Float[Array, "b k r e"]) -> tuple[Float[Array, "b k r e"], Float[Array, "b k r 1"]]:
        scores = jnp.einsum("bkre,bkne->bkrn", q, keys)
        largest = scores.max(axis=-1, keepdims=True)
        weights = jnp.exp(scores - largest)
        total = weights.sum(axis=-1, keepdims=True)
        return jnp.einsum("bkrn,bkne->bkre", weights, values) / total, largest + jnp.log(total)

    mixed, log_total = jax.lax.map(block, _blocks(q) * q.shape[-1] ** -0.5)
    out, log_total = checkpoint_name((_joined(mixed, q), log_total), KEPT)
    return out, (q, k, v, out, log_total)


def _backward(saved: Residuals, grad: Float[Array, "b m k e"]) -> tuple[jax.Array, jax.Array, jax.Array]:
    q, k, v, out, log_total = saved
    keys, values = _by_head(k), _by_head(v)
    grads = _blocks(grad)
    shared = (grads * _blocks(out)).sum(axis=-1, keepdims=True)

    def block(
        sums: tuple[jax.Array, jax.Array], of_block: tuple[jax.Array, ...]
    ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        q, grad, log_total, shared = of_block
        weights = jnp.exp(jnp.einsum("bkre,bkne->bkrn", q, keys) - log_total)
        by_scores = weights * (jnp.einsum("bkre,bkne->bkrn", grad, values) - shared)
        by_keys = sums[0] + jnp.einsum("bkrn,bkre->bkne", by_scores, q)
        by_values = sums[1] + jnp.einsum("bkrn,bkre->bkne", weights, grad)
        return (by_keys, by_values), jnp.einsum("bkrn,bkne->bkre", by_scores, keys)

    scale, zeros = q.shape[-1] ** -0.5, (jnp.zeros_like(keys), jnp.zeros_like(values))
    (by_keys, by_values), by_queries = jax.lax.scan(
        block, zeros, (_blocks(q) * scale, grads, log_total, shared)
    )
    back = "b k n e -> b n k e"
    return (
        _joined(by_queries * scale, q),
        rearrange(by_keys, back).astype(k.dtype),
        rearrange(by_values, back).astype(v.dtype),
    )


blockwise_attention.defvjp(_forward, _backward)
