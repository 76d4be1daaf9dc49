"""The pre-norm Transformer block."""

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float

from videomae_jax.errors import InputError
from videomae_jax.model_config import AttentionBackend, VideoMAEConfig
from videomae_jax.models.attention.choice import attention, chosen_backend
from videomae_jax.models.attention.splash import filled_length
from videomae_jax.models.axes import constrain
from videomae_jax.models.compiled_for import hardware

Params = Any
BranchScales = Float[Array, "2 b"]
"""Factors on a block's attention and MLP branch, one for each clip."""
Initializer = Callable[..., jax.Array]
log = logging.getLogger(__name__)


def compute_dtype(config: VideoMAEConfig) -> jnp.dtype:
    """The dtype of activations; "auto" is what suits the devices that are compiled for."""
    return jnp.dtype(hardware().dtype if config.dtype == "auto" else config.dtype)


def check_arithmetic(config: VideoMAEConfig) -> None:
    """Raise InputError for a dtype or a way of attention that devices cannot compute; warn of bfloat16
    where it is slow.

    JAX's compiler accepts bfloat16 on a CPU before 0.9, and then cannot execute it. On a GPU without bfloat16
    it multiplies in float32 instead.
    """
    if config.dtype == "bfloat16" and hardware().platform == "cpu" and jax.__version_info__ < (0, 9):
        raise InputError(
            f"jax {jax.__version__} cannot compute in bfloat16 on a CPU: choose dtype float32 "
            "(--model.dtype float32), or install jax 0.9 or newer"
        )
    if config.dtype == "bfloat16" and hardware().half_precision != "bfloat16":
        log.warning(
            "dtype bfloat16 is as slow as float32 on %s, which multiplies float16 quickly but not bfloat16: "
            "choose dtype auto, which is float16 there",
            hardware().kind,
        )
    arithmetic(config)


def arithmetic(config: VideoMAEConfig) -> dict[str, str]:
    """What a model is computed with on this machine, where "auto" leaves that to the machine.

    Raises InputError for a way of attention that cannot be computed here.
    """
    dtype, tokens = compute_dtype(config), config.num_tokens
    width = config.hidden_size // config.num_attention_heads
    backend = chosen_backend(config.attention, dtype, tokens, tokens, width)
    return {"dtype": dtype.name, "attention": backend}


LARGEST_LOG_SCALE = 4.6052
"""Of cosine attention: cosines are multiplied by 100 at most (VideoMAE V2)."""


class Projection(nn.Module):
    """A dense layer on the results of all heads, which a TPU so need not move next to each other."""

    width: int
    dtype: jnp.dtype
    kernel_init: Initializer

    @nn.compact
    def __call__(self, x: Float[Array, "b m k e"]) -> Float[Array, "b m d"]:
        heads, width = x.shape[2:]
        kernel = self.param("kernel", self.kernel_init, (heads * width, self.width)).astype(self.dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.width,)).astype(self.dtype)
        by_heads = rearrange(kernel, "(k e) d -> k e d", k=heads)
        return jnp.einsum("bmke,ked->bmd", x, by_heads) + bias


class Attention(nn.Module):
    """Multi-head attention with one matrix for q, k and v, biased on q and v only.

    With `cosine` its scores are the cosines of queries and keys, times a learned factor of each head.
    """

    num_heads: int
    qv_bias: bool
    dtype: jnp.dtype
    kernel_init: Initializer
    backend: AttentionBackend = "auto"
    cosine: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n d"], num_queries: int, seen: Float[Array, "b v d"] | None = None
    ) -> Float[Array, "b m d"]:
        """Attend from the last `num_queries` tokens to all of them, or to those that are `seen`."""
        width = x.shape[-1]
        fused = self.param("qkv", lambda key: {"kernel": self.kernel_init(key, (width, 3 * width))})
        kernel, x = jnp.asarray(fused["kernel"], self.dtype), x.astype(self.dtype)
        others = x if seen is None else seen.astype(self.dtype)
        queries = x if num_queries == x.shape[1] else x[:, -num_queries:]
        num_keys = others.shape[1]
        backend = chosen_backend(self.backend, self.dtype, num_queries, num_keys, width // self.num_heads)
        if backend == "splash":  # Tokens are filled up in less time than the heads of each.
            queries, others = _filled_up(queries), _filled_up(others)
        q, k, v = self._by_heads(queries, others, kernel)
        if self.qv_bias:
            q = q + self._head_bias("q_bias", width)
            v = v + self._head_bias("v_bias", width)
        if self.cosine:
            q, k = _unit(q), _unit(k)
            log_scale = self.param("scale", nn.initializers.constant(jnp.log(10.0)), (self.num_heads, 1, 1))
            # Attention itself divides by the root of the heads' width.
            factor = jnp.exp(jnp.minimum(log_scale, LARGEST_LOG_SCALE)) * q.shape[-1] ** 0.5
            q, k = (q * factor[..., 0]).astype(self.dtype), k.astype(self.dtype)
        self.sow("intermediates", "queries_and_keys", (q, k))  # For `maps`; kept only where asked for.
        mixed = attention(q, k, v, backend, num_keys)
        proj = Projection(width, self.dtype, self.kernel_init, name="proj")
        return proj(mixed)[:, :num_queries]

    def _by_heads(
        self, x: Float[Array, "b m d"], others: Float[Array, "b n d"], kernel: Float[Array, "d three_d"]
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Queries of `x` (b m k e), keys and values of `others` (b n k e), before their biases.

        A TPU that makes all of them by one product has to move them to their heads afterwards, which takes as
        long; a CPU is quicker with larger products.
        """
        if hardware().platform == "tpu":
            by_head = rearrange(kernel, "d (three k e) -> three d k e", three=3, k=self.num_heads)
            q, k, v = (
                jnp.einsum("bnd,dke->bnke", tokens, part)
                for tokens, part in zip((x, others, others), by_head, strict=True)
            )
            return q, k, v
        if x is others:
            q, k, v = jnp.split(x @ kernel, 3, axis=-1)
        else:
            q = x @ kernel[:, : x.shape[-1]]
            k, v = jnp.split(others @ kernel[:, x.shape[-1] :], 2, axis=-1)
        q, k, v = (rearrange(each, "b n (k e) -> b n k e", k=self.num_heads) for each in (q, k, v))
        return q, k, v

    def _head_bias(self, name: str, width: int) -> Float[Array, "k e"]:
        bias = jnp.asarray(self.param(name, nn.initializers.zeros, (width,)), self.dtype)
        return rearrange(bias, "(k e) -> k e", k=self.num_heads)


def _filled_up(x: Float[Array, "b n d"]) -> Float[Array, "b s d"]:
    """As many tokens as splash attention takes; those behind are zeros."""
    return jnp.pad(x, ((0, 0), (0, filled_length(x.shape[1], x.dtype) - x.shape[1]), (0, 0)))


def _unit(x: Float[Array, "*shape e"]) -> Float[Array, "*shape e"]:
    """Vectors of length 1, in float32; one of zeros stays as it is."""
    wide = x.astype(jnp.float32)
    return wide * jax.lax.rsqrt(jnp.maximum(jnp.sum(wide**2, axis=-1, keepdims=True), 1e-24))


def gelu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The exact GELU, computed in float32.

    By erf, as PyTorch does. By its complement, as `jax.nn.gelu` does, it is two kernels on a GPU, which write
    and read the argument in between.
    """
    wide = x.astype(jnp.float32)
    return (0.5 * wide * (1 + jax.lax.erf(wide * 2**-0.5))).astype(x.dtype)


class Mlp(nn.Module):
    """Two matrices around an exact (erf) GELU."""

    hidden: int
    dtype: jnp.dtype
    kernel_init: Initializer

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        dense = partial(nn.Dense, dtype=self.dtype, kernel_init=self.kernel_init)
        hidden = gelu(dense(self.hidden, name="fc1")(x))
        return dense(x.shape[-1], name="fc2")(hidden)


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); with layer scale, each branch times a learned vector."""

    config: VideoMAEConfig
    num_heads: int
    mlp_hidden: int
    kernel_init: Initializer = nn.initializers.xavier_uniform()

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b n d"],
        num_queries: int | None = None,
        scales: BranchScales | None = None,
        seen: Float[Array, "b v d"] | None = None,
    ) -> Float[Array, "b m d"]:
        """Transform all tokens, or only the last `num_queries`, which still see all of them.

        Where others are given to be `seen`, tokens attend to these alone, and not to each other.
        """
        num_queries = x.shape[1] if num_queries is None else num_queries
        x = constrain(x)
        config, dtype = self.config, compute_dtype(self.config)
        norm = partial(nn.LayerNorm, epsilon=config.layer_norm_eps, dtype=dtype)
        attend = Attention(
            self.num_heads,
            config.qv_bias,
            dtype,
            self.kernel_init,
            config.attention,
            config.cosine_attention,
            name="attn",
        )
        norm1 = norm(name="norm1")
        attended = attend(norm1(x), num_queries, None if seen is None else norm1(seen))
        attended = self._layer_scaled("gamma_1", attended)
        x = x[:, -num_queries:] + (attended if scales is None else _scaled(attended, scales[0]))
        mlp = Mlp(self.mlp_hidden, dtype, self.kernel_init, name="mlp")
        mixed = self._layer_scaled("gamma_2", mlp(norm(name="norm2")(x)))
        return x + (mixed if scales is None else _scaled(mixed, scales[1]))

    def _layer_scaled(self, name: str, branch: Float[Array, "b m d"]) -> Float[Array, "b m d"]:
        if not self.config.layer_scale:
            return branch
        start = nn.initializers.constant(self.config.layer_scale)
        return branch * self.param(name, start, branch.shape[-1:]).astype(branch.dtype)


def _scaled(x: Float[Array, "b n d"], scale: Float[Array, " b"]) -> Float[Array, "b n d"]:
    """Clips times their factors, which are exact only in float32."""
    return (x * scale[:, None, None]).astype(x.dtype)
