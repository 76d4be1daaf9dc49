"""Training of probes on frozen features: several learning rates in one pass, side by side under vmap.

All rates see the same batches and start from the same weights, so each ends as it would by itself.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Float32, Int, Int64

from videomae_jax.inference.probe.features import ClipFeatures
from videomae_jax.models.probes import AttentiveProbe, LinearProbe

Head = LinearProbe | AttentiveProbe
Optimizer = Literal["sgd", "adamw"]
Variables = Any
"""Parameters and running statistics, every leaf with a leading axis of learning rates."""
State = dict[str, Any]
"""`variables` and `optimizer`, the moments."""


@dataclass(frozen=True)
class Recipe:
    """How a probe is trained: cosine schedule to 0 after a warm-up over the first tenth of the steps."""

    optimizer: Optimizer
    """SGD with momentum 0.9 and no decay, or AdamW with a decay of 0.01 on matrices."""
    epochs: int
    min_steps: int
    """At least so many steps, however few the examples."""
    batch_size: int
    seed: int = 0

    def steps(self, examples: int) -> int:
        """Optimizer steps for so many examples."""
        return max(self.min_steps, self.epochs * max(1, examples // self.batch_size))


def train_probes(
    probe: Head,
    features: ClipFeatures,
    rows: Int64[np.ndarray, " n"],
    labels: Int64[np.ndarray, " n"],
    rates: tuple[float, ...],
    recipe: Recipe,
) -> Variables:
    """Train a probe with each learning rate on some clips of features.

    In full float32, as are its scores: GPUs and TPUs round the factors of products to fewer bits unless they
    are asked not to.
    """
    steps = recipe.steps(len(rows))
    key, optimizer = jax.random.key(recipe.seed), recipe.optimizer
    example = jnp.zeros((1, *features.shape[2:]))
    state = _start(key, example, probe=probe, optimizer=optimizer, rates=len(rates))
    scaled = np.outer(_schedule(steps)(np.arange(steps)), rates).astype(np.float32)
    wanted = features.batches(rows[batch] for batch in _batches(len(rows), steps, recipe))
    for now, batch, examples in zip(scaled, _batches(len(rows), steps, recipe), wanted, strict=True):
        state = _step(state, now, examples, labels[batch], probe=probe, optimizer=optimizer)
    return state["variables"]


def probe_scores(
    probe: Head,
    variables: Variables,
    features: ClipFeatures,
    rows: Int64[np.ndarray, " n"],
    batch_size: int,
) -> Iterator[Float32[np.ndarray, "rates _ y"]]:
    """Softmax scores of some clips by each learning rate's probe, batch after batch."""
    for part in features.batches(np.split(rows, range(batch_size, len(rows), batch_size))):
        filled = np.concatenate([part, np.zeros((batch_size - len(part), *part.shape[1:]), np.float32)])
        yield np.asarray(_scores(probe, variables, filled))[:, : len(part)]


@jax.default_matmul_precision("highest")
@partial(jax.jit, static_argnums=0)
def _scores(
    probe: Head, variables: Variables, features: Float[Array | np.ndarray, "b ..."]
) -> Float[Array, "rates b y"]:
    logits = jax.vmap(probe.apply, in_axes=(0, None))(variables, features)
    return jax.nn.softmax(cast(jax.Array, logits))


def _direction(optimizer: Optimizer) -> optax.GradientTransformation:
    """What is subtracted, times the learning rate."""
    if optimizer == "sgd":
        return optax.trace(0.9)
    return optax.chain(optax.scale_by_adam(), optax.add_decayed_weights(0.01, _matrices))


def _matrices(params: Any) -> Any:
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


@partial(jax.jit, static_argnames=("probe", "optimizer", "rates"))
def _start(
    key: jax.Array, example: Float[Array, "1 ..."], probe: Head, optimizer: Optimizer, rates: int
) -> State:
    variables = probe.init(key, example)
    state = {"variables": variables, "optimizer": _direction(optimizer).init(variables["params"])}
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (rates, *leaf.shape)), state)


@jax.default_matmul_precision("highest")
@partial(jax.jit, static_argnames=("probe", "optimizer"), donate_argnums=0)
def _step(
    state: State,
    rates: Float[Array | np.ndarray, " rates"],
    features: Float[Array | np.ndarray, "b ..."],
    labels: Int[Array | np.ndarray, " b"],
    probe: Head,
    optimizer: Optimizer,
) -> State:
    """One step of every learning rate, on the same examples."""

    def of_one(state: State, rate: jax.Array) -> State:
        rest = dict(state["variables"])
        params = rest.pop("params")

        def loss(params: Any) -> tuple[jax.Array, Any]:
            variables = {"params": params, **rest}
            logits, changed = probe.apply(variables, features, train=True, mutable=list(rest))
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), changed

        gradient, changed = jax.grad(loss, has_aux=True)(params)
        towards, moments = _direction(optimizer).update(gradient, state["optimizer"], params)
        params = jax.tree.map(lambda old, by: old - rate * by, params, towards)
        return {"variables": {"params": params, **changed}, "optimizer": moments}

    return jax.vmap(of_one)(state, jnp.asarray(rates))


def _schedule(steps: int) -> optax.Schedule:
    """Shares of the learning rate: up to 1 over the first tenth of the steps, then down a cosine to 0."""
    warmup = max(1, steps // 10)
    rising = optax.linear_schedule(1 / warmup, 1.0, warmup - 1)
    return optax.join_schedules([rising, optax.cosine_decay_schedule(1.0, max(1, steps - warmup))], [warmup])


def _batches(examples: int, steps: int, recipe: Recipe) -> Iterator[Int64[np.ndarray, " b"]]:
    """Rows of each step: a fresh order each epoch, of which an incomplete last batch is left out."""
    size = min(recipe.batch_size, examples)
    per_epoch = examples // size
    for step in range(steps):
        epoch, place = divmod(step, per_epoch)
        if place == 0:
            order = np.random.default_rng([recipe.seed, epoch]).permutation(examples)
        yield np.sort(order[place * size : (place + 1) * size])
