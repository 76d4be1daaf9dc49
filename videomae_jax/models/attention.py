"""Scaled dot-product attention, computed in the way that suits the platform and the length."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from videomae_jax.config import AttentionBackend
from videomae_jax.models.attention_blockwise import blockwise_attention
from videomae_jax.models.attention_splash import splash_attention

LONG = 512
"""From so many queries and keys on, plain attention spends its time moving scores through memory."""


def attention(
    q: Float[Array, "b m k e"],
    k: Float[Array, "b n k e"],
    v: Float[Array, "b n k e"],
    backend: AttentionBackend = "auto",
) -> Float[Array, "b m k e"]:
    """softmax(q kᵀ / sqrt(e)) v for each of k heads; the softmax is in float32.

    `backend` is for long sequences; short ones always take plain XLA, which is quickest there. Raises
    ValueError where it cannot run.
    """
    backend = chosen_backend(backend, q.dtype, min(q.shape[1], k.shape[1]))
    if backend == "blockwise":
        return blockwise_attention(q, k, v)
    if backend == "splash":
        return splash_attention(q, k, v)
    if backend == "cudnn":
        return cudnn_attention(q, k, v)
    return xla_attention(q, k, v)


def chosen_backend(backend: AttentionBackend, dtype: jnp.dtype, length: int) -> AttentionBackend:
    """What computes attention where there are no fewer than `length` queries and keys."""
    if length < LONG:
        return "xla"
    return default_backend(dtype) if backend == "auto" else backend


def default_backend(dtype: jnp.dtype) -> AttentionBackend:
    """What "auto" means for long sequences of a dtype on the devices that JAX has found."""
    platform = jax.default_backend()
    if platform == "cpu":
        return "blockwise"
    if platform == "tpu":
        return "splash"
    return "cudnn" if _cudnn_takes(dtype) else "xla"


def _cudnn_takes(dtype: jnp.dtype) -> bool:
    device = jax.devices()[0]
    return (
        dtype in (jnp.bfloat16, jnp.float16)
        and "cuda" in device.client.platform_version
        and float(device.compute_capability) >= 8
    )


def cudnn_attention(
    q: Float[Array, "b m k e"], k: Float[Array, "b n k e"], v: Float[Array, "b n k e"]
) -> Float[Array, "b m k e"]:
    """cuDNN's flash attention; raises ValueError where there is none."""
    if not _cudnn_takes(q.dtype):
        raise ValueError(
            f"attention 'cudnn' cannot compute {q.dtype} on {jax.devices()[0].device_kind}: it takes "
            "bfloat16 and float16 on NVIDIA GPUs from Ampere on; set --model.dtype bfloat16 or "
            "--model.attention auto"
        )
    return jax.nn.dot_product_attention(q, k, v, implementation="cudnn")


def xla_attention(
    q: Float[Array, "b m k e"], k: Float[Array, "b n k e"], v: Float[Array, "b n k e"]
) -> Float[Array, "b m k e"]:
    """Attention in plain operations.

    The division by the softmax's sum comes after the product with v, on e instead of n values per query.
    """
    scores = jnp.einsum("bmke,bnke->bkmn", q * q.shape[-1] ** -0.5, k, preferred_element_type=jnp.float32)
    weights = jnp.exp(scores - scores.max(axis=-1, keepdims=True))
    total = weights.sum(axis=-1)
    mixed = jnp.einsum("bkmn,bnke->bmke", weights.astype(v.dtype), v, preferred_element_type=jnp.float32)
    return (mixed / total.transpose(0, 2, 1)[..., None]).astype(v.dtype)
