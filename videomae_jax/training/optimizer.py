"""AdamW with decay chosen by name, and the warm-up and cosine schedule of the originals."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from videomae_jax.config import OptimConfig

Schedule = Callable[[jax.Array | int], jax.Array]

NO_DECAY = ("bias", "q_bias", "v_bias", "scale", "gamma_1", "gamma_2", "mask_token")
"""Last path names of the parameters that are not decayed. By name, not rank: stacked biases are matrices."""


def effective_lr(base: float, batch_size: int) -> float:
    """Learning rate of a batch, from one given per 256 videos; the minimum scales alike."""
    return base * batch_size / 256


def warmup_cosine(config: OptimConfig, batch_size: int, steps_per_epoch: int, total_steps: int) -> Schedule:
    """Learning rate at a step: linear from 0 to the peak, both ends taken, then a cosine that stops one step
    short of the minimum (`cosine_scheduler` of the originals)."""
    peak, floor = effective_lr(config.base_lr, batch_size), effective_lr(config.min_lr, batch_size)
    warmup = int(config.warmup_epochs * steps_per_epoch)
    if warmup >= total_steps:
        raise ValueError(
            f"optim.warmup_epochs={config.warmup_epochs} is {warmup} steps and the whole run {total_steps}; "
            "lower optim.warmup_epochs or raise epochs"
        )

    def schedule(step: jax.Array | int) -> jax.Array:
        rising = peak * step / max(warmup - 1, 1)
        progress = (step - warmup) / (total_steps - warmup)
        falling = floor + 0.5 * (peak - floor) * (1 + jnp.cos(jnp.pi * progress))
        return jnp.where(step < warmup, rising, falling)

    return schedule


def decay_mask(params: optax.Params) -> optax.Params:
    """True where weight decay applies."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key not in NO_DECAY, params)


def layer_scales(params: optax.Params, layer_decay: float) -> optax.Params:
    """A factor on the learning rate of each parameter: `layer_decay` once for every layer above it.

    With L blocks, the embedding gets layer_decay ** (L + 1), block i (from 0) layer_decay ** (L - i), and
    what stands behind the blocks 1. Stacked blocks get one factor for each layer.
    """
    num_layers = len(jax.tree.leaves(params["encoder"]["blocks"])[0])

    def scale(path: tuple[jax.tree_util.DictKey, ...], leaf: Any) -> jax.Array:
        names = [entry.key for entry in path]
        if names[:2] == ["encoder", "patch_embed"]:
            return jnp.float32(layer_decay ** (num_layers + 1))
        if names[:2] == ["encoder", "blocks"]:
            powers = jnp.float32([layer_decay ** (num_layers - layer) for layer in range(num_layers)])
            return powers.reshape(-1, *[1] * (leaf.ndim - 1))
        return jnp.float32(1)

    return jax.tree_util.tree_map_with_path(scale, params)


def adamw_direction(config: OptimConfig) -> optax.GradientTransformation:
    """AdamW's update before the learning rate, which the step takes from its own count."""
    b1, b2 = config.betas
    return optax.chain(
        optax.scale_by_adam(b1, b2, config.eps),
        optax.add_decayed_weights(config.weight_decay, decay_mask),
    )
