"""docs/plan-table.md, made of the rows of the plan table."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from plan_rows import GPUS, RECIPES, SLICES, Row, Rows, all_rows, is_current, read_rows, settings_of

from videomae_jax.config import SIZES
from videomae_jax.hardware import GIB
from videomae_jax.plan.program import Compiled
from videomae_jax.plan.topology import read_target

HEADER = (
    "model",
    "stage",
    "slice",
    "clips a chip",
    "remat",
    "fsdp",
    "GiB a chip",
    "of",
    "collectives, MiB a chip and step",
    "GFLOP a clip",
    "floor, ms a step",
    "clips/s a host",
)


def write_page(out: Path) -> None:
    """Write the page beside the rows."""
    out.with_suffix(".md").write_text(page(read_rows(out)), "utf-8")


def page(rows: Rows) -> str:
    """The rows that are there and current, as tables, and what grows from a small slice to a large one."""
    tpus, gpus, recipes = [], [], []
    for row in sorted(all_rows(), key=_place):
        recipe, on_tpus = row.stage == "recipe", row.topology.split(":")[0] in SLICES
        (recipes if recipe else tpus if on_tpus else gpus).append(row)
    parts = [
        "# What every model needs on TPU slices and on GPUs",
        f"{_made(rows, tpus)} See [plan.md](plan.md).",
        markdown(_shown(rows, tpus)),
        weak_scaling(_shown(rows, tpus)),
        "## On GPUs",
        _made(rows, gpus),
        markdown(_shown(rows, gpus)),
        "## Published recipes on eight H100",
        f"Each at its own batch, as it is and where that does not fit with what does. {_made(rows, recipes)}",
        recipe_table(_shown(rows, recipes)),
    ]
    return "\n\n".join(parts) + "\n"


def _shown(rows: Rows, wanted: list[Row]) -> Rows:
    return {row: rows[row] for row in wanted if row in rows and is_current(row, rows[row])}


def _made(rows: Rows, wanted: list[Row]) -> str:
    """How many rows there are, and by what they were compiled."""
    shown = _shown(rows, wanted)
    versions = {json.dumps(values["versions"]) for values in shown.values()}
    codes = {values["code"] for values in shown.values()}
    said = "; ".join(
        ", ".join(f"{name} {version}" for name, version in json.loads(each).items())
        for each in sorted(versions)
    )
    mixed = f", by {len(codes)} states of the code" if len(codes) > 1 else ""
    return f"{len(shown)} of {len(wanted)} rows compiled ({said}){mixed}."


def markdown(shown: Rows) -> str:
    """A table of rows."""
    lines = [f"| {' | '.join(HEADER)} |", "|---" * len(HEADER) + "|"]
    lines += [f"| {' | '.join(_cells(row, values))} |" for row, values in shown.items()]
    return "\n".join(lines)


def recipe_table(shown: Rows) -> str:
    """A table of recipes: what each needs as it is, whether that fits, and with what else it does."""
    header = ("recipe", "others alike", "clips a GPU", "GiB a GPU as it is", "of", "verdict",
              "collectives, MiB a GPU and step", "floor, ms a step")  # fmt: skip
    lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    for row, values in shown.items():
        first, last = values["attempts"][0], values["attempts"][-1]
        limit = read_target(row.topology).limit_bytes
        way = f"--mesh.fsdp {last['fsdp']}" * (last["fsdp"] != first["fsdp"])
        way += " --model.remat" * (last["remat"] != first["remat"])
        peak = (Compiled.from_json(last["compiled"]).peak or 0) / GIB
        verdict = "fits" if first["fits"] else "does not fit"
        if last is not first:
            verdict += f"; {peak:.1f} GiB with {way.strip()}" + ", nor that" * (not last["fits"])
        cells = [
            row.size,
            ", ".join(RECIPES[row.size]),
            str(first["clips_per_chip"]),
            _gib(first),
            f"{limit / GIB:.1f}",
            verdict,
            _sent_in_words(last),
            f"{1000 * values['floor_seconds']:.1f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _gib(attempt: dict[str, Any]) -> str:
    return f"{(Compiled.from_json(attempt['compiled']).peak or 0) / GIB:.1f}"


def _sent_in_words(attempt: dict[str, Any]) -> str:
    collectives = Compiled.from_json(attempt["compiled"]).collectives
    said = [f"{each.kind} {each.bytes / 2**20:.0f}" for each in collectives if each.bytes >= 2**19]
    return ", ".join(said) or "none"


def weak_scaling(shown: Rows) -> str:
    """What a chip sends on the large slice for what it sends on the small one, with the same settings."""
    lines = [
        "## From a small slice to a large one",
        "",
        "MiB of collectives a chip and step, with as many clips a chip and the same mesh.fsdp on both.",
        "",
        "| model | stage | slices | small | large | ratio |",
        "|---|---|---|---|---|---|",
    ]
    for row, values in shown.items():
        small, large = SLICES[row.topology.split(":")[0]]
        other = shown.get(replace(row, topology=large))
        last = values["attempts"][-1]
        if row.topology != small or other is None or not _same_settings(last, other["attempts"][-1]):
            continue
        before, after = _sent(last), _sent(other["attempts"][-1])
        ratio = f"{after / before:.2f}" if before else "none is sent" if not after else "new"
        cells = row.size, row.stage, f"{small}, {large}", f"{before:.0f}", f"{after:.0f}", ratio
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _sent(attempt: dict[str, Any]) -> float:
    """MiB of all collectives of a chip and step."""
    return sum(each["bytes"] for each in attempt["compiled"]["collectives"]) / 2**20


def _same_settings(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return settings_of(one) == settings_of(other) and one["fits"] and other["fits"]


def _place(row: Row) -> tuple[int, ...]:
    stages = ("pre-training", "dual masking", "fine-tuning", "evaluation", "recipe")
    sizes = list(RECIPES) if row.stage == "recipe" else list(SIZES)
    topologies = [*(each for both in SLICES.values() for each in both), *GPUS]
    return stages.index(row.stage), sizes.index(row.size), topologies.index(row.topology)


def _cells(row: Row, values: dict[str, Any]) -> list[str]:
    last = values["attempts"][-1]
    limit, peak = read_target(row.topology).limit_bytes, _gib(last) if last["fits"] else "does not fit"
    evaluated = row.stage == "evaluation"
    return [
        row.size,
        row.stage,
        row.topology,
        str(last["clips_per_chip"]),
        "" if evaluated else "yes" if last["remat"] else "no",
        "" if evaluated else str(last["fsdp"]),
        peak,
        f"{limit / GIB:.1f}",
        _sent_in_words(last),
        f"{values['gflop_per_clip']:.1f}",
        f"{1000 * values['floor_seconds']:.1f}",
        f"{values['clips_per_second_and_host']:.0f}",
    ]
