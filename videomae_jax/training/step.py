"""One training step from top to bottom: draws, loss, gradient, update, metrics; and one step of validation.

A pure function of the state, a batch and the key of the run, jitted over a mesh by `make_train_step`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from einops import rearrange
from jax.sharding import Mesh
from jaxtyping import Array, Float

from videomae_jax.config import OptimConfig
from videomae_jax.models.axes import axis_rules
from videomae_jax.training.loss_scale import adjusted, divided, multiplied
from videomae_jax.training.objectives.objective import Arrays, Batch, Metrics, Objective, Params
from videomae_jax.training.optimizer import Schedule, adamw_direction
from videomae_jax.training.sharding import (
    RULES,
    OnMesh,
    batch_sharding,
    mean_over_devices,
    replicated,
    state_shardings,
)
from videomae_jax.training.state import TrainState, ema_decay, state_shapes

Loss = Callable[[Params, Batch, jax.Array], jax.Array]
"""Mean loss over some clips: (parameters, clips, random key) to a float32 scalar."""


def train_step(
    state: TrainState, arrays: Arrays, key: jax.Array, *, objective: Objective, schedule: Schedule
) -> tuple[TrainState, Metrics]:
    """One step of a run: all that is drawn comes from the run's key and the step."""
    with axis_rules(RULES):
        key = jax.random.fold_in(key, state.step)
        return optimizer_step(
            state,
            objective.draw(arrays, key),
            key,
            loss=objective.loss_beside(state.teacher),
            optim=objective.config.optim,
            schedule=schedule,
            lr_scales=objective.lr_scales(state.params),
            ema_decay=ema_decay(objective),
        )


def optimizer_step(
    state: TrainState,
    batch: Batch,
    key: jax.Array,
    *,
    loss: Loss,
    optim: OptimConfig,
    schedule: Schedule,
    lr_scales: Params = None,
    ema_decay: float | None = None,
) -> tuple[TrainState, Metrics]:
    """One AdamW step; one whose loss or gradient is not finite changes only the counters, and the scale of
    the loss, where there is one.

    Args:
      key: from which the loss draws; each part of an accumulated batch gets its own.
      lr_scales: a factor on the learning rate of each parameter, as a tree that broadcasts to `params`.
      ema_decay: how much of `state.ema` stays.
    """
    scale = state.loss_scale
    scaled_loss = loss if scale is None else multiplied(loss, scale)
    loss_value, grads = _accumulated(scaled_loss, state.params, batch, key, optim.accumulation_steps)
    if scale is not None:
        loss_value, grads = divided((loss_value, grads), scale)
    norm = optax.tree.norm(grads)
    finite = jnp.isfinite(loss_value) & jnp.isfinite(norm)
    if optim.clip_grad is not None:
        grads = jax.tree.map(lambda g: g * jnp.minimum(1, optim.clip_grad / (norm + 1e-6)), grads)
    lr = schedule(state.step)

    def kept() -> tuple[Params, Any, Params]:
        return state.params, state.opt_state, state.ema

    def updated() -> tuple[Params, Any, Params]:
        return _updated(state, grads, lr, optim, lr_scales, ema_decay)

    # Selecting leaf by leaf makes XLA copy the moments on a CPU; a branch makes a GPU's host wait for it.
    params, opt_state, ema = jax.lax.platform_dependent(
        cpu=lambda: jax.lax.cond(finite, updated, kept),
        default=lambda: jax.tree.map(partial(jnp.where, finite), updated(), kept()),
    )
    metrics, failed = {"loss": loss_value, "lr": lr, "grad_norm": norm}, ~finite
    if scale is not None:
        scale, overflowed = adjusted(scale, loss_value, finite)
        failed = failed & ~overflowed
        metrics |= {"loss_scale": scale.value, "overflows": scale.overflows}
    nonfinite = state.nonfinite + failed.astype(jnp.int32)
    step, streak = state.step + 1, (state.streak + 1) * failed.astype(jnp.int32)
    metrics |= {"nonfinite": nonfinite, "streak": streak}
    return TrainState(step, params, opt_state, nonfinite, streak, ema, scale, state.teacher), metrics


def _updated(
    state: TrainState,
    grads: Params,
    lr: jax.Array | float,
    optim: OptimConfig,
    lr_scales: Params,
    ema_decay: float | None,
) -> tuple[Params, Any, Params]:
    """Parameters, moments and average after a step of AdamW."""
    direction, opt_state = adamw_direction(optim).update(grads, state.opt_state, state.params)
    if lr_scales is None:
        params = jax.tree.map(lambda p, d: p - lr * d, state.params, direction)
    else:
        params = jax.tree.map(lambda p, d, s: p - lr * s * d, state.params, direction, lr_scales)
    if ema_decay is None:
        return params, opt_state, state.ema
    ema = jax.tree.map(lambda old, new: ema_decay * old + (1 - ema_decay) * new, state.ema, params)
    return params, opt_state, ema


def _accumulated(
    loss: Loss, params: Params, batch: Batch, key: jax.Array, parts: int
) -> tuple[jax.Array, Params]:
    """Mean loss and gradient of a batch taken in `parts`, each with every `parts`-th clip.

    Devices add up their own clips' gradients and send the sum once, not after each part.
    """
    loss_and_grad = jax.value_and_grad(loss)
    if parts == 1:
        return loss_and_grad(params, batch, key)
    return mean_over_devices(partial(_added_up, loss_and_grad, parts))(params, batch, key)


def _added_up(
    loss_and_grad: Callable[..., Any], parts: int, params: Params, batch: Batch, key: jax.Array
) -> tuple[jax.Array, Params]:
    """The mean over parts of a batch, one after the other."""
    split = partial(rearrange, pattern="(b a) ... -> a b ...", a=parts)

    def add(total: Any, part: tuple[Batch, jax.Array]) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, loss_and_grad(params, *part)), None

    zero = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, params))
    total, _ = jax.lax.scan(add, zero, (jax.tree.map(split, batch), jax.random.split(key, parts)))
    return jax.tree.map(lambda leaf: leaf / parts, total)


def validation_step(
    params: Params, arrays: Arrays, weights: Float[Array, " b"], key: jax.Array, *, objective: Objective
) -> Metrics:
    """Sums of an objective's scores over a batch of validation clips."""
    with axis_rules(RULES):
        return objective.validation_sums(params, arrays, weights, key)


def make_train_step(objective: Objective, mesh: Mesh, schedule: Schedule) -> OnMesh:
    """`train_step` for a mesh: (state, arrays, key) to (state, metrics); the state given is donated."""
    state, everywhere = state_shardings(mesh, state_shapes(objective)), replicated(mesh)
    step = partial(train_step, objective=objective, schedule=schedule)
    given = state, batch_sharding(mesh), everywhere
    return OnMesh(step, mesh, given, (state, everywhere), donate_argnums=0)


def make_validation_step(objective: Objective, mesh: Mesh) -> OnMesh:
    """`validation_step` for a mesh: (params, arrays, weights, key) to sums."""
    params = state_shardings(mesh, state_shapes(objective).params)
    batch, everywhere = batch_sharding(mesh), replicated(mesh)
    step = partial(validation_step, objective=objective)
    return OnMesh(step, mesh, (params, batch, batch, everywhere), everywhere)
