"""Pallas' splash attention on TPUs: the kernel's blocks, the padding to them, and the mesh around it."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float

from videomae_jax.models.attention.blockwise import KEPT

LANES = 128
QUERIES, KEYS, KEYS_AT_ONCE = 1024, 2048, 256
"""Queries and keys of a block, at most, and the keys that the kernel takes at a time."""


def _block(length: int, most: int, unit: int) -> tuple[int, int]:
    """How many blocks, all as short as possible, cover a length, and their size."""
    count = -(-length // most)
    return count, -(-length // (count * unit)) * unit


def splash_attention(
    q: Float[Array, "b m k e"],
    k: Float[Array, "b n k e"],
    v: Float[Array, "b n k e"],
    interpret: bool = False,
) -> Float[Array, "b m k e"]:
    """softmax(q kᵀ / sqrt(e)) v for each of k heads; each device of a mesh computes its own clips.

    `interpret` runs the kernel as ordinary JAX, without a TPU.
    """
    attend = partial(_splash, interpret=interpret)
    if jax.sharding.get_abstract_mesh().empty:
        return attend(q, k, v)
    # XLA cannot split a kernel by itself: it would gather the whole batch on every device, or refuse.
    clips = nn.logical_to_mesh_axes(("batch",)) or PartitionSpec()
    return jax.shard_map(attend, in_specs=clips, out_specs=clips, check_vma=False)(q, k, v)


def _splash(
    q: Float[Array, "b m k e"], k: Float[Array, "b n k e"], v: Float[Array, "b n k e"], interpret: bool
) -> Float[Array, "b m k e"]:
    (_, num_queries, heads, width), num_keys = q.shape, k.shape[1]
    blocks_q, block_q = _block(num_queries, QUERIES, LANES)
    blocks_k, block_k = _block(num_keys, KEYS, KEYS_AT_ONCE)
    rows, columns = blocks_q * block_q, blocks_k * block_k
    kernel = splash.make_splash_mha(
        masks.MultiHeadMask([masks.FullMask((rows, columns))] * heads),
        block_sizes=splash.BlockSizes(
            block_q=block_q,
            block_kv=block_k,
            block_kv_compute=KEYS_AT_ONCE,
            block_q_dkv=block_q,
            block_kv_dkv=block_k,
            block_kv_dkv_compute=KEYS_AT_ONCE,
            use_fused_bwd_kernel=True,
        ),
        head_shards=1,
        q_seq_shards=1,
        residual_checkpoint_name=KEPT,
        interpret=interpret,
    )
    # Queries see the keys of their own segment, 0, to which the filling of the keys does not belong.
    segments = splash.SegmentIds(
        jnp.zeros(rows, jnp.int32), (jnp.arange(columns) >= num_keys).astype(jnp.int32)
    )
    attend = jax.vmap(partial(kernel, segment_ids=segments))
    mixed = attend(_padded(q * width**-0.5, rows), _padded(k, columns), _padded(v, columns))
    return mixed.transpose(0, 2, 1, 3)[:, :num_queries]


def _padded(x: Float[Array, "b n k e"], length: int) -> Float[Array, "b k s e"]:
    """Heads before tokens, and zeros behind them."""
    return jnp.pad(x, ((0, 0), (0, length - x.shape[1]), (0, 0), (0, 0))).transpose(0, 2, 1, 3)
