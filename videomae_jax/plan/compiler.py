"""Compiles one step for a TPU slice, in this process.

    python -m videomae_jax.plan.compiler STEP RESULT

reads a pickled `Step`, and writes what the compiler says of it as JSON.
"""

import json
import pickle
import re
import sys
import time
from pathlib import Path
from typing import Any

import jax
from jax.experimental import topologies

from videomae_jax.config import FinetuneConfig
from videomae_jax.hardware import Hardware
from videomae_jax.inference.normalization import Normalization
from videomae_jax.inference.predictor import scoring_step
from videomae_jax.models.compiled_for import compiling_for
from videomae_jax.plan.hlo import read_collectives
from videomae_jax.plan.program import Compiled, Step
from videomae_jax.training.memory import is_out_of_memory
from videomae_jax.training.optimizer import warmup_cosine
from videomae_jax.training.resolve import objective_of
from videomae_jax.training.sharding import batch_sharding, make_mesh, placed, replicated, state_shardings
from videomae_jax.training.state import state_shapes
from videomae_jax.training.step import make_train_step, make_validation_step

_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def compile_step(step: Step) -> Compiled:
    """Compile a step in this process."""
    mesh = _mesh(step)
    began = time.monotonic()
    function, arguments, batch = _train(step, mesh) if step.stage == "train" else _evaluate(step, mesh)
    try:
        with jax.set_mesh(mesh), compiling_for(Hardware("tpu", step.slice.topology)):
            compiled = function.jitted.lower(*arguments).compile()
    except jax.errors.JaxRuntimeError as error:
        if not is_out_of_memory(error):
            raise
        said = str(error).splitlines()[0]
        return Compiled(time.monotonic() - began, said, needed_bytes(said))
    seconds = time.monotonic() - began
    memory = compiled.memory_analysis()
    return Compiled(
        seconds,
        arguments=memory.argument_size_in_bytes,
        outputs=memory.output_size_in_bytes,
        aliased=memory.alias_size_in_bytes,
        live=memory.peak_memory_in_bytes,
        code=memory.generated_code_size_in_bytes,
        batch=sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(batch)) // mesh.size,
        collectives=read_collectives(compiled.as_text()),
    )


def needed_bytes(said: str) -> int | None:
    """How much memory a complaint of the compiler says would be needed."""
    found = re.search(r"(?:\((\d[\d.]*)([KMGT])\) exceeds|[Uu]sed (\d[\d.]*)([KMGT]) of)", said)
    if not found:
        return None
    number, unit = (found[1], found[2]) if found[1] else (found[3], found[4])
    return int(float(number) * _UNITS[unit])


def _mesh(step: Step) -> Any:
    """The run's mesh over the devices of the slice."""
    where = step.slice
    topology = topologies.get_topology_desc(
        topology_name=where.topology,
        platform="tpu",
        chip_config_name=where.chip.chip_config,
        chips_per_host_bounds=where.host_bounds,
    )
    devices = list(topology.devices)
    assert len(devices) == where.chips, f"{len(devices)} devices on {where.chips} chips of {where.topology}"
    return make_mesh(step.config.mesh.fsdp, devices)


def _clips(blank: dict[str, Any], count: int, mesh: Any) -> Any:
    """The shapes of a batch of `count` clips, from what a reader makes of one video."""
    shapes = {
        name: jax.ShapeDtypeStruct((count, *value.shape[1:]), value.dtype) for name, value in blank.items()
    }
    return placed(shapes, batch_sharding(mesh))


def _key(mesh: Any) -> Any:
    return placed(jax.eval_shape(lambda: jax.random.key(0)), replicated(mesh))


def _train(step: Step, mesh: Any) -> tuple[Any, tuple[Any, ...], Any]:
    """The training step, the shapes of its arguments, and those of the batch among them."""
    config, task = step.config, objective_of(step.config)
    steps = 1000  # An epoch's steps: any number compiles to the same schedule.
    schedule = warmup_cosine(config.optim, config.batch_size, steps, config.epochs * steps)
    shapes = state_shapes(task)
    state = placed(shapes, state_shardings(mesh, shapes))
    batch = _clips(task.train_clips.blank(), step.clips, mesh)
    return make_train_step(task, mesh, schedule), (state, batch, _key(mesh)), batch


def _evaluate(step: Step, mesh: Any) -> tuple[Any, tuple[Any, ...], Any]:
    """As `_train`: the classifier's on views of videos, or the masked loss of validation videos."""
    task = objective_of(step.config)
    params = state_shapes(task).params
    batch = _clips(task.validation_clips.blank(), step.clips, mesh)
    if isinstance(step.config, FinetuneConfig):
        function = scoring_step(mesh, step.config.model, Normalization())
        return function, (placed(params, replicated(mesh)), batch["video"]), batch
    weights = placed(jax.ShapeDtypeStruct((step.clips,), "float32"), batch_sharding(mesh))
    arguments = placed(params, state_shardings(mesh, params)), batch, weights, _key(mesh)
    return make_validation_step(task, mesh), arguments, batch


def main() -> None:
    """Read the step, compile it, write the result."""
    given, result = map(Path, sys.argv[1:])
    compiled = compile_step(pickle.loads(given.read_bytes()))
    result.write_text(json.dumps(compiled.as_json()), "utf-8")


if __name__ == "__main__":
    main()
