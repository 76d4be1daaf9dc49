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

from videomae_jax.models.compiled_for import hardware

ROWS = 200
"""Queries in a block, at most: 1,568 make 8 blocks of 196 and 1,408 make 8 of 176, with none to fill up."""

KEPT = "attention"
"""The name under which `jax.checkpoint` may keep what the backward pass needs of the forward one."""

Residuals = tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]
"""q, k, v and the result as given and returned, and the logarithm of the sums by block."""


def _multiplied_in(given: jax.typing.DTypeLike) -> jnp.dtype:
    """The dtype of factors: float32 on a CPU, where nothing else is quicker. Sums are always in float32."""
    return jnp.dtype(jnp.float32 if hardware().platform == "cpu" else given)


def _blocks(x: Float[Array, "b m k e"]) -> Float[Array, "s b k r e"]:
    """Blocks of equally many queries; the last is filled up with zeros."""
    blocks, unit = -(-x.shape[1] // ROWS), 1 if hardware().platform == "cpu" else 8
    rows = -(-x.shape[1] // (blocks * unit)) * unit
    x = jnp.pad(x, ((0, 0), (0, blocks * rows - x.shape[1]), (0, 0), (0, 0)))
    return rearrange(x, "b (s r) k e -> s b k r e", s=blocks).astype(_multiplied_in(x.dtype))


def _joined(x: Float[Array, "s b k r e"], like: Float[Array, "b m k e"]) -> Float[Array, "b m k e"]:
    return rearrange(x, "s b k r e -> b (s r) k e")[:, : like.shape[1]].astype(like.dtype)


def _by_head(x: Float[Array, "b n k e"]) -> Float[Array, "b k n e"]:
    return rearrange(x, "b n k e -> b k n e").astype(_multiplied_in(x.dtype))


def _product(form: str, one: jax.Array, other: jax.Array) -> jax.Array:
    """A product in the dtype of `other`, with sums in float32."""
    return jnp.einsum(form, one.astype(other.dtype), other, preferred_element_type=jnp.float32)


@jax.custom_vjp
def blockwise_attention(
    q: Float[Array, "b m k e"], k: Float[Array, "b n k e"], v: Float[Array, "b n k e"]
) -> Float[Array, "b m k e"]:
    """softmax(q kᵀ / sqrt(e)) v for each of k heads, with the softmax in float32, in the dtype of q."""
    return _forward(q, k, v)[0]


def _forward(
    q: Float[Array, "b m k e"], k: Float[Array, "b n k e"], v: Float[Array, "b n k e"]
) -> tuple[Float[Array, "b m k e"], Residuals]:
    keys, values = _by_head(k), _by_head(v)

    def block(q: Float[Array, "b k r e"]) -> tuple[Float[Array, "b k r e"], Float[Array, "b k r 1"]]:
        scores = _product("bkre,bkne->bkrn", q, keys)
        largest = scores.max(axis=-1, keepdims=True)
        weights = jnp.exp(scores - largest)
        total = weights.sum(axis=-1, keepdims=True)
        return _product("bkrn,bkne->bkre", weights, values) / total, largest + jnp.log(total)

    mixed, log_total = jax.lax.map(block, _blocks(q) * q.shape[-1] ** -0.5)
    out, log_total = checkpoint_name((_joined(mixed, q), log_total), KEPT)
    return out, (q, k, v, out, log_total)


def _backward(saved: Residuals, grad: Float[Array, "b m k e"]) -> tuple[jax.Array, jax.Array, jax.Array]:
    q, k, v, out, log_total = saved
    keys, values = _by_head(k), _by_head(v)
    grads = _blocks(grad)
    shared = jnp.sum(grads.astype(jnp.float32) * _blocks(out), axis=-1, keepdims=True)

    def block(
        sums: tuple[jax.Array, jax.Array], of_block: tuple[jax.Array, ...]
    ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        q, grad, log_total, shared = of_block
        weights = jnp.exp(_product("bkre,bkne->bkrn", q, keys) - log_total)
        by_scores = weights * (_product("bkre,bkne->bkrn", grad, values) - shared)
        by_keys = sums[0] + _product("bkrn,bkre->bkne", by_scores, q)
        by_values = sums[1] + _product("bkrn,bkre->bkne", weights, grad)
        return (by_keys, by_values), _product("bkrn,bkne->bkre", by_scores, keys)

    scale = q.shape[-1] ** -0.5
    zeros = jnp.zeros(keys.shape, jnp.float32), jnp.zeros(values.shape, jnp.float32)
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
