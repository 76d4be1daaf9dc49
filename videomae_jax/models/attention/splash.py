"""Pallas' splash attention on TPUs: the kernel's blocks, the lengths they take, and the mesh around it."""

from functools import partial

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks
from jaxtyping import Array, Float

from videomae_jax.models.attention.blockwise import KEPT
from videomae_jax.models.axes import by_device

LANES = 128
LONGEST, LONGEST_ALONE = 1024, 1664
"""Queries and keys of a block, at most: of one of several, and of one that holds all in 16 bits."""
MOST_SEEN = 6400
"""Keys that 128 queries see at once in the forward pass, at most: v4 has no memory for twice as many."""


def filled_length(length: int, dtype: jnp.dtype) -> int:
    """The number of queries, or keys, that the kernel takes for so many."""
    count, block = _blocks(length, dtype)
    return count * block


def _blocks(length: int, dtype: jnp.dtype) -> tuple[int, int]:
    """How many blocks cover a length with as little beyond it as possible, and their size."""
    units = -(-length // LANES)
    if units * LANES <= (LONGEST_ALONE if jnp.dtype(dtype).itemsize == 2 else LONGEST):
        return 1, units * LANES
    fewest = -(-units * LANES // LONGEST)
    counts = range(fewest, 2 * fewest + 1)
    count = min(counts, key=lambda count: -(-units // count) * count)
    return count, -(-units // count) * LANES


def splash_attention(
    q: Float[Array, "b m k e"],
    k: Float[Array, "b n k e"],
    v: Float[Array, "b n k e"],
    num_keys: int,
    interpret: bool = False,
) -> Float[Array, "b m k e"]:
    """softmax(q kᵀ / sqrt(e)) v for each of k heads; each device of a mesh computes its own clips.

    Queries and keys are filled up to a `filled_length`; the first `num_keys` keys are seen. `interpret` runs
    the kernel as ordinary JAX, without a TPU.
    """
    attend = partial(_splash, num_keys=num_keys, interpret=interpret)
    return by_device(attend)(q, k, v)


def _splash(
    q: Float[Array, "b m k e"],
    k: Float[Array, "b n k e"],
    v: Float[Array, "b n k e"],
    num_keys: int,
    interpret: bool,
) -> Float[Array, "b m k e"]:
    (_, rows, heads, width), columns = q.shape, k.shape[1]
    kernel = splash.make_splash_mha(
        masks.MultiHeadMask([masks.FullMask((rows, columns))] * heads),
        block_sizes=block_sizes(rows, columns, q.dtype),
        head_shards=1,
        q_seq_shards=1,
        residual_checkpoint_name=KEPT,
        interpret=interpret,
    )
    # Queries see the keys of their own segment, 0, to which the filling of the keys does not belong.
    segments = splash.SegmentIds(
        jnp.zeros(rows, jnp.int32), (jnp.arange(columns) >= num_keys).astype(jnp.int32)
    )
    q, k, v = (checkpoint_name(each.transpose(0, 2, 1, 3), KEPT) for each in (q * width**-0.5, k, v))
    return jax.vmap(partial(kernel, segment_ids=segments))(q, k, v).transpose(0, 2, 1, 3)


def block_sizes(rows: int, columns: int, dtype: jnp.dtype) -> splash.BlockSizes:
    """What the kernels take at once, chosen by the instructions in their schedules for v5e (decision 0010).

    Tokens lie along the lanes of queries, keys and values, which heads of 64 would fill by half.
    """
    (_, block_q), (_, block_k) = (_blocks(length, dtype) for length in (rows, columns))
    seen = max(part for part in range(block_k, MOST_SEEN + 1, LANES) if columns % part == 0)
    return splash.BlockSizes(
        block_q=LANES,
        block_kv=seen,
        block_kv_compute=seen,
        block_q_dkv=block_q,
        block_kv_dkv=block_k,
        block_kv_dkv_compute=block_k if block_k <= LONGEST else LANES,
        use_fused_bwd_kernel=True,
        q_layout=splash.QKVLayout.SEQ_MINOR,
        k_layout=splash.QKVLayout.SEQ_MINOR,
        v_layout=splash.QKVLayout.SEQ_MINOR,
    )
