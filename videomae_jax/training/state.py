"""The state that a run carries from step to step, and how it is made and placed."""

from dataclasses import dataclass, fields
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from videomae_jax.config import FinetuneConfig, OptimConfig
from videomae_jax.hardware import Hardware
from videomae_jax.models.blocks import compute_dtype
from videomae_jax.models.compiled_for import hardware
from videomae_jax.training.compilation import compiler_options
from videomae_jax.training.loss_scale import LossScale, first_loss_scale
from videomae_jax.training.objectives.objective import Objective, Params
from videomae_jax.training.optimizer import adamw_direction
from videomae_jax.training.sharding import state_shardings

Leaf = Any
"""An array, or in a tree like the state's its shape or its sharding."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """All that a run carries from step to step."""

    step: Leaf
    """Batches consumed: the position of the run."""
    params: Any
    opt_state: Any
    nonfinite: Leaf
    """Steps skipped because the loss or a gradient was not finite, but for overflows that a smaller
    `loss_scale` may avoid."""
    streak: Leaf
    """How many of them came last, in a row."""
    ema: Any = None
    """A running average of the parameters, where the run keeps one."""
    loss_scale: Any = None
    """The `LossScale` of a run that computes in float16."""
    teacher: Any = None
    """Parameters of a teacher, frozen. No checkpoint holds them: they are read again from where they are."""

    @property
    def evaluated(self) -> Any:
        """The parameters that are evaluated and loaded: the average where there is one."""
        return self.params if self.ema is None else self.ema


_BESIDE = ("params", "ema", "loss_scale", "teacher")
"""Trees that are saved by themselves, because they are read alone or not there in every run; or not saved."""


def init_state(
    optim: OptimConfig,
    params: Params,
    keep_ema: bool = False,
    scale_loss: bool = False,
    teacher: Params = None,
) -> TrainState:
    """The state at step 0 of a run that starts from `params`."""
    zero = jnp.zeros((), jnp.int32)
    ema = jax.tree.map(jnp.copy, params) if keep_ema else None
    scale = first_loss_scale() if scale_loss else None
    return TrainState(zero, params, adamw_direction(optim).init(params), zero, zero, ema, scale, teacher)


def ema_decay(objective: Objective) -> float | None:
    """How much of the average of the parameters stays at a step; None where the run keeps none."""
    return objective.config.ema_decay if isinstance(objective.config, FinetuneConfig) else None


def _first_state(
    objective: Objective, key: jax.Array, params: Params = None, teacher: Params = None
) -> TrainState:
    params, config = objective.init_params(key) if params is None else params, objective.config
    teacher = objective.init_teacher(key) if teacher is None else teacher
    keep_ema, in_float16 = ema_decay(objective) is not None, compute_dtype(config.model) == jnp.float16
    return init_state(config.optim, params, keep_ema, in_float16, teacher)


def state_shapes(objective: Objective) -> TrainState:
    """The state's tree with shapes and dtypes in place of arrays."""
    return _state_shapes(objective, hardware())


@lru_cache(maxsize=8)
def _state_shapes(objective: Objective, compiled_for: Hardware) -> TrainState:
    """Remembered, as a run asks several times, and tracing a model takes most of a second."""
    return jax.eval_shape(partial(_first_state, objective), jax.random.key(0))


def create_state(
    objective: Objective, mesh: Mesh, key: jax.Array, params: Params = None, teacher: Params = None
) -> TrainState:
    """The first state of a run, placed on the mesh: fresh parameters drawn from `key`, or those given."""
    return jitted_first_state(objective, mesh)(key, params, teacher)


def jitted_first_state(objective: Objective, mesh: Mesh) -> Any:
    """`create_state` from its key on, as a program that is called once."""
    return jax.jit(
        partial(_first_state, objective),
        out_shardings=state_shardings(mesh, state_shapes(objective)),
        compiler_options=compiler_options(mesh.devices.flat[0].platform, called_once=True),
    )


def split_state(state: TrainState) -> dict[str, Any]:
    """The state as the trees that a checkpoint holds, so that the parameters can be read alone."""
    names = [field.name for field in fields(TrainState) if field.name not in _BESIDE]
    trees = {"params": state.params, "training": {name: getattr(state, name) for name in names}}
    trees |= {} if state.ema is None else {"ema": state.ema}
    return trees | ({} if state.loss_scale is None else {"loss_scale": vars(state.loss_scale)})


def joined_state(trees: dict[str, Any]) -> TrainState:
    """The inverse of `split_state`."""
    scale = LossScale(**trees["loss_scale"]) if "loss_scale" in trees else None
    return TrainState(params=trees["params"], ema=trees.get("ema"), loss_scale=scale, **trees["training"])
