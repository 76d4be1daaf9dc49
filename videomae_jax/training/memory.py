"""What to do where the devices run out of memory, or the compiler for them is too old."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import jax

from videomae_jax.errors import InputError, RunError
from videomae_jax.models.compiled_for import hardware
from videomae_jax.training.resolve import ResolvedRun

OLD_TPU_COMPILER = "Failed to deserialize the Mosaic module"
"""What a TPU compiler older than JAX asks for, such as Colab's, says of JAX's kernel for attention."""


@contextmanager
def out_of_memory_explained(advice: Callable[[], str]) -> Iterator[None]:
    """Raise RunError with the advice where the devices run out of memory, and InputError where the TPU
    compiler is too old."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if OLD_TPU_COMPILER in str(error):
            raise InputError(
                "the TPU compiler here is older than the one that jax asks for: pip install "
                f'"jax[tpu]=={jax.__version__}" and start again'
            ) from error
        if not is_out_of_memory(error):
            raise
        raise RunError(
            f"the devices ran out of memory; {advice()}. The compiler said: {str(error).splitlines()[0]}"
        ) from error


def is_out_of_memory(error: jax.errors.JaxRuntimeError) -> bool:
    """Whether memory is what the devices, or the compiler for them, had not enough of."""
    return "RESOURCE_EXHAUSTED" in str(error)


def smaller_batches() -> str:
    """What to do where a checkpoint is evaluated or encodes clips."""
    return "lower --batch-size, or --test-batch-size of a run's final test"


def ways_to_save_memory(run: ResolvedRun) -> str:
    """Settings that save memory: those that a run may change when it continues, and one for a new run."""
    config, used = run.config, run.description["arithmetic"]
    ways = [f"split the batch into more than {config.optim.accumulation_steps} --optim.accumulation-steps"]
    if not config.model.remat:
        ways.append("recompute with --model.remat")
    if used["dtype"] == "float32":
        ways.append(f"compute in --model.dtype {hardware().half_precision}")
    if config.model.attention == "xla":
        ways.append("take --model.attention auto")
    if config.mesh.fsdp < run.mesh.size:
        ways.append(f"split the state over devices with --mesh.fsdp {run.mesh.size}")
    return f"{', or '.join(ways)}: a run continues with any of these. A new run can have a lower --batch-size"
