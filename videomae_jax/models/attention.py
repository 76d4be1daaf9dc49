"""Scaled dot-product attention."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def attention(
    q: Float[Array, "b m k e"], k: Float[Array, "b n k e"], v: Float[Array, "b n k e"]
) -> Float[Array, "b m k e"]:
    """softmax(q kᵀ / sqrt(e)) v for each of k heads; the softmax is in float32.

    The division by the softmax's sum comes after the product with v, on e instead of n values per query.
    """
    scores = jnp.einsum("bmke,bnke->bkmn", q * q.shape[-1] ** -0.5, k, preferred_element_type=jnp.float32)
    weights = jnp.exp(scores - scores.max(axis=-1, keepdims=True))
    total = weights.sum(axis=-1)
    mixed = jnp.einsum("bkmn,bnke->bmke", weights.astype(v.dtype), v, preferred_element_type=jnp.float32)
    return (mixed / total.transpose(0, 2, 1)[..., None]).astype(v.dtype)
