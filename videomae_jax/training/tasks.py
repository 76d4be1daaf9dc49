"""What kinds of training have in common, and how a kind becomes jitted steps on a mesh."""

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, Protocol, runtime_checkable

import jax
from jax.sharding import Mesh
from jaxtyping import Array, Float

from videomae_jax.config import FinetuneConfig, PretrainConfig
from videomae_jax.data.clips import Reader
from videomae_jax.models.axes import axis_rules
from videomae_jax.training.optim import Schedule
from videomae_jax.training.sharding import RULES, batch_sharding, replicated, state_shardings
from videomae_jax.training.steps import (
    Batch,
    Metrics,
    OnMesh,
    Params,
    TrainState,
    init_state,
    optimizer_step,
)

Arrays = dict[str, jax.Array]
"""What the readers make of videos, by name, each with a leading axis of clips."""


@runtime_checkable
class Task(Protocol):
    """A kind of training: its weights, its clips, its loss and its scores. Hashable, and without state."""

    best: ClassVar[str | None]
    """The validation score whose best checkpoint is kept (higher is better); None keeps the last ones."""

    next_command: ClassVar[str]
    """What to run next, with the work folder behind it."""

    @property
    def config(self) -> PretrainConfig | FinetuneConfig: ...

    @property
    def train_clips(self) -> Reader:
        """What is read of a video to train on."""
        ...

    @property
    def held_out_clips(self) -> Reader:
        """What is read of a validation video."""
        ...

    def init_params(self, key: jax.Array) -> Params:
        """Fresh parameters."""
        ...

    def start_params(self, source: str, key: jax.Array) -> tuple[Params, dict[str, str]]:
        """Parameters from a checkpoint, and lines for the plan on them; raises InputError on a misfit."""
        ...

    def lr_scales(self, params: Params) -> Params:
        """Factors on the learning rates, or None."""
        ...

    def prepare(self, arrays: Arrays, key: jax.Array) -> Batch:
        """What the loss takes, with all that is drawn for the whole batch at once."""
        ...

    def loss(self, params: Params, batch: Batch, key: jax.Array) -> jax.Array:
        """Mean loss over clips."""
        ...

    def held_out_sums(
        self, params: Params, arrays: Arrays, weights: Float[Array, " b"], key: jax.Array
    ) -> Metrics:
        """Weighted sums over clips of each score, and `count`, the sum of the weights."""
        ...

    def summary(self, row: Mapping[str, Any]) -> list[str]:
        """The validation scores of a row of metrics in words."""
        ...

    def describe(self) -> dict[str, str]:
        """Lines for the plan of the run that only this kind has."""
        ...


def _ema_decay(task: Task) -> float | None:
    return task.config.ema_decay if isinstance(task.config, FinetuneConfig) else None


def first_state(task: Task, params: Params) -> TrainState:
    """The state at step 0 of a run that starts from `params`."""
    return init_state(task.config.optim, params, keep_ema=_ema_decay(task) is not None)


def state_shapes(task: Task) -> TrainState:
    """The state's tree with shapes and dtypes in place of arrays."""
    return jax.eval_shape(lambda key: first_state(task, task.init_params(key)), jax.random.key(0))


def create_state(task: Task, mesh: Mesh, key: jax.Array, params: Params = None) -> TrainState:
    """The first state of a run, placed on the mesh: fresh parameters drawn from `key`, or those given."""
    shardings = state_shardings(mesh, state_shapes(task))
    if params is None:
        return jax.jit(lambda key: first_state(task, task.init_params(key)), out_shardings=shardings)(key)
    return jax.jit(partial(first_state, task), out_shardings=shardings)(params)


def train_step(
    state: TrainState, arrays: Arrays, key: jax.Array, *, task: Task, schedule: Schedule
) -> tuple[TrainState, Metrics]:
    """One step whose draws come from the run's key and the step."""
    with axis_rules(RULES):
        key = jax.random.fold_in(key, state.step)
        return optimizer_step(
            state,
            task.prepare(arrays, key),
            key,
            loss=task.loss,
            optim=task.config.optim,
            schedule=schedule,
            lr_scales=task.lr_scales(state.params),
            ema_decay=_ema_decay(task),
        )


def held_out_step(
    params: Params, arrays: Arrays, weights: Float[Array, " b"], key: jax.Array, *, task: Task
) -> Metrics:
    """Sums of a task's scores over a batch of validation clips."""
    with axis_rules(RULES):
        return task.held_out_sums(params, arrays, weights, key)


def make_train_step(task: Task, mesh: Mesh, schedule: Schedule) -> OnMesh:
    """`train_step` for a mesh: (state, arrays, key) to (state, metrics); the state given is donated."""
    state, everywhere = state_shardings(mesh, state_shapes(task)), replicated(mesh)
    step = jax.jit(
        partial(train_step, task=task, schedule=schedule),
        in_shardings=(state, batch_sharding(mesh), everywhere),
        out_shardings=(state, everywhere),
        donate_argnums=0,
    )
    return OnMesh(step, mesh)


def make_held_out_step(task: Task, mesh: Mesh) -> OnMesh:
    """`held_out_step` for a mesh: (params, arrays, weights, key) to sums."""
    params = state_shardings(mesh, state_shapes(task).params)
    batch, everywhere = batch_sharding(mesh), replicated(mesh)
    step = jax.jit(
        partial(held_out_step, task=task),
        in_shardings=(params, batch, batch, everywhere),
        out_shardings=everywhere,
    )
    return OnMesh(step, mesh)
