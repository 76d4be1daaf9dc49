"""The command `videomae-jax plan`: what a run would need on a TPU slice or on GPUs, without them."""

import sys

from videomae_jax.config import RunConfig
from videomae_jax.hardware import GIB
from videomae_jax.plan.compile import compile_elsewhere
from videomae_jax.plan.program import Compiled, Stage, Step, step_on
from videomae_jax.plan.report import describe, flags
from videomae_jax.plan.search import search
from videomae_jax.plan.topology import read_target


def plan(config: RunConfig, topology: str, stage: Stage = "train", find: bool = False) -> int:
    """Compile the step of a run for a slice or for GPUs and print its plan, or search for settings that fit.

    Returns 0 where the step fits and 1 where it does not. Raises InputError for what a user can fix.
    """
    step = step_on(config, stage, read_target(topology))
    if find:
        return _search(step)
    compiled = compile_elsewhere(step)
    print(describe(step, compiled))
    return 0 if compiled.fits(step.target) else 1


def _search(step: Step) -> int:
    cheapest, largest = search(step, compile_elsewhere, _tell)
    print(describe(cheapest.step, cheapest.compiled))
    print(f"{'settings':>13}  {flags(cheapest.step)}")
    where = step.target
    per_chip = largest.step.config.batch_size // where.chips
    peak = (largest.compiled.peak or 0) / GIB
    said = f"{per_chip} videos a {where.unit} at once take {peak:.2f} GiB: {flags(largest.step)}"
    print(f"{'largest':>13}  {said}")
    return 0


def _tell(step: Step, compiled: Compiled) -> None:
    """One line for every compile of a search."""
    size = compiled.peak or compiled.needed_bytes
    said = "?" if size is None else f"{size / GIB:.2f} GiB"
    fits = "fits" if compiled.fits(step.target) else "does not fit"
    print(f"tried {flags(step)}: {said}, {fits} ({compiled.seconds:.0f} s)", file=sys.stderr, flush=True)
