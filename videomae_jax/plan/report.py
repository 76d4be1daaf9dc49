"""The plan of a step in words: memory, what chips send each other, operations, time, and the verdict."""

from videomae_jax.hardware import GIB
from videomae_jax.models.flops import flops_per_clip
from videomae_jax.plan.program import Compiled, Step

UTILISATION = 0.4
"""Of the peak: what a good training run reaches, for a second look at what hosts must deliver."""


def describe(step: Step, compiled: Compiled) -> str:
    """The plan, one fact a line."""
    facts = {
        **_settings(step),
        **_memory(step, compiled),
        "collectives": _collectives(compiled),
        **_speed(step),
        "compiled in": f"{compiled.seconds:.0f} s",
        "verdict": verdict(step, compiled),
    }
    return "\n".join(f"{name:>13}  {value}" for name, value in facts.items() if value)


def _count(number: int, name: str) -> str:
    return f"{number} {name}" + "s" * (number != 1)


def _settings(step: Step) -> dict[str, str]:
    config, where = step.config, step.slice
    model, mesh = config.model, config.mesh
    parts = config.optim.accumulation_steps if step.stage == "train" else 1
    return {
        "step": f"{step.kind}, {model.num_hidden_layers} layers of width {model.hidden_size}, {model.dtype}"
        f"{', recomputing blocks' if model.remat and step.stage == 'train' else ''}",
        "slice": f"{where.topology}: {_count(where.chips, 'chip')}, {_count(where.hosts, 'host')}, "
        + (
            "parameters whole on each chip"
            if step.whole_parameters
            else f"mesh {where.chips // mesh.fsdp} data x {mesh.fsdp} fsdp"
        ),
        "batch": f"{step.clips} clips, {step.clips / where.chips:g} a chip"
        + (f" in {parts} parts" if parts > 1 else ""),
    }


def _memory(step: Step, compiled: Compiled) -> dict[str, str]:
    limit = step.slice.chip.hbm_bytes
    if compiled.peak is None:
        needed = compiled.needed_bytes
        return {
            "memory a chip": f"at least {needed / GIB:.2f} of {limit / GIB:.2f} GiB"
            if needed
            else f"more than {limit / GIB:.2f} GiB"
        }
    parts = {
        "arguments": compiled.arguments,
        "outputs": compiled.fresh_outputs,
        "temporaries": compiled.temporaries,
        "program": compiled.code,
        "next batch": compiled.batch,
    }
    said = ", ".join(f"{name} {(value or 0) / GIB:.2f}" for name, value in parts.items())
    return {
        "memory a chip": f"{compiled.peak / GIB:.2f} of {limit / GIB:.2f} GiB "
        f"({compiled.peak / limit:.0%}): {said}"
    }


def _collectives(compiled: Compiled) -> str:
    if compiled.peak is None:
        return ""
    said = [f"{each.count} {each.kind} {each.bytes / 2**20:.1f} MiB" for each in compiled.collectives]
    return "a chip and step: " + (", ".join(said) or "none")


def _speed(step: Step) -> dict[str, str]:
    where, floor = step.slice, step.floor_seconds
    forward = f" ({flops_per_clip(step.config).forward / 1e9:.1f} forward)" if step.stage == "train" else ""
    return {
        "operations": f"{step.flops_per_clip / 1e9:.1f} GFLOP a clip{forward}, "
        f"{step.flops_per_clip * step.clips / 1e12:.1f} TFLOP a step",
        "time floor": f"{1000 * floor:.2f} ms a step, at {where.chip.peak_flops / 1e12:.0f} TFLOP/s a chip",
        "clips to read": f"{step.clips_per_second_and_host:.0f} a second and host at the floor, "
        f"{UTILISATION * step.clips_per_second_and_host:.0f} at {UTILISATION:.0%} of the peak",
    }


def verdict(step: Step, compiled: Compiled) -> str:
    """Whether the step fits, and what to try where it does not."""
    if compiled.fits(step.slice):
        return "fits"
    why = f" ({compiled.short_of})" if compiled.short_of else ""
    return f"does not fit{why}; try {' or '.join(_ways_out(step))}, or let --search find what fits"


def _ways_out(step: Step) -> list[str]:
    """Settings that need less memory, the cheapest in time first."""
    config, chips = step.config, step.slice.chips
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
    return ways or ["a larger slice"]


def flags(step: Step) -> str:
    """The settings that `--search` chooses, as they are written on the command line."""
    config = step.config
    said = [f"--batch-size {config.batch_size}", f"--mesh.fsdp {config.mesh.fsdp}"]
    if step.stage == "train":
        said.append("--model.remat" if config.model.remat else "--model.no-remat")
        said.append(f"--optim.accumulation-steps {config.optim.accumulation_steps}")
    return " ".join(said[:1] if step.whole_parameters else said)
