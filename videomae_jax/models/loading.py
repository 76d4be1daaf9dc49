"""Weights from a checkpoint into a module, every tensor accounted for, and back into a folder."""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from videomae_jax.checkpoints.architecture import Kind, Shape, compare_tensors, expected_shapes, mend_heads
from videomae_jax.checkpoints.comparison import compare_architectures
from videomae_jax.checkpoints.hugging_face import write_folder
from videomae_jax.checkpoints.names import (
    hugging_face_from_original,
    original_from_tree,
    tree_from_original,
)
from videomae_jax.checkpoints.source import read_weights
from videomae_jax.config import VideoMAEConfig
from videomae_jax.errors import InputError
from videomae_jax.models.layers import Params
from videomae_jax.processing import Processing

log = logging.getLogger(__name__)

Tensors = Mapping[str, np.ndarray]


@runtime_checkable
class Model(Protocol):
    """What the three public classes have in common."""

    kind: ClassVar[Kind]
    config: VideoMAEConfig
    processing: Processing | None

    def init_params(self, key: jax.Array) -> Params: ...


def load_weights(source: str | Path, revision: str | None) -> tuple[VideoMAEConfig, dict[str, np.ndarray]]:
    """Configuration and tensors, under their original names, of a checkpoint of any kind but a pickle.

    Weights that are not finite, and the hub's wrong number of heads of small models, are warned of.
    """
    config, tensors = read_weights(str(source), revision)
    config, warning = mend_heads(str(source), config)
    if warning:
        log.warning(warning)
    if broken := [name for name, tensor in tensors.items() if not np.isfinite(tensor).all()]:
        log.warning("%s holds NaN or infinite weights, in %s", source, ", ".join(broken))
    return config, tensors


def compare_for_training(
    source: str | Path, theirs: VideoMAEConfig, ours: VideoMAEConfig, kind: Kind
) -> tuple[str, ...]:
    """What must be said of weights from which a run starts, which is logged too.

    `kind` is what is taken of them. Raises InputError, with all that differs, where they are of another
    architecture.
    """

    def way_out(names: list[str]) -> str:
        options = (_option(name, getattr(theirs, name)) for name in names)
        return f"Choose the recipe of its size, or give {' '.join(options)}"

    remarks = compare_architectures(str(source), theirs, ours, kind, way_out)
    for remark in remarks:
        log.warning(remark)
    return remarks


def _option(name: str, value: Any) -> str:
    """What sets a field of the model on the command line."""
    spelled = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--model.{spelled}" if value else f"--model.no-{spelled}"
    return f"--model.{spelled} {value}"


def fit(
    source: str | Path,
    model: Model,
    tensors: Tensors,
    *,
    drop: tuple[str, ...] = (),
    fresh: tuple[str, ...] = (),
    key: jax.Array | None = None,
) -> Params:
    """The parameters of `model` from tensors under their original names, on the default device.

    Args:
      drop: beginnings of names that the model may leave out.
      fresh: modules at the root that are drawn from `key` where no tensor belongs to them.

    What is left out or drawn is logged. Raises InputError naming every missing, unexpected and mis-shaped
    tensor.
    """
    wanted = expected_shapes(model.config, model.kind)
    absent = tuple(f"{module}." for module in fresh if not any(n.startswith(f"{module}.") for n in tensors))
    dropped = [name for name in tensors if name not in wanted and name.startswith(drop)]
    drawn = [name for name in wanted if name.startswith(absent)]
    _check(
        source,
        model,
        {name: tensor for name, tensor in tensors.items() if name not in dropped},
        {name: shape for name, shape in wanted.items() if name not in drawn},
    )
    tree = tree_from_original({name: tensors[name] for name in wanted if name not in drawn})
    if drawn:
        tree |= _draw(model, {name.partition(".")[0] for name in drawn}, key, source)
    if dropped or drawn:
        log.log(
            logging.WARNING
            if drawn
            else logging.INFO,  # An encoder without its decoder is what was asked for.
            "%s: %s from %s. Left out: %s. Freshly drawn: %s.",
            type(model).__name__,
            f"{len(wanted) - len(drawn)} tensors taken",
            source,
            _summary(dropped),
            _summary(drawn),
        )
    return jax.tree.map(jnp.asarray, tree)


def save(folder: str | Path, model: Model, params: Params) -> None:
    """Write a Hugging Face folder, whole or not at all.

    Raises InputError, listing all that does not fit, when `params` are not those of `model`.
    """
    tensors = original_from_tree(jax.tree.map(np.asarray, params), model.config)
    _check("the tree of parameters given", model, tensors, expected_shapes(model.config, model.kind))
    named = hugging_face_from_original(tensors)
    write_folder(Path(folder), model.config, type(model).__name__, named, model.processing)


def _draw(model: Model, modules: set[str], key: jax.Array | None, source: str | Path) -> dict[str, Any]:
    if key is None:
        raise InputError(
            f"{source} has no weights for {' and '.join(sorted(modules))} of {type(model).__name__}: pass "
            "key=jax.random.key(...) to draw fresh ones, to be trained before they are of use"
        )

    def draw(key: jax.Array) -> Params:
        params = model.init_params(key)
        return {module: params[module] for module in modules}

    return jax.jit(draw)(key)


def _check(source: str | Path, model: Model, have: Tensors, want: Mapping[str, Shape]) -> None:
    compare_tensors(
        f"{source} does not fit {type(model).__name__} (its configuration is of another architecture, or "
        "these weights are of another class)",
        have,
        want,
    )


def _summary(names: Iterable[str]) -> str:
    """Names grouped by the module that they belong to: `decoder (54 tensors), mask_token`."""
    groups: dict[str, int] = {}
    for name in names:
        first, _, rest = name.partition(".")
        group = f"{first}.{rest.partition('.')[0]}" if first == "encoder" else first
        groups[group] = groups.get(group, 0) + 1
    counted = (f"{group} ({count} tensors)" if count > 1 else group for group, count in groups.items())
    return ", ".join(counted) or "nothing"
