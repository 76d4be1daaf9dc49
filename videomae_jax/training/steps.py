"""The train and evaluation steps of pre-training: pure functions, jitted over a mesh."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from einops import rearrange
from jax.sharding import Mesh
from jaxtyping import Array, Float, UInt8

from videomae_jax.config import PretrainConfig
from videomae_jax.models.axes import axis_rules
from videomae_jax.models.masking import Mask, sample_mask
from videomae_jax.models.pretraining import VideoMAEForPreTraining, init_params, masked_losses
from videomae_jax.training.optim import Schedule, adamw_direction
from videomae_jax.training.sharding import RULES, batch_sharding, replicated, state_shardings

Metrics = dict[str, jax.Array]
Leaf = Any
"""An array, or in a tree like the state's its shape or its sharding."""


@partial(jax.tree_util.register_dataclass, data_fields=["step", "params", "opt_state", "nonfinite", "streak"],
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


def init_state(config: PretrainConfig, params: Any) -> TrainState:
    """The state at step 0 of a run that starts from `params`."""
    zero = jnp.zeros((), jnp.int32)
    return TrainState(zero, params, adamw_direction(config.optim).init(params), zero, zero)


@lru_cache
def state_shapes(config: PretrainConfig) -> TrainState:
    """The state's tree with shapes and dtypes in place of arrays."""
    return jax.eval_shape(lambda key: init_state(config, init_params(config.model, key)), jax.random.key(0))


def create_state(config: PretrainConfig, mesh: Mesh, key: jax.Array, params: Any = None) -> TrainState:
    """The first state of a run, placed on the mesh: fresh parameters drawn from `key`, or those given."""
    shardings = state_shardings(mesh, state_shapes(config))
    if params is None:
        return jax.jit(
            lambda key: init_state(config, init_params(config.model, key)), out_shardings=shardings
        )(key)
    return jax.jit(partial(init_state, config), out_shardings=shardings)(params)


def _accumulate(
    loss_and_grad: Callable[..., Any], params: Any, video: jax.Array, mask: Mask, parts: int
) -> tuple[jax.Array, Any]:
    """Mean loss and gradient of a batch taken in `parts`, each with every `parts`-th clip."""
    if parts == 1:
        return loss_and_grad(params, video, mask)
    split = partial(rearrange, pattern="(b a) ... -> a b ...", a=parts)
    video, mask = jax.tree.map(split, (video, mask))

    def add(total: Any, part: Any) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, loss_and_grad(params, *part)), None

    zero = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, params))
    total, _ = jax.lax.scan(add, zero, (video, mask))
    return jax.tree.map(lambda leaf: leaf / parts, total)


def train_step(
    state: TrainState,
    video: UInt8[Array, "b T H W c"],
    mask: Mask,
    *,
    config: PretrainConfig,
    schedule: Schedule,
) -> tuple[TrainState, Metrics]:
    """One AdamW step on given masks; one whose loss or gradient is not finite changes only the counters."""
    model = VideoMAEForPreTraining(config.model)

    def loss(params: Any, video: jax.Array, mask: Mask) -> jax.Array:
        return masked_losses(model, params, video, mask)[0].mean()

    value, grads = _accumulate(
        jax.value_and_grad(loss), state.params, video, mask, config.optim.accumulation_steps
    )
    norm = optax.tree.norm(grads)
    finite = jnp.isfinite(value) & jnp.isfinite(norm)
    if config.optim.clip_grad is not None:
        grads = jax.tree.map(lambda g: g * jnp.minimum(1, config.optim.clip_grad / (norm + 1e-6)), grads)
    direction, opt_state = adamw_direction(config.optim).update(grads, state.opt_state, state.params)
    lr = schedule(state.step)
    params = jax.tree.map(lambda p, d: p - lr * d, state.params, direction)
    params, opt_state = jax.tree.map(
        lambda new, old: jnp.where(finite, new, old), (params, opt_state), (state.params, state.opt_state)
    )
    skipped = jnp.logical_not(finite).astype(jnp.int32)
    state = TrainState(
        state.step + 1, params, opt_state, state.nonfinite + skipped, (state.streak + 1) * skipped
    )
    return state, {
        "loss": value,
        "lr": lr,
        "grad_norm": norm,
        "nonfinite": state.nonfinite,
        "streak": state.streak,
    }


def pretrain_step(
    state: TrainState,
    video: UInt8[Array, "b T H W c"],
    key: jax.Array,
    *,
    config: PretrainConfig,
    schedule: Schedule,
) -> tuple[TrainState, Metrics]:
    """One step on masks drawn from the run's key and the step."""
    with axis_rules(RULES):
        mask = sample_mask(
            config.mask_type,
            jax.random.fold_in(key, state.step),
            video.shape[0],
            config.model.grid,
            config.mask_ratio,
        )
        return train_step(state, video, mask, config=config, schedule=schedule)


def eval_step(
    params: Any,
    video: UInt8[Array, "b T H W c"],
    weights: Float[Array, " b"],
    key: jax.Array,
    *,
    config: PretrainConfig,
) -> Metrics:
    """Weighted sums over a batch: masked loss, the score of predicting zero everywhere, and the weights."""
    with axis_rules(RULES):
        mask = sample_mask(config.mask_type, key, video.shape[0], config.model.grid, config.mask_ratio)
        loss, zero = masked_losses(VideoMAEForPreTraining(config.model), params, video, mask)
    return {"loss": jnp.sum(loss * weights), "zero_loss": jnp.sum(zero * weights), "count": jnp.sum(weights)}


@dataclass(frozen=True)
class OnMesh:
    """A jitted function called with its mesh set: without it, the modules' axis names silently do nothing."""

    jitted: Any
    mesh: Mesh

    def __call__(self, *args: Any) -> Any:
        with jax.set_mesh(self.mesh):
            return self.jitted(*args)


def make_pretrain_step(config: PretrainConfig, mesh: Mesh, schedule: Schedule) -> OnMesh:
    """`pretrain_step` for a mesh: (state, video, key) to (state, metrics); the state given is donated."""
    state, everywhere = state_shardings(mesh, state_shapes(config)), replicated(mesh)
    step = jax.jit(
        partial(pretrain_step, config=config, schedule=schedule),
        in_shardings=(state, batch_sharding(mesh), everywhere),
        out_shardings=(state, everywhere),
        donate_argnums=0,
    )
    return OnMesh(step, mesh)


def make_eval_step(config: PretrainConfig, mesh: Mesh) -> OnMesh:
    """`eval_step` for a mesh: (params, video, weights, key) to sums."""
    params = state_shardings(mesh, state_shapes(config).params)
    batch, everywhere = batch_sharding(mesh), replicated(mesh)
    step = jax.jit(
        partial(eval_step, config=config),
        in_shardings=(params, batch, batch, everywhere),
        out_shardings=everywhere,
    )
    return OnMesh(step, mesh)
