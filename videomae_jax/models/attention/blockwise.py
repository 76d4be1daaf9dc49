"""Attention by blocks of queries, with a gradient of its own, so that all scores never exist at once.

The forward pass keeps the logarithm of each softmax's sum, from which the backward pass computes a block's
weights anew (FlashAttention-2, Dao 2023). The blocks come one after the other. On a GPU all heads of a block
are one batched product, which keeps every core busy. On a CPU the heads of the clips come one after the other
too, in larger blocks.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from einops import rearrange
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from videomae_jax.models.axes import by_device
from videomae_jax.models.compiled_for import hardware

ROWS, ROWS_OF_A_HEAD = 200, 800
"""Queries in a block, at most, of all heads and of a single one: 1,568 make 8 blocks of 196 or two of 784,
and 1,408 make 8 of 176 or two of 704, with none to fill up."""

KEPT = "attention"
"""The name under which `jax.checkpoint` may keep what the backward pass needs of the forward one."""

Residuals = tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]
"""q, k, v and the result as given and returned, and the logarithms of the sums (b m k 1)."""


def blockwise_attention(
    q: Float[Array, "b m k e"], k: Float[Array, "b n k e"], v: Float[Array, "b n k e"]
) -> Float[Array, "b m k e"]:
    """softmax(q kᵀ / sqrt(e)) v for each of k heads, with the softmax in float32, in the dtype of q."""
    return by_device(_attend)(q, k, v)


def _multiplied_in(given: jax.typing.DTypeLike) -> jnp.dtype:
    """The dtype of factors: float32 on a CPU, where nothing else is quicker. Sums are always in float32."""
    return jnp.dtype(jnp.float32 if hardware().platform == "cpu" else given)


def _blocks(x: Float[Array, "b m k e"]) -> Float[Array, "s b k r e"]:
    """Blocks of equally many queries; the last is filled up with zeros."""
    on_cpu = hardware().platform == "cpu"
    blocks, unit = -(-x.shape[1] // (ROWS_OF_A_HEAD if on_cpu else ROWS)), 1 if on_cpu else 8
    rows = -(-x.shape[1] // (blocks * unit)) * unit
    x = jnp.pad(x, ((0, 0), (0, blocks * rows - x.shape[1]), (0, 0), (0, 0)))
    return rearrange(x, "b (s r) k e -> s b k r e", s=blocks).astype(_multiplied_in(x.dtype))


def _joined(x: Float[Array, "s b k r e"], length: int) -> Float[Array, "b m k e"]:
    return rearrange(x, "s b k r e -> b (s r) k e")[:, :length]


def _by_head(x: Float[Array, "b n k e"]) -> Float[Array, "b k n e"]:
    return rearrange(x, "b n k e -> b k n e").astype(_multiplied_in(x.dtype))


def _product(form: str, one: jax.Array, other: jax.Array) -> jax.Array:
    """A product in the dtype of `other`, with sums in float32."""
    return jnp.einsum(form, one.astype(other.dtype), other, preferred_element_type=jnp.float32)


def _for_heads(function: Callable[..., tuple[jax.Array, ...]], *arrays: jax.Array) -> tuple[jax.Array, ...]:
    """`function` of arrays by clips, tokens and heads: of all at once; on a CPU of each head in turn."""
    if hardware().platform != "cpu":
        return function(*arrays)
    apart, together = "b n k e -> (b k) 1 n 1 e", "(b k) 1 n 1 e -> b n k e"
    of_heads = jax.lax.map(lambda of_head: function(*of_head), [rearrange(each, apart) for each in arrays])
    return tuple(rearrange(each, together, b=arrays[0].shape[0]) for each in of_heads)


@jax.custom_vjp
def _attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    return _forward(q, k, v)[0]


def _forward(
    q: Float[Array, "b m k e"], k: Float[Array, "b n k e"], v: Float[Array, "b n k e"]
) -> tuple[Float[Array, "b m k e"], Residuals]:
    out, log_total = checkpoint_name(_for_heads(_mix, q, k, v), KEPT)
    return out, (q, k, v, out, log_total)


def _mix(
    q: Float[Array, "b m k e"], k: Float[Array, "b n k e"], v: Float[Array, "b n k e"]
) -> tuple[Float[Array, "b m k e"], Float[Array, "b m k 1"]]:
    """The result and the logarithms of the softmax's sums."""
    keys, values = _by_head(k), _by_head(v)

    def block(q: Float[Array, "b k r e"]) -> tuple[Float[Array, "b k r e"], Float[Array, "b k r 1"]]:
        scores = _product("bkre,bkne->bkrn", q, keys)
        largest = scores.max(axis=-1, keepdims=True)
        weights = jnp.exp(scores - largest)
        total = weights.sum(axis=-1, keepdims=True)
        return _product("bkrn,bkne->bkre", weights, values) / total, largest + jnp.log(total)

    mixed, log_total = jax.lax.map(block, _blocks(q) * q.shape[-1] ** -0.5)
    return _joined(mixed, q.shape[1]).astype(q.dtype), _joined(log_total, q.shape[1])


def _backward(saved: Residuals, grad: Float[Array, "b m k e"]) -> tuple[jax.Array, ...]:
    return _for_heads(_gradients, *saved, grad)


def _gradients(
    q: Float[Array, "b m k e"],
    k: Float[Array, "b n k e"],
    v: Float[Array, "b n k e"],
    out: Float[Array, "b m k e"],
    log_total: Float[Array, "b m k 1"],
    grad: Float[Array, "b m k e"],
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Those of q, k and v, from the result's."""
    keys, values = _by_head(k), _by_head(v)
    queries, grads = _blocks(q) * q.shape[-1] ** -0.5, _blocks(grad)
    shared = jnp.sum(grads.astype(jnp.float32) * _blocks(out), axis=-1, keepdims=True)

    def block(
        sums: tuple[Float[Array, "b k e n"], Float[Array, "b k e n"]], of_block: tuple[jax.Array, ...]
    ) -> tuple[tuple[jax.Array, jax.Array], Float[Array, "b k r e"]]:
        q, q_turned, grad, grad_turned, log_total, shared = of_block
        weights = jnp.exp(_product("bkre,bkne->bkrn", q, keys) - log_total)
        by_scores = weights * (_product("bkre,bkne->bkrn", grad, values) - shared)
        by_keys = sums[0] + _product("bkrn,bker->bken", by_scores, q_turned)
        by_values = sums[1] + _product("bkrn,bker->bken", weights, grad_turned)
        return (by_keys, by_values), _product("bkrn,bkne->bkre", by_scores, keys)

    zeros = jnp.zeros_like(keys, jnp.float32).mT, jnp.zeros_like(values, jnp.float32).mT
    (by_keys, by_values), by_queries = jax.lax.scan(
        block, zeros, (queries, queries.mT, grads, grads.mT, _blocks(log_total), shared)
    )
    back = "b k e n -> b n k e"
    return (
        (_joined(by_queries, q.shape[1]) * q.shape[-1] ** -0.5).astype(q.dtype),
        rearrange(by_keys, back).astype(k.dtype),
        rearrange(by_values, back).astype(v.dtype),
    )


_attend.defvjp(_forward, _backward)
