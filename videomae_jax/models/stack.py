"""Blocks in a row, whose parameters are one tree with an axis of layers, and what gradients keep of them."""

from collections.abc import Callable
from itertools import compress
from typing import Any, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from videomae_jax.models.attention.blockwise import KEPT
from videomae_jax.models.attention.choice import LONG
from videomae_jax.models.blocks import Block, Params
from videomae_jax.models.compiled_for import hardware

UNROLLED = 12
"""Layers up to which a stack is written out for a TPU, which moves what the gradient needs less often than in
a loop: those of ViT-S and ViT-B, which compile in 1.8 times the time of a loop, and all decoders. Blocks that
are recomputed to save memory stay in a loop: written out, those of ViT-H's decoder took three times as much
where all chips split the parameters."""


def init_stack(key: jax.Array, block: Block, num_layers: int, width: int) -> Params:
    """Initialise `num_layers` blocks as one tree whose leaves have a leading axis of layers."""
    token = jnp.zeros((1, 1, width))
    return jax.vmap(lambda each: block.init(each, token)["params"])(jax.random.split(key, num_layers))


def drop_path_scales(key: jax.Array, rate: float, num_layers: int, batch: int) -> Float[Array, "l 2 b"]:
    """Which clips skip which branches (stochastic depth): 0, or 1 / (1 - p) so that the mean stays.

    The chance p to skip rises evenly from 0 at the first layer to `rate` at the last.
    """
    keep = 1 - jnp.linspace(0, rate, num_layers)[:, None, None]
    return jax.random.bernoulli(key, keep, (num_layers, 2, batch)) / keep


def apply_stack(
    block: Block,
    stack: Params,
    x: Float[Array, "b n d"],
    remat: bool,
    scales: Float[Array, "l 2 b"] | None = None,
    keep: bool = False,
    seen: Float[Array, "b v d"] | None = None,
) -> tuple[Float[Array, "b n d"], Any]:
    """Scan the blocks of a stacked tree over the tokens; `remat` recomputes each in the backward pass.

    Every block attends to the tokens themselves, or to those `seen`, which stay as they are.
    Also gives, where they are to be kept, the tokens after each block (l, b, n, d).
    """

    def layer(
        x: jax.Array, seen: jax.Array | None, of_layer: tuple[Params, Any]
    ) -> tuple[jax.Array, jax.Array | None]:
        params, scales = of_layer
        x = cast(jax.Array, block.apply({"params": params}, x, scales=scales, seen=seen))
        return x, x if keep else None

    layers = jax.tree.leaves(stack)[0].shape[0]
    unroll = hardware().platform == "tpu" and layers <= UNROLLED and not remat
    apply = jax.checkpoint(layer, prevent_cse=False, policy=None if remat else _kept)
    if unroll and x.shape[1] >= LONG:
        apply = _settled(apply)
    return jax.lax.scan(lambda x, of_layer: apply(x, seen, of_layer), x, (stack, scales), unroll=unroll)


def apply_stack_to_last(
    block: Block, stack: Params, x: Float[Array, "b n d"], remat: bool, num_queries: int
) -> Float[Array, "b m d"]:
    """`apply_stack`, but the last block, outside of the scan, gives the last `num_queries` tokens only.

    `remat` recomputes that block on TPUs only, where it saves memory. On GPUs and CPUs it takes more: this
    block's backward pass comes first, and needs at once what would have been kept.
    """
    before, last = (jax.tree.map(lambda leaf, part=part: leaf[part], stack) for part in (slice(-1), -1))
    recomputed = remat and hardware().platform == "tpu"
    return apply_block(block, last, apply_stack(block, before, x, remat)[0], num_queries, recomputed)


def apply_block(
    block: Block,
    params: Params,
    x: Float[Array, "b n d"],
    num_queries: int | None = None,
    remat: bool = False,
) -> Float[Array, "b m d"]:
    """Apply one block whose parameters are given."""

    def layer(params: Params, x: jax.Array) -> jax.Array:
        return cast(jax.Array, block.apply({"params": params}, x, num_queries))

    # Outside of a loop, XLA must not find what is computed again.
    return jax.checkpoint(layer, prevent_cse=remat, policy=None if remat else _kept)(params, x)


def _settled(layer: Callable[..., Any]) -> Callable[..., Any]:
    """A layer that has all that its gradient is given when it ends.

    Of layers that are written out, XLA would otherwise cut that out of larger arrays in the backward pass
    only, such as the sums of softmax that splash attention's kernel gives 128 times each, and would keep what
    is to be computed again.
    """

    def forward(x: jax.Array, *others: Any) -> tuple[Any, Any]:
        result, pull_back = jax.vjp(layer, x, *others)
        given, tree = jax.tree.flatten(pull_back)
        of_clips = [leaf.ndim > 2 and leaf.shape[0] == x.shape[0] for leaf in given]  # No weights.
        result, ready = jax.lax.optimization_barrier((result, list(compress(given, of_clips))))
        settled = iter(ready)
        given = [next(settled) if clips else leaf for leaf, clips in zip(given, of_clips, strict=True)]
        return result, jax.tree.unflatten(tree, given)

    settled_layer = jax.custom_vjp(layer)
    settled_layer.defvjp(forward, lambda pull_back, gradient: pull_back(gradient))
    return cast(Callable[..., Any], settled_layer)


def _kept(primitive: Any, *shapes: Any, **settings: Any) -> bool:
    """What the backward pass is given of a block: products with weights, and attention but for plain XLA's.

    The rest (norms, GELU, short attention) is quicker to compute again than to carry through memory.
    """
    if primitive.name == "dot_general":
        return not settings["dimension_numbers"][1][0]
    if primitive.name == "name":
        return settings["name"] == KEPT
    return primitive.name == "dot_product_attention_fwd_wrapper"
