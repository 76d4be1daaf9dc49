"""The pre-norm Transformer block and its stack, in which all layers share one stacked parameter tree."""

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float

from videomae_jax.config import VideoMAEConfig
from videomae_jax.models.attention import attention
from videomae_jax.models.axes import constrain

Params = Any
Initializer = Callable[..., jax.Array]


def compute_dtype(config: VideoMAEConfig) -> jnp.dtype:
    """The dtype of activations: "auto" is bfloat16 on GPUs and TPUs, float32 on a CPU."""
    if config.dtype == "auto":
        return jnp.dtype("float32" if jax.default_backend() == "cpu" else "bfloat16")
    return jnp.dtype(config.dtype)


class Attention(nn.Module):
    """Multi-head self-attention with one matrix for q, k and v, biased on q and v only."""

    num_heads: int
    qv_bias: bool
    dtype: jnp.dtype
    kernel_init: Initializer

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"], num_queries: int) -> Float[Array, "b m d"]:
        """Attend from the last `num_queries` tokens to all of them."""
        width = x.shape[-1]
        fused = self.param("qkv", lambda key: {"kernel": self.kernel_init(key, (width, 3 * width))})
        kernel, x = fused["kernel"].astype(self.dtype), x.astype(self.dtype)
        if num_queries == x.shape[1]:
            q, k, v = jnp.split(x @ kernel, 3, axis=-1)
        else:
            q = x[:, -num_queries:] @ kernel[:, :width]
            k, v = jnp.split(x @ kernel[:, width:], 2, axis=-1)
        if self.qv_bias:
            q = q + self.param("q_bias", nn.initializers.zeros, (width,)).astype(self.dtype)
            v = v + self.param("v_bias", nn.initializers.zeros, (width,)).astype(self.dtype)
        q, k, v = (rearrange(each, "b n (k e) -> b n k e", k=self.num_heads) for each in (q, k, v))
        mixed = rearrange(attention(q, k, v), "b m k e -> b m (k e)")
        return nn.Dense(width, dtype=self.dtype, kernel_init=self.kernel_init, name="proj")(mixed)


class Mlp(nn.Module):
    """Two matrices around an exact (erf) GELU."""

    hidden: int
    dtype: jnp.dtype
    kernel_init: Initializer

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        dense = partial(nn.Dense, dtype=self.dtype, kernel_init=self.kernel_init)
        hidden = nn.gelu(dense(self.hidden, name="fc1")(x), approximate=False)
        return dense(x.shape[-1], name="fc2")(hidden)


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    num_heads: int
    mlp_hidden: int
    eps: float
    qv_bias: bool
    dtype: jnp.dtype
    kernel_init: Initializer = nn.initializers.xavier_uniform()

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"], num_queries: int | None = None) -> Float[Array, "b m d"]:
        """Transform all tokens, or only the last `num_queries`, which still see all of them."""
        num_queries = x.shape[1] if num_queries is None else num_queries
        x = constrain(x)
        norm = partial(nn.LayerNorm, epsilon=self.eps, dtype=self.dtype)
        attend = Attention(self.num_heads, self.qv_bias, self.dtype, self.kernel_init, name="attn")
        x = x[:, -num_queries:] + attend(norm(name="norm1")(x), num_queries)
        mlp = Mlp(self.mlp_hidden, self.dtype, self.kernel_init, name="mlp")
        return x + mlp(norm(name="norm2")(x))


def init_stack(key: jax.Array, block: Block, num_layers: int, width: int) -> Params:
    """Initialise `num_layers` blocks as one tree whose leaves have a leading axis of layers."""
    token = jnp.zeros((1, 1, width))
    return jax.vmap(lambda each: block.init(each, token)["params"])(jax.random.split(key, num_layers))


def apply_block(
    block: Block, params: Params, x: Float[Array, "b n d"], num_queries: int | None = None
) -> Float[Array, "b m d"]:
    """Apply one block whose parameters are given."""
    return cast(jax.Array, block.apply({"params": params}, x, num_queries))


def _scan(
    block: Block, stack: Params, x: Float[Array, "b n d"], remat: bool, keep: bool
) -> tuple[jax.Array, jax.Array | None]:
    def layer(x: jax.Array, params: Params) -> tuple[jax.Array, jax.Array | None]:
        x = apply_block(block, params, x)
        return x, x if keep else None

    return jax.lax.scan(jax.checkpoint(layer) if remat else layer, x, stack)


def apply_stack(block: Block, stack: Params, x: Float[Array, "b n d"], remat: bool) -> Float[Array, "b n d"]:
    """Scan the blocks of a stacked tree over the tokens; `remat` recomputes each in the backward pass."""
    return _scan(block, stack, x, remat, keep=False)[0]


def every_layer(
    block: Block, stack: Params, x: Float[Array, "b n d"], remat: bool
) -> Float[Array, "l b n d"]:
    """`apply_stack`, but the tokens after each block."""
    return cast(jax.Array, _scan(block, stack, x, remat, keep=True)[1])
