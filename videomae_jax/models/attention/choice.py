"""Scaled dot-product attention, computed in the way that suits the platform and the length."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from videomae_jax.errors import InputError
from videomae_jax.hardware import Hardware
from videomae_jax.model_config import AttentionBackend
from videomae_jax.models.attention.blockwise import blockwise_attention
from videomae_jax.models.attention.splash import splash_attention
from videomae_jax.models.compiled_for import hardware

LONG = 512
"""From this many queries and keys on, plain attention is limited by moving scores through memory."""
_HIDDEN = -30_000.0
"""A score, before scaling, that becomes 0 in a softmax, and that float16 can hold."""


def attention(
    q: Float[Array, "b m k e"],
    k: Float[Array, "b n k e"],
    v: Float[Array, "b n k e"],
    backend: AttentionBackend = "auto",
    num_keys: int | None = None,
) -> Float[Array, "b m k e"]:
    """softmax(q kᵀ / sqrt(e)) v for each of k heads; the softmax is in float32.

    `backend` is for long sequences; short ones always take plain XLA, which is quickest there. For splash
    attention queries and keys are filled up, to its `filled_length`, behind the first `num_keys`. Raises
    InputError where it cannot run.
    """
    backend = chosen_backend(backend, q.dtype, q.shape[1], k.shape[1], q.shape[-1])
    if backend == "blockwise":
        return blockwise_attention(q, k, v)
    if backend == "splash":
        return splash_attention(q, k, v, num_keys or k.shape[1])
    if backend == "cudnn":
        return cudnn_attention(q, k, v)
    return xla_attention(q, k, v)


def chosen_backend(
    backend: AttentionBackend, dtype: jnp.dtype, queries: int, keys: int, width: int
) -> AttentionBackend:
    """Which implementation attends from this many queries to this many keys with heads of this width.

    Raises InputError, with the way out, for one that cannot on what is compiled for.
    """
    if min(queries, keys) < LONG:
        return "xla"
    where = hardware()
    if backend == "auto":
        if where.platform == "tpu":
            return "splash"
        return "blockwise" if _not_by_cudnn(where, dtype, keys, width) else "cudnn"
    if backend == "splash" and where.platform != "tpu":
        raise InputError(
            f"attention 'splash' is a kernel for TPUs, which {where.kind} is not; set --model.attention auto"
        )
    if backend == "cudnn" and (reason := _not_by_cudnn(where, dtype, keys, width)):
        raise InputError(reason)
    return backend


def _not_by_cudnn(where: Hardware, dtype: jnp.dtype, keys: int, width: int) -> str | None:
    """Why cuDNN's flash attention cannot compute this, with the way out; None where it can."""
    filled, most = _filled_width(keys, width), where.widest_cudnn_head
    if not most:
        return (
            "attention 'cudnn' needs an NVIDIA GPU of compute capability 8.0 (Ampere) or newer, which "
            f"{where.kind} is not; set --model.attention auto"
        )
    if dtype not in (jnp.bfloat16, jnp.float16):
        return (
            f"attention 'cudnn' computes bfloat16 and float16, not {dtype}; set --model.dtype bfloat16 or "
            "--model.attention auto"
        )
    if filled > most:
        return (
            f"attention 'cudnn' takes heads of up to {most} values on {where.kind}, and these have {filled}; "
            "set --model.attention auto"
        )
    return None


def _filled_width(keys: int, width: int) -> int:
    """The width of heads as cuDNN gets them: a multiple of 8, with a column to hide the key that makes an odd
    number of keys even."""
    return -(-(width + keys % 2) // 8) * 8


def cudnn_attention(
    q: Float[Array, "b m k e"], k: Float[Array, "b n k e"], v: Float[Array, "b n k e"]
) -> Float[Array, "b m k e"]:
    """cuDNN's flash attention.

    In training JAX takes even numbers of queries and keys only, and heads whose width is a multiple of 8, so
    they are filled up with zeros. The query added sees nothing that counts and its result is cut off; the key
    added is hidden by a column in which its score is too low. No mask is used: it would not be split over
    devices with the clips.
    """
    (_, queries, _, width), keys = q.shape, k.shape[1]
    filled = _filled_width(keys, width)
    q, k, v = (
        jnp.pad(each, ((0, 0), (0, each.shape[1] % 2), (0, 0), (0, filled - width))) for each in (q, k, v)
    )
    if keys % 2:
        q = q + jnp.zeros(filled, q.dtype).at[width].set(1)
        k = k + jnp.zeros((keys + 1, 1, filled), k.dtype).at[keys, 0, width].set(_HIDDEN)
    mixed = jax.nn.dot_product_attention(q, k, v, scale=width**-0.5, implementation="cudnn")
    return mixed[:, :queries, :, :width]


def xla_attention(
    q: Float[Array, "b m k e"], k: Float[Array, "b n k e"], v: Float[Array, "b n k e"]
) -> Float[Array, "b m k e"]:
    """Attention in plain operations.

    The division by the softmax's sum comes after the product with v, on e instead of n values per query.
    """
    scores = _product("bmke,bnke->bkmn", q * q.shape[-1] ** -0.5, k)
    weights = jnp.exp(scores - scores.max(axis=-1, keepdims=True))
    total = weights.sum(axis=-1)
    mixed = _product("bkmn,bnke->bmke", weights.astype(v.dtype), v)
    return (mixed / total.transpose(0, 2, 1)[..., None]).astype(v.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _product(form: str, one: jax.Array, other: jax.Array) -> jax.Array:
    """A product of two arrays of one dtype, with sums in float32; so are those of its gradient.

    By itself JAX would multiply the gradient, which is float32, in float32. On a CPU it still does: there XLA
    has no such product of bfloat16 in all layouts (jax 0.10).
    """
    return jnp.einsum(form, one, other, preferred_element_type=jnp.float32)


def _product_forward(form: str, one: jax.Array, other: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    return _product(form, one, other), (one, other)


def _product_backward(
    form: str, saved: tuple[jax.Array, jax.Array], grad: jax.Array
) -> tuple[jax.Array, jax.Array]:
    (one, other), (factors, result) = saved, form.split("->")
    left, right = factors.split(",")
    grad = grad if hardware().platform == "cpu" else grad.astype(one.dtype)
    by_one = jnp.einsum(f"{result},{right}->{left}", grad, other, preferred_element_type=jnp.float32)
    by_other = jnp.einsum(f"{left},{result}->{right}", one, grad, preferred_element_type=jnp.float32)
    return by_one.astype(one.dtype), by_other.astype(other.dtype)


_product.defvjp(_product_forward, _product_backward)
