"""Classifiers on features of a frozen encoder, to measure what it has learned."""

import flax.linen as nn
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float

from videomae_jax.models.attention.choice import attention
from videomae_jax.models.blocks import Mlp

_init = nn.initializers.truncated_normal(0.02)


class LinearProbe(nn.Module):
    """Batch norm without weights, then a linear layer: the linear probe of MAE.

    The running statistics are in the collection `batch_stats`.
    """

    num_labels: int

    @nn.compact
    def __call__(self, features: Float[Array, "b d"], train: bool = False) -> Float[Array, "b y"]:
        norm = nn.BatchNorm(
            use_running_average=not train, momentum=0.9, epsilon=1e-6, use_bias=False, use_scale=False
        )
        return nn.Dense(self.num_labels, kernel_init=nn.initializers.truncated_normal(0.01))(norm(features))


class AttentiveProbe(nn.Module):
    """A learned query that attends to all tokens, an MLP, a norm and a linear layer, as V-JEPA probes.

    q + attention(q, norm(tokens)), then + mlp(norm(q)), then a linear layer of its norm. Keys have no bias,
    which would change nothing but for rounding.
    """

    num_labels: int
    num_heads: int

    @nn.compact
    def __call__(self, tokens: Float[Array, "b n d"], train: bool = False) -> Float[Array, "b y"]:
        batch, _, width = tokens.shape
        query = jnp.broadcast_to(self.param("query", _init, (1, 1, width)), (batch, 1, width))
        keys = nn.LayerNorm(epsilon=1e-6, name="norm1")(tokens)
        split = "b n (k e) -> b n k e"
        q, k, v = (
            rearrange(nn.Dense(width, bias, kernel_init=_init, name=name)(x), split, k=self.num_heads)
            for name, x, bias in (("q", query, True), ("k", keys, False), ("v", keys, True))
        )
        mixed = rearrange(attention(q, k, v), "b n k e -> b n (k e)")
        x = query + nn.Dense(width, kernel_init=_init, name="proj")(mixed)
        mlp = Mlp(4 * width, jnp.dtype("float32"), _init, name="mlp")
        x = x + mlp(nn.LayerNorm(epsilon=1e-6, name="norm2")(x))
        pooled = nn.LayerNorm(epsilon=1e-6, name="norm3")(x[:, 0])
        return nn.Dense(self.num_labels, kernel_init=_init, name="head")(pooled)
