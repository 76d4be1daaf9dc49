"""Compiles one step for a TPU slice: a process of its own, as only one slice can be named in each.

    python -m videomae_jax.plan.compile STEP RESULT

reads a pickled `Step`, and writes what the compiler says of it as JSON. `compile_elsewhere` runs that.
"""

import importlib.util
import json
import os
import pickle
import re
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from videomae_jax.config import FinetuneConfig
from videomae_jax.errors import InputError, RunError
from videomae_jax.plan.hlo import read_collectives
from videomae_jax.plan.program import Compiled, Step

_ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",  # Asks no cloud which machine this is.
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # Takes no device, so it need not wait for whoever has one.
    "TPU_STDERR_LOG_LEVEL": "3",
}
SECONDS_BETWEEN_WORDS = 10.0
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def compile_elsewhere(step: Step) -> Compiled:
    """Compile a step in another process.

    Raises InputError where the TPU compiler is missing, RunError where it failed for another reason than
    that the step does not fit.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise InputError('plan needs the TPU compiler, though no TPU: pip install "jax[tpu]"')
    with tempfile.TemporaryDirectory(prefix="videomae_jax_plan_") as folder:
        given, result = Path(folder, "step.pickle"), Path(folder, "compiled.json")
        given.write_bytes(pickle.dumps(step))
        command = [sys.executable, "-m", "videomae_jax.plan.compile", str(given), str(result)]
        what = f"compiling the {step.kind} step for {step.slice.topology}"
        code, said = _run(command, what)
        if not result.exists():
            said = "\n".join(said.strip().splitlines()[-15:])
            raise RunError(f"{what} ended with exit code {code}:\n{said}")
        return Compiled.from_json(json.loads(result.read_text("utf-8")))


def _run(command: list[str], what: str) -> tuple[int, str]:
    """Run a command, saying on stderr how long it has taken so far; its exit code and what it wrote there."""
    print(f"{what}: from ten seconds to some minutes", file=sys.stderr, flush=True)
    began, environment = time.monotonic(), os.environ | _ENVIRONMENT
    with subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    ) as process:
        try:
            while True:
                try:
                    said = process.communicate(timeout=SECONDS_BETWEEN_WORDS)[1]
                    return process.returncode, said
                except subprocess.TimeoutExpired:
                    print(f"{what}: {time.monotonic() - began:.0f} s so far", file=sys.stderr, flush=True)
        finally:
            process.kill()  # Where it was interrupted; else it has ended.


def compile_step(step: Step) -> Compiled:
    """Compile a step in this process."""
    import jax

    from videomae_jax.training.memory import is_out_of_memory

    mesh = _mesh(step)
    began = time.monotonic()
    function, arguments, batch = _train(step, mesh) if step.stage == "train" else _evaluate(step, mesh)
    try:
        with jax.set_mesh(mesh):
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
    from jax.experimental import topologies

    from videomae_jax.training.sharding import make_mesh

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
    import jax

    from videomae_jax.training.sharding import batch_sharding, placed

    shapes = {
        name: jax.ShapeDtypeStruct((count, *value.shape[1:]), value.dtype) for name, value in blank.items()
    }
    return placed(shapes, batch_sharding(mesh))


def _key(mesh: Any) -> Any:
    import jax

    from videomae_jax.training.sharding import placed, replicated

    return placed(jax.eval_shape(lambda: jax.random.key(0)), replicated(mesh))


def _train(step: Step, mesh: Any) -> tuple[Any, tuple[Any, ...], Any]:
    """The training step, the shapes of its arguments, and those of the batch among them."""
    from videomae_jax.training.optimizer import warmup_cosine
    from videomae_jax.training.resolve import objective_of
    from videomae_jax.training.sharding import placed, state_shardings
    from videomae_jax.training.state import state_shapes
    from videomae_jax.training.step import make_train_step

    config, task = step.config, objective_of(step.config)
    steps = 1000  # An epoch's steps: any number compiles to the same schedule.
    schedule = warmup_cosine(config.optim, config.batch_size, steps, config.epochs * steps)
    shapes = state_shapes(task)
    state = placed(shapes, state_shardings(mesh, shapes))
    batch = _clips(task.train_clips.blank(), step.clips, mesh)
    return make_train_step(task, mesh, schedule), (state, batch, _key(mesh)), batch


def _evaluate(step: Step, mesh: Any) -> tuple[Any, tuple[Any, ...], Any]:
    """As `_train`: the classifier's on views of videos, or the masked loss of validation videos."""
    import jax

    from videomae_jax.inference.normalization import Normalization
    from videomae_jax.inference.predictor import view_scores
    from videomae_jax.training.resolve import objective_of
    from videomae_jax.training.sharding import OnMesh, batch_sharding, placed, replicated, state_shardings
    from videomae_jax.training.state import state_shapes
    from videomae_jax.training.step import make_validation_step

    task = objective_of(step.config)
    params = state_shapes(task).params
    batch = _clips(task.validation_clips.blank(), step.clips, mesh)
    if isinstance(step.config, FinetuneConfig):
        # As in inference.predictor.Predictor: parameters lie whole on each chip.
        jitted = jax.jit(
            partial(view_scores, config=step.config.model, normalization=Normalization()),
            in_shardings=(replicated(mesh), batch_sharding(mesh)),
            out_shardings=batch_sharding(mesh),
        )
        return OnMesh(jitted, mesh), (placed(params, replicated(mesh)), batch["video"]), batch
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
