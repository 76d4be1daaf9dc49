"""The optimizer step that every kind of training takes: a pure function, jitted over a mesh."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from einops import rearrange
from jax.sharding import Mesh

from videomae_jax.config import OptimConfig
from videomae_jax.training.optim import Schedule, adamw_direction

Metrics = dict[str, jax.Array]
Params = Any
Batch = Any
"""Arrays, in any tree, with a leading axis of clips."""
Loss = Callable[[Params, Batch, jax.Array], jax.Array]
"""Mean loss over some clips: (parameters, clips, random key) to a float32 scalar."""
Leaf = Any
"""An array, or in a tree like the state's its shape or its sharding."""


@partial(jax.tree_util.register_dataclass,
         data_fields=["step", "params", "opt_state", "nonfinite", "streak", "ema"],
         meta_fields=[])  # fmt: skip
@dataclass(frozen=True)
class TrainState:
    """All that a run carries from step to step."""

    step: Leaf
    """Batches consumed: the position of the run."""
    params: Any
    opt_state: Any
    nonfinite: Leaf
    """Steps skipped because the loss or a gradient was not finite."""
    streak: Leaf
    """How many of them came last, in a row."""
    ema: Any = None
    """A running average of the parameters, where the run keeps one."""

    @property
    def evaluated(self) -> Any:
        """The parameters that are evaluated and loaded: the average where there is one."""
        return self.params if self.ema is None else self.ema


def init_state(optim: OptimConfig, params: Params, keep_ema: bool = False) -> TrainState:
    """The state at step 0 of a run that starts from `params`."""
    zero = jnp.zeros((), jnp.int32)
    ema = jax.tree.map(jnp.copy, params) if keep_ema else None
    return TrainState(zero, params, adamw_direction(optim).init(params), zero, zero, ema)


def _accumulated(
    loss: Loss, params: Params, batch: Batch, key: jax.Array, parts: int
) -> tuple[jax.Array, Params]:
    """Mean loss and gradient of a batch taken in `parts`, each with every `parts`-th clip."""
    loss_and_grad = jax.value_and_grad(loss)
    if parts == 1:
        return loss_and_grad(params, batch, key)
    split = partial(rearrange, pattern="(b a) ... -> a b ...", a=parts)

    def add(total: Any, part: tuple[Batch, jax.Array]) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, loss_and_grad(params, *part)), None

    zero = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, params))
    total, _ = jax.lax.scan(add, zero, (jax.tree.map(split, batch), jax.random.split(key, parts)))
    return jax.tree.map(lambda leaf: leaf / parts, total)


def _renewed(
    state: TrainState,
    grads: Params,
    lr: jax.Array | float,
    optim: OptimConfig,
    lr_scales: Params,
    ema_decay: float | None,
) -> tuple[Params, Any, Params]:
    """Parameters, optimizer state and average after an update."""
    direction, opt_state = adamw_direction(optim).update(grads, state.opt_state, state.params)
    if lr_scales is None:
        params = jax.tree.map(lambda p, d: p - lr * d, state.params, direction)
    else:
        params = jax.tree.map(lambda p, d, scale: p - lr * scale * d, state.params, direction, lr_scales)
    if ema_decay is None:
        return params, opt_state, state.ema
    ema = jax.tree.map(lambda old, new: ema_decay * old + (1 - ema_decay) * new, state.ema, params)
    return params, opt_state, ema


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
    """One AdamW step; one whose loss or gradient is not finite changes only the counters.

    Args:
      key: from which the loss draws; each part of an accumulated batch gets its own.
      lr_scales: a factor on the learning rate of each parameter, as a tree that broadcasts to `params`.
      ema_decay: how much of `state.ema` stays.
    """
    value, grads = _accumulated(loss, state.params, batch, key, optim.accumulation_steps)
    norm = optax.tree.norm(grads)
    finite = jnp.isfinite(value) & jnp.isfinite(norm)
    if optim.clip_grad is not None:
        grads = jax.tree.map(lambda g: g * jnp.minimum(1, optim.clip_grad / (norm + 1e-6)), grads)
    lr = schedule(state.step)
    kept = (state.params, state.opt_state, state.ema)
    renewed = partial(_renewed, state, grads, lr, optim, lr_scales, ema_decay)
    # To select leaf by leaf makes XLA copy the moments on a CPU; a branch makes a GPU's host wait for it.
    params, opt_state, ema = jax.lax.platform_dependent(
        cpu=lambda: jax.lax.cond(finite, renewed, lambda: kept),
        default=lambda: jax.tree.map(partial(jnp.where, finite), renewed(), kept),
    )
    skipped = jnp.logical_not(finite).astype(jnp.int32)
    state = TrainState(
        state.step + 1, params, opt_state, state.nonfinite + skipped, (state.streak + 1) * skipped, ema
    )
    return state, {
        "loss": value,
        "lr": lr,
        "grad_norm": norm,
        "nonfinite": state.nonfinite,
        "streak": state.streak,
    }


@dataclass(frozen=True)
class OnMesh:
    """A jitted function called with its mesh set: without it, the modules' axis names silently do nothing."""

    jitted: Any
    mesh: Mesh

    def __call__(self, *args: Any) -> Any:
        with jax.set_mesh(self.mesh):
            return self.jitted(*args)
