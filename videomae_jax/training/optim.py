"""AdamW with decay chosen by name, and the warm-up and cosine schedule of the originals."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from videomae_jax.config import OptimConfig

Schedule = Callable[[jax.Array | int], jax.Array]

NO_DECAY = ("bias", "q_bias", "v_bias", "scale", "mask_token")
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


def adamw_direction(config: OptimConfig) -> optax.GradientTransformation:
    """AdamW's update before the learning rate, which the step takes from its own count."""
    b1, b2 = config.betas
    return optax.chain(
        optax.scale_by_adam(b1, b2, config.eps),
        optax.add_decayed_weights(config.weight_decay, decay_mask),
    )
