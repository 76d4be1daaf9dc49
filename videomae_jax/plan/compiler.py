"""Compiles one step for a TPU slice or for GPUs, in this process.

    python -m videomae_jax.plan.compiler STEP RESULT

reads a pickled `Step`, and writes what the compiler says of it as JSON. It ends when its standard input does.
"""

import json
import os
import pickle
import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import jax
from jax.experimental import topologies

from videomae_jax.config import FinetuneConfig
from videomae_jax.inference.normalization import Normalization
from videomae_jax.inference.predictor import scoring_step
from videomae_jax.models.compiled_for import compiling_for
from videomae_jax.plan.gpus import attention_workspace
from videomae_jax.plan.hlo import read_collectives
from videomae_jax.plan.program import Compiled, Step
from videomae_jax.plan.topology import Slice, Target
from videomae_jax.training.memory import is_out_of_memory
from videomae_jax.training.optimizer import warmup_cosine
from videomae_jax.training.resolve import objective_of
from videomae_jax.training.sharding import batch_sharding, make_mesh, placed, replicated, state_shardings
from videomae_jax.training.state import state_shapes
from videomae_jax.training.step import make_train_step, make_validation_step

_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def compile_step(step: Step) -> Compiled:
    """Compile a step in this process."""
    began = time.monotonic()
    try:
        with lowered(step) as (program, batch):
            compiled = _compiled(program, step.target)
    except jax.errors.JaxRuntimeError as error:
        if not is_out_of_memory(error):
            raise
        said = str(error).splitlines()[0]
        return Compiled(time.monotonic() - began, said, needed_bytes(said))
    return replace(compiled, seconds=time.monotonic() - began, batch=batch)


@contextmanager
def lowered(step: Step) -> Iterator[tuple[jax.stages.Lowered, int]]:
    """A step to be compiled inside of this, and the bytes of its batch on one chip."""
    mesh = make_mesh(step.config.mesh.fsdp, _devices(step.target))
    make = _train if step.stage == "train" else _evaluate
    with compiling_for(step.target.hardware):
        function, arguments, batch = make(step, mesh)
        size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(batch)) // mesh.size
        with jax.set_mesh(mesh):
            yield function.jitted.lower(*arguments), size


def _compiled(lowered: Any, where: Target) -> Compiled:
    """What the compiler says of a program.

    For GPUs it is the larger of two, with and without Triton's kernels for matrix products: beside a GPU the
    compiler measures which are quicker, and without one some of Triton's find no tiles.
    """
    if isinstance(where, Slice):
        return _read(lowered.compile(), where)
    plain = _read(lowered.compile(compiler_options={"xla_gpu_enable_triton_gemm": False}), where)
    try:
        triton = _read(lowered.compile(), where)
    except jax.errors.JaxRuntimeError:
        return plain
    return max(plain, triton, key=lambda each: each.live or 0)


def _read(compiled: Any, where: Target) -> Compiled:
    memory, text = compiled.memory_analysis(), compiled.as_text()
    found = Compiled(
        0.0,
        arguments=memory.argument_size_in_bytes,
        outputs=memory.output_size_in_bytes,
        aliased=memory.alias_size_in_bytes,
        code=memory.generated_code_size_in_bytes,
        collectives=read_collectives(text),
    )
    if isinstance(where, Slice):
        return replace(found, live=memory.peak_memory_in_bytes)
    # On a GPU temporaries are one piece of memory, there from the first kernel to the last.
    live = memory.argument_size_in_bytes + found.fresh_outputs + memory.temp_size_in_bytes
    return replace(found, live=live, workspace=where.chip.workspace_factor * attention_workspace(text))


def needed_bytes(said: str) -> int | None:
    """How much memory a complaint of the compiler says would be needed."""
    found = re.search(r"(?:\((\d[\d.]*)([KMGT])\) exceeds|[Uu]sed (\d[\d.]*)([KMGT]) of)", said)
    if not found:
        return None
    number, unit = (found[1], found[2]) if found[1] else (found[3], found[4])
    return int(float(number) * _UNITS[unit])


def _devices(where: Target) -> list[Any]:
    """The devices of a slice, or of hosts with GPUs."""
    if isinstance(where, Slice):
        topology = topologies.get_topology_desc(
            topology_name=where.topology,
            platform="tpu",
            chip_config_name=where.chip.chip_config,
            chips_per_host_bounds=where.host_bounds,
        )
    else:
        topology = topologies.get_topology_desc(
            platform="cuda",
            target_config=where.chip.description(),
            topology=f"1x{where.hosts}x{where.per_host}",
        )
    devices = list(topology.devices)
    assert len(devices) == where.chips, f"{len(devices)} devices on {where.chips} chips of {where.topology}"
    return devices


def _videos(blank: dict[str, Any], count: int, mesh: Any) -> Any:
    """The shapes of a batch of `count` videos, from what a reader makes of one."""
    shapes = {
        name: jax.ShapeDtypeStruct((count * value.shape[0], *value.shape[1:]), value.dtype)
        for name, value in blank.items()
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
    batch = _videos(task.train_clips.blank(), config.batch_size, mesh)
    return make_train_step(task, mesh, schedule), (state, batch, _key(mesh)), batch


def _evaluate(step: Step, mesh: Any) -> tuple[Any, tuple[Any, ...], Any]:
    """As `_train`: the classifier's on views of videos, or the masked loss of validation videos."""
    task = objective_of(step.config)
    params = state_shapes(task).params
    batch = _videos(task.validation_clips.blank(), step.clips, mesh)
    if isinstance(step.config, FinetuneConfig):
        function = scoring_step(mesh, step.config.model, Normalization())
        return function, (placed(params, replicated(mesh)), batch["video"]), batch
    weights = placed(jax.ShapeDtypeStruct((step.clips,), "float32"), batch_sharding(mesh))
    arguments = placed(params, state_shardings(mesh, params)), batch, weights, _key(mesh)
    return make_validation_step(task, mesh), arguments, batch


def end_with_input() -> None:
    """Have this process end where its standard input does, also while it compiles."""

    def watch() -> None:
        while os.read(0, 1024):
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main() -> None:
    """Read the step, compile it, write the result."""
    end_with_input()
    given, result = map(Path, sys.argv[1:])
    compiled = compile_step(pickle.loads(given.read_bytes()))
    result.write_text(json.dumps(asdict(compiled)), "utf-8")


if __name__ == "__main__":
    main()
