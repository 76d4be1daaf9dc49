"""The state in which a run starts: fresh, from given weights, or from its own newest checkpoint."""

import logging
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from videomae_jax.checkpoints import orbax
from videomae_jax.checkpoints.digest import params_digest
from videomae_jax.checkpoints.processing_json import read_processing
from videomae_jax.errors import InputError
from videomae_jax.processing import Processing
from videomae_jax.training.hosts import Hosts
from videomae_jax.training.run_plan import RunPlan
from videomae_jax.training.steps import TrainState
from videomae_jax.training.tasks import create_state

log = logging.getLogger(__name__)

_REST = tuple(field.name for field in fields(TrainState) if field.name not in ("params", "ema"))


def split_state(state: TrainState) -> dict[str, Any]:
    """The state as the trees that a checkpoint holds, so that the parameters can be read alone."""
    trees = {"params": state.params, "training": {name: getattr(state, name) for name in _REST}}
    return trees if state.ema is None else trees | {"ema": state.ema}


def restored_state(plan: RunPlan, step_folder: Path) -> TrainState:
    """The state of a checkpoint, on the plan's mesh; raises InputError when it is that of another step."""
    trees = orbax.restore(step_folder, split_state(plan.state_shape))
    if (step := int(trees["training"]["step"])) != int(step_folder.name):
        raise InputError(
            f"{step_folder} holds step {step}: it was copied or renamed. Give it its own name back, or move "
            "it out of its work folder"
        )
    return replace(plan.state_shape, params=trees["params"], ema=trees.get("ema"), **trees["training"])


def _warn_of_other_pixels(source: str) -> None:
    """Say so where weights were trained with pixels that were normalised in another way."""
    said = read_processing(source)
    if said is not None and not said.normalizes_like(Processing()):
        mean, std, scale = said.normalization
        log.warning(
            "%s was trained with pixels times %.4g, less %s, divided by %s; this run normalises with "
            "ImageNet's mean and deviation, to which the weights have to get used",
            source,
            scale,
            mean,
            std,
        )


def initial_state(plan: RunPlan) -> tuple[TrainState, dict[str, str]]:
    """The state at step 0, with fresh weights or those named by `init_from`, and lines for the plan on it."""
    params, source, key = None, plan.config.init_from, plan.key("weights")
    facts: dict[str, str] = {}
    if source is not None:
        params, facts = plan.task.start_params(source, key)
        if (hosts := Hosts()).count > 1:
            digest = params_digest(params)
            hosts.compare({"weights of --init-from": (digest, digest[:12])})
        _warn_of_other_pixels(source)
        orbax.compare_trees(f"init_from={source}", params, plan.state_shape.params)
    return create_state(plan.task, plan.mesh, key, params), facts
