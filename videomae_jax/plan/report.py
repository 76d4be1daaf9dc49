"""The plan of a step in words: memory, what chips send each other, operations, time, and the verdict."""

from videomae_jax.config import FinetuneConfig
from videomae_jax.hardware import GIB
from videomae_jax.models.flops import flops_per_clip
from videomae_jax.models.teacher import teacher_config
from videomae_jax.plan.program import Compiled, Step
from videomae_jax.plan.topology import FRACTION, Gpus, Target

UTILISATION = 0.4
"""Of the peak: what a good training run reaches, for a second look at what hosts must deliver."""
MOST = 0.92
"""Of a GPU's memory: what JAX can be told to take, so that CUDA and its libraries have theirs."""


def describe(step: Step, compiled: Compiled) -> str:
    """The plan, one fact a line."""
    facts = {
        **_settings(step),
        **_memory(step, compiled),
        "collectives": _collectives(compiled, step.target.unit),
        **_speed(step),
        "compiled in": f"{compiled.seconds:.0f} s",
        "verdict": verdict(step, compiled),
    }
    return "\n".join(f"{name:>13}  {value}" for name, value in facts.items() if value)


def _count(number: int, name: str) -> str:
    return f"{number} {name}" + "s" * (number != 1)


def _settings(step: Step) -> dict[str, str]:
    config, where = step.config, step.target

    model, mesh = config.model, config.mesh
    parts = config.optim.accumulation_steps if step.stage == "train" else 1
    return {
        "step": f"{step.kind}, {model.num_hidden_layers} layers of width {model.hidden_size}, {model.dtype}"
        f"{', recomputing blocks' if model.remat and step.stage == 'train' else ''}",
        "teacher": _teacher(step),
        where.noun: f"{where.topology}: {_count(where.chips, where.unit)}, {_count(where.hosts, 'host')}, "
        + (
            f"parameters whole on each {where.unit}"
            if step.whole_parameters
            else f"mesh {where.chips // mesh.fsdp} data x {mesh.fsdp} fsdp"
        ),
        "batch": f"{step.clips} clips, {step.clips / where.chips:g} a {where.unit}"
        + (f" in {parts} parts" if parts > 1 else ""),
    }


def _teacher(step: Step) -> str:
    if not isinstance(step.config, FinetuneConfig) or step.stage != "train":
        return ""
    model = teacher_config(step.config)
    return f"{model.num_hidden_layers} layers of width {model.hidden_size}, frozen" if model else ""


def _memory(step: Step, compiled: Compiled) -> dict[str, str]:
    where = step.target
    name, limit = f"memory a {where.unit}", where.limit_bytes
    of = f"{limit / GIB:.2f} GiB"
    if isinstance(where, Gpus):
        of += f" that JAX takes of {where.chip.memory_bytes / GIB:.2f}"
    if compiled.peak is None:
        needed = compiled.needed_bytes
        return {name: f"at least {needed / GIB:.2f} of {of}" if needed else f"more than {of}"}
    parts = {
        "arguments": compiled.arguments,
        "outputs": compiled.fresh_outputs,
        "temporaries": compiled.temporaries,
        "cuDNN": compiled.workspace,
        "program": compiled.code,
        "next batch": compiled.batch,
    }
    said = ", ".join(
        f"{part} {(value or 0) / GIB:.2f}" for part, value in parts.items() if part != "cuDNN" or value
    )
    return {name: f"{compiled.peak / GIB:.2f} of {of} ({compiled.peak / limit:.0%}): {said}"}


def _collectives(compiled: Compiled, unit: str) -> str:
    if compiled.peak is None:
        return ""
    said = [f"{each.count} {each.kind} {each.bytes / 2**20:.1f} MiB" for each in compiled.collectives]
    return f"a {unit} and step: " + (", ".join(said) or "none")


def _speed(step: Step) -> dict[str, str]:
    where, floor = step.target, step.floor_seconds
    forward = f" ({flops_per_clip(step.config).forward / 1e9:.1f} forward)" if step.stage == "train" else ""
    return {
        "operations": f"{step.flops_per_clip / 1e9:.1f} GFLOP a clip{forward}, "
        f"{step.flops_per_clip * step.clips / 1e12:.1f} TFLOP a step",
        "time floor": f"{1000 * floor:.2f} ms a step, "
        f"at {where.chip.peak_flops / 1e12:.0f} TFLOP/s a {where.unit}",
        "clips to read": f"{step.clips_per_second_and_host:.0f} a second and host at the floor, "
        f"{UTILISATION * step.clips_per_second_and_host:.0f} at {UTILISATION:.0%} of the peak",
    }


def verdict(step: Step, compiled: Compiled) -> str:
    """Whether the step fits, and what to try where it does not."""
    if compiled.fits(step.target):
        return "fits"
    why = f" ({compiled.short_of})" if compiled.short_of else ""
    ways = [*_more_memory(step.target, compiled), *_ways_out(step)]
    return f"does not fit{why}; try {' or '.join(ways)}, or let --search find what fits"


def _more_memory(where: Target, compiled: Compiled) -> list[str]:
    """The setting that costs nothing, where it is enough: JAX leaves part of a GPU's memory alone."""
    if isinstance(where, Gpus) and where.fraction < MOST and compiled.peak is not None:
        return [f"{FRACTION}={MOST} in the environment"] * (compiled.peak <= MOST * where.chip.memory_bytes)
    return []


def _ways_out(step: Step) -> list[str]:
    """Settings that need less memory, the cheapest in time first."""
    config, chips = step.config, step.target.chips
    if step.stage == "evaluate":
        return ["a smaller --batch-size"]
    ways = []
    split = min(chips, 8)
    if config.mesh.fsdp < split and chips % split == 0:
        ways.append(f"--mesh.fsdp {split}")
    if not config.model.remat:
        ways.append("--model.remat")
    parts = config.optim.accumulation_steps * 2
    if config.batch_size % (parts * chips) == 0:
        ways.append(f"--optim.accumulation-steps {parts}")
    smaller = config.batch_size // (2 * chips) * chips
    if smaller and smaller % config.optim.accumulation_steps == 0:
        ways.append(f"--batch-size {smaller}")
    return ways or [f"more {step.target.unit}s"]


def flags(step: Step) -> str:
    """The settings that `--search` chooses, as they are written on the command line."""
    config = step.config
    said = [f"--batch-size {config.batch_size}", f"--mesh.fsdp {config.mesh.fsdp}"]
    if step.stage == "train":
        said.append("--model.remat" if config.model.remat else "--model.no-remat")
        said.append(f"--optim.accumulation-steps {config.optim.accumulation_steps}")
    return " ".join(said[:1] if step.whole_parameters else said)
