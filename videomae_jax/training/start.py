"""The state in which a run starts: fresh, from given weights, or from its own newest checkpoint."""

import logging
from dataclasses import replace
from pathlib import Path

import jax

from videomae_jax.checkpoints import orbax
from videomae_jax.checkpoints.processing_json import read_processing
from videomae_jax.checkpoints.trees import compare_trees, params_digest
from videomae_jax.config import FinetuneConfig
from videomae_jax.errors import InputError
from videomae_jax.models.teacher import Teacher, read_teacher
from videomae_jax.processing import Processing
from videomae_jax.training.loss_scale import first_loss_scale
from videomae_jax.training.multihost.facts import weights_fact
from videomae_jax.training.multihost.hosts import Hosts
from videomae_jax.training.objectives.objective import Params
from videomae_jax.training.resolve import ResolvedRun
from videomae_jax.training.sharding import replicated, state_shardings
from videomae_jax.training.state import TrainState, create_state, joined_state, split_state

log = logging.getLogger(__name__)


def taught_by(run: ResolvedRun) -> Teacher | None:
    """The teacher's weights, the same on all hosts; None where nobody teaches."""
    if not (isinstance(run.config, FinetuneConfig) and run.config.teacher):
        return None
    teacher = read_teacher(run.config)
    if (hosts := Hosts()).count > 1:
        hosts.compare({"weights of --teacher": weights_fact(teacher.digest)})
    return teacher


def check_same_teacher(digest: str | None, teacher: Teacher | None) -> None:
    """Raise InputError unless a run that continues has the teacher that it had, by the digest of weights."""
    if teacher and digest != teacher.digest:
        raise InputError(
            "--teacher holds other weights than when this run began, as a work folder may that was trained "
            "on: put the old ones back, or start anew with another --workdir"
        )


def restored_state(run: ResolvedRun, step_folder: Path, teacher: Params = None) -> TrainState:
    """The state of a checkpoint, on the run's mesh; raises InputError when it is that of another step.

    A run that continues in float16, and was not in it before, starts with the first scale of the loss.
    """
    wanted = split_state(run.state_shape)
    fresh_scale = "loss_scale" in wanted and not (step_folder / "loss_scale").is_dir()
    if fresh_scale:
        del wanted["loss_scale"]
    trees = orbax.restore(step_folder, wanted)
    if (step := int(trees["training"]["step"])) != int(step_folder.name):
        raise InputError(
            f"{step_folder} holds step {step}: it was copied or renamed. Give it its own name back, or move "
            "it out of its work folder"
        )
    state = joined_state(trees)
    if fresh_scale:
        everywhere = jax.jit(first_loss_scale, out_shardings=replicated(run.mesh))
        state = replace(state, loss_scale=everywhere())
    if teacher is None:
        return state
    shardings = state_shardings(run.mesh, run.state_shape.teacher)
    return replace(state, teacher=jax.jit(lambda tree: tree, out_shardings=shardings)(teacher))


def _warn_of_other_pixels(source: str) -> None:
    """Say so if the weights were trained with another normalisation of pixels."""
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


def initial_state(run: ResolvedRun, teacher: Params = None) -> tuple[TrainState, dict[str, str]]:
    """The state at step 0, with fresh weights or those of `init_from`, and facts about them for the user."""
    params, source, key = None, run.config.init_from, run.key("weights")
    facts: dict[str, str] = {}
    if source is not None:
        params, facts = run.objective.start_params(source, key)
        if (hosts := Hosts()).count > 1:
            hosts.compare({"weights of --init-from": weights_fact(params_digest(params))})
        _warn_of_other_pixels(source)
        compare_trees(f"init_from={source}", params, run.state_shape.params)
    return create_state(run.objective, run.mesh, key, params, teacher), facts
