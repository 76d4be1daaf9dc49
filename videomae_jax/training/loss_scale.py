"""Dynamic loss scaling, which training in float16 needs (Micikevicius et al., 2018).

Gradients are computed of a multiple of the loss, so that small ones do not vanish in float16, and divided
again in float32. Where they overflow, the step changes nothing and the next takes a smaller multiple.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

FIRST, SMALLEST, LARGEST = 2.0**16, 1.0, 2.0**32
GROWTH_INTERVAL = 2000
"""Finite steps in a row after which the scale is doubled."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LossScale:
    """The scale, a power of two so that dividing by it rounds nothing, and what decides the next."""

    value: Any
    good_steps: Any
    """Finite steps in a row since it changed."""
    overflows: Any
    """Steps that changed nothing but the scale, of the whole run."""


def first_loss_scale() -> LossScale:
    """The scale with which a run in float16 begins."""
    zero = jnp.zeros((), jnp.int32)
    return LossScale(jnp.float32(FIRST), zero, zero)


def multiplied(loss: Callable[..., jax.Array], scale: LossScale) -> Callable[..., jax.Array]:
    """A loss times the scale."""
    return lambda *args: loss(*args) * scale.value


def divided(tree: Any, scale: LossScale) -> Any:
    """What a multiplied loss gave, as it is without."""
    return jax.tree.map(partial(jnp.multiply, 1 / scale.value), tree)


def adjusted(scale: LossScale, loss: jax.Array, finite: jax.Array) -> tuple[LossScale, jax.Array]:
    """The scale for the next step, and whether this step overflowed.

    `finite` says whether loss and gradient were. A loss that is not finite by itself, or a gradient that is
    not even at the smallest scale, is no overflow: no other scale would help.
    """
    overflowed = jnp.isfinite(loss) & ~finite & (scale.value > SMALLEST)
    good_steps = jnp.where(finite, scale.good_steps + 1, 0)
    grows = good_steps == GROWTH_INTERVAL
    value = jnp.where(overflowed, scale.value / 2, scale.value)
    value = jnp.where(grows, jnp.minimum(2 * value, LARGEST), value)
    overflows = scale.overflows + overflowed.astype(jnp.int32)
    return LossScale(value, jnp.where(grows, 0, good_steps), overflows), overflowed
