"""The pre-norm Transformer block and its stack, in which all layers share one stacked parameter tree."""

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float

from videomae_jax.model_config import AttentionBackend, VideoMAEConfig
from videomae_jax.models.attention.blockwise import KEPT
from videomae_jax.models.attention.choice import attention, chosen_backend
from videomae_jax.models.axes import constrain

Params = Any
BranchScales = Float[Array, "2 b"]
"""Factors on a block's attention and MLP branch, one for each clip."""
Initializer = Callable[..., jax.Array]


def compute_dtype(config: VideoMAEConfig) -> jnp.dtype:
    """The dtype of activations: "auto" is bfloat16 on GPUs and TPUs, float32 on a CPU."""
    if config.dtype == "auto":
        return jnp.dtype("float32" if jax.default_backend() == "cpu" else "bfloat16")
    return jnp.dtype(config.dtype)


def arithmetic(config: VideoMAEConfig) -> dict[str, str]:
    """What a model is computed with on this machine, where "auto" leaves that to the machine."""
    dtype, tokens = compute_dtype(config), config.num_tokens
    width = config.hidden_size // config.num_attention_heads
    backend = chosen_backend(config.attention, dtype, tokens, tokens, width)
    return {"dtype": dtype.name, "attention": backend}


class Attention(nn.Module):
    """Multi-head self-attention with one matrix for q, k and v, biased on q and v only."""

    num_heads: int
    qv_bias: bool
    dtype: jnp.dtype
    kernel_init: Initializer
    backend: AttentionBackend = "auto"

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
        mixed = rearrange(attention(q, k, v, self.backend), "b m k e -> b m (k e)")
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
    attention: AttentionBackend = "auto"

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n d"], num_queries: int | None = None, scales: BranchScales | None = None
    ) -> Float[Array, "b m d"]:
        """Transform all tokens, or only the last `num_queries`, which still see all of them."""
        num_queries = x.shape[1] if num_queries is None else num_queries
        x = constrain(x)
        norm = partial(nn.LayerNorm, epsilon=self.eps, dtype=self.dtype)
        attend = Attention(
            self.num_heads, self.qv_bias, self.dtype, self.kernel_init, self.attention, name="attn"
        )
        attended = attend(norm(name="norm1")(x), num_queries)
        x = x[:, -num_queries:] + (attended if scales is None else _scaled(attended, scales[0]))
        mixed = Mlp(self.mlp_hidden, self.dtype, self.kernel_init, name="mlp")(norm(name="norm2")(x))
        return x + (mixed if scales is None else _scaled(mixed, scales[1]))


def _scaled(x: Float[Array, "b n d"], scale: Float[Array, " b"]) -> Float[Array, "b n d"]:
    return x * scale[:, None, None].astype(x.dtype)


def drop_path_scales(key: jax.Array, rate: float, num_layers: int, batch: int) -> Float[Array, "l 2 b"]:
    """Which clips skip which branches (stochastic depth): 0, or 1 / (1 - p) so that the mean stays.

    The chance p to skip rises evenly from 0 at the first layer to `rate` at the last.
    """
    keep = 1 - jnp.linspace(0, rate, num_layers)[:, None, None]
    return jax.random.bernoulli(key, keep, (num_layers, 2, batch)) / keep


def init_stack(key: jax.Array, block: Block, num_layers: int, width: int) -> Params:
    """Initialise `num_layers` blocks as one tree whose leaves have a leading axis of layers."""
    token = jnp.zeros((1, 1, width))
    return jax.vmap(lambda each: block.init(each, token)["params"])(jax.random.split(key, num_layers))


def apply_block(
    block: Block, params: Params, x: Float[Array, "b n d"], num_queries: int | None = None
) -> Float[Array, "b m d"]:
    """Apply one block whose parameters are given."""

    def layer(params: Params, x: jax.Array) -> jax.Array:
        return cast(jax.Array, block.apply({"params": params}, x, num_queries))

    return jax.checkpoint(layer, prevent_cse=False, policy=_kept)(params, x)


def _kept(primitive: Any, *shapes: Any, **settings: Any) -> bool:
    """What the backward pass is given of a block: products with weights, and attention but for plain XLA's.

    The rest (norms, GELU, short attention) is quicker to compute again than to carry through memory.
    """
    if primitive.name == "dot_general":
        return not settings["dimension_numbers"][1][0]
    if primitive.name == "name":
        return settings["name"] == KEPT
    return primitive.name in ("pallas_call", "dot_product_attention_fwd_wrapper")


def _scan(
    block: Block,
    stack: Params,
    x: Float[Array, "b n d"],
    remat: bool,
    scales: Float[Array, "l 2 b"] | None,
    keep: bool,
) -> tuple[jax.Array, jax.Array | None]:
    def layer(x: jax.Array, of_layer: tuple[Params, Any]) -> tuple[jax.Array, jax.Array | None]:
        params, scales = of_layer
        x = cast(jax.Array, block.apply({"params": params}, x, scales=scales))
        return x, x if keep else None

    policy = None if remat else _kept
    return jax.lax.scan(jax.checkpoint(layer, prevent_cse=False, policy=policy), x, (stack, scales))


def apply_stack(
    block: Block,
    stack: Params,
    x: Float[Array, "b n d"],
    remat: bool,
    scales: Float[Array, "l 2 b"] | None = None,
) -> Float[Array, "b n d"]:
    """Scan the blocks of a stacked tree over the tokens; `remat` recomputes each in the backward pass."""
    return _scan(block, stack, x, remat, scales, keep=False)[0]


def every_layer(
    block: Block, stack: Params, x: Float[Array, "b n d"], remat: bool
) -> Float[Array, "l b n d"]:
    """`apply_stack`, but the tokens after each block."""
    return cast(jax.Array, _scan(block, stack, x, remat, None, keep=True)[1])
