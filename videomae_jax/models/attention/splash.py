"""Pallas' splash attention on TPUs: the kernel's blocks, the lengths they take, and the mesh around it."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float

from videomae_jax.models.attention.blockwise import KEPT
from videomae_jax.models.axes import on_one_device

LANES = 128
LONGEST, LONGEST_ALONE = 1024, 1664
"""Queries and keys of a block, at most: of one of several, and of one that holds all in 16 bits."""


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
    if on_one_device(jax.sharding.get_abstract_mesh()):
        return attend(q, k, v)
    # XLA cannot split a kernel by itself: it would gather the whole batch on every device, or refuse.
    clips = nn.logical_to_mesh_axes(("batch",)) or PartitionSpec()
    return jax.shard_map(attend, in_specs=clips, out_specs=clips, check_vma=False)(q, k, v)


def _splash(
    q: Float[Array, "b m k e"],
    k: Float[Array, "b n k e"],
    v: Float[Array, "b n k e"],
    num_keys: int,
    interpret: bool,
) -> Float[Array, "b m k e"]:
    (_, rows, heads, width), columns = q.shape, k.shape[1]
    (_, block_q), (_, block_k) = (_blocks(length, q.dtype) for length in (rows, columns))
    at_once = 2 * LANES if block_k % (2 * LANES) == 0 else LANES  # Keys.
    kernel = splash.make_splash_mha(
        masks.MultiHeadMask([masks.FullMask((rows, columns))] * heads),
        block_sizes=splash.BlockSizes(
            block_q=block_q,
            block_kv=block_k,
            block_kv_compute=at_once,
            block_q_dkv=block_q,
            block_kv_dkv=block_k,
            block_kv_dkv_compute=at_once,
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
    q, k, v = (each.transpose(0, 2, 1, 3) for each in (q * width**-0.5, k, v))
    return jax.vmap(partial(kernel, segment_ids=segments))(q, k, v).transpose(0, 2, 1, 3)
