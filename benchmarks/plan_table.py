"""What every model needs on TPU slices and on GPUs: a table of compiled steps, each of a minute or so.

    python benchmarks/plan_table.py compile        (stop it at will; the same command continues)
    python benchmarks/plan_table.py show           (writes the page again, from what is there)

Rows go to docs/plan-table.jsonl, or --out; the page beside them is made of those.
A row tries settings from the quickest to the most thrifty until one fits, and keeps what the compiler said of
each; on a large slice it begins with what fits on the small one, so that the two can be compared. A recipe's
row begins with the recipe as it is. Rows made with other settings are made again, and with --renew those made
of other code. `compile --only h100:8 base` makes the rows alone that have all of these words.
"""

import ast
import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import tyro

import videomae_jax
from videomae_jax.config import (
    SIZES,
    DataConfig,
    FinetuneConfig,
    LabelledDataConfig,
    MeshConfig,
    PretrainConfig,
    load_config,
)
from videomae_jax.hardware import GIB
from videomae_jax.plan.compile import compile_elsewhere
from videomae_jax.plan.program import Compiled, Step, step_on
from videomae_jax.plan.search import candidates
from videomae_jax.plan.topology import read_target
from videomae_jax.versions import version_of

Stage = Literal["pre-training", "fine-tuning", "evaluation", "recipe"]
SLICES = {
    "v5e": ("v5e:2x4", "v5e:16x16"),
    "v5p": ("v5p:2x2x1", "v5p:4x4x8"),
    "v6e": ("v6e:2x4", "v6e:16x16"),
    "v4": ("v4:2x2x1", "v4:4x4x8"),
}
GPUS = ("h100:1", "h100:8", "a100:8", "t4:1")
RECIPES = {
    "k400_small_1600e": (),
    "ssv2_small_2400e": (),
    "k400_base_1600e": ("k400_base_800e", "ssv2_base_2400e", "ssv2_base_800e"),
    "ucf101_base_3200e": ("hmdb51_base_4800e",),
    "k400_large_1600e": (),
    "k400_huge_1600e": (),
    "v2_hybrid_base_200e": (),
    "v2_hybrid_large_300e": (),
    "v2_hybrid_huge_300e": (),
    "v2_hybrid_giant_300e": (),
    "k400_small_150e": ("ssv2_small_40e",),
    "k400_base_75e": ("ssv2_base_30e",),
    "k400_base_100e": ("ssv2_base_50e",),
    "ucf101_base_100e": ("hmdb51_base_100e",),
    "v2_k400_base_90e": ("v2_k710_base_90e",),
    "v2_ssv2_base_25e": (),
    "k400_large_35e": (),
    "v2_k400_large_35e": ("v2_ssv2_large_20e",),
    "k400_huge_50e": (),
    "v2_k400_huge_40e": ("v2_k600_huge_40e", "v2_k710_huge_40e", "v2_ssv2_huge_20e"),
    "v2_k400_giant_30e": (),
    "v2_k400_giant_3e": ("v2_k600_giant_3e", "v2_k710_giant_35e", "v2_ssv2_giant_20e"),
    "v2_ucf101_giant_50e": ("v2_hmdb51_giant_15e",),
}
"""Published recipes, and those whose step differs in its classes and the strength of augmentation only."""
RECIPES_ON = "h100:8"
CLIPS = (32, 16, 8, 4, 2)
"""Clips a chip, the most first."""
FIRST = (("giant", "pre-training", "v5e"), ("huge", "pre-training", "v5p"))


@dataclass(frozen=True)
class Row:
    """One model in one stage, or one recipe, on one slice or on GPUs."""

    size: str
    stage: Stage
    topology: str

    def steps(self) -> Iterator[Step]:
        """The settings to try, from the quickest to the most thrifty."""
        kind, where = self.topology.split(":")[0], read_target(self.topology)
        if self.stage == "recipe":
            asked = step_on(load_config(self.size), "train", where)
            yield asked
            yield from (each for each in candidates(asked) if each != asked)
            return
        # The same on both slices of a kind, to compare them.
        split = 4 if kind in ("v4", "v5p") else min(8, where.chips)
        if self.stage == "evaluation":
            ways = [(False, 1)]
        elif self.size in ("huge", "giant"):
            ways = [(True, split)]
        else:
            ways = [(False, 1), (True, 1), (True, split)][: 3 if split > 1 else 2]
        for remat, fsdp in ways:
            for clips in CLIPS if remat or self.stage == "evaluation" else CLIPS[:2]:
                yield self._step(clips, remat, fsdp)

    def _step(self, clips: int, remat: bool, fsdp: int) -> Step:
        where = read_target(self.topology)
        model = replace(SIZES[self.size], dtype="auto", remat=remat)
        mesh, batch = MeshConfig(fsdp), clips * where.chips
        if self.stage == "pre-training":
            data = DataConfig(num_sample=1)
            return step_on(PretrainConfig(model, data, mesh=mesh, batch_size=batch), "train", where)
        labelled = replace(model, num_labels=400, drop_path=0.1)
        config = FinetuneConfig(
            labelled, LabelledDataConfig(num_sample=1), mesh=mesh, batch_size=batch, layer_decay=0.75
        )
        return step_on(config, "train" if self.stage == "fine-tuning" else "evaluate", where)


Rows = dict[Row, dict[str, Any]]
"""What was found of each row."""


def all_rows() -> list[Row]:
    """Every row, the most wanted first."""
    stages: tuple[Stage, ...] = ("pre-training", "fine-tuning", "evaluation")
    rows = [
        Row(size, stage, topology)
        for kind, topologies in SLICES.items()
        for stage in stages
        for size in SIZES
        for topology in topologies
    ]
    rows += [Row(recipe, "recipe", RECIPES_ON) for recipe in RECIPES]
    rows += [Row(size, stage, topology) for topology in GPUS for stage in stages for size in SIZES]
    return sorted(rows, key=lambda row: (row.size, row.stage, row.topology.split(":")[0]) not in FIRST)


def read_rows(out: Path) -> Rows:
    """The rows that are there already; a last line that was cut off is left out."""
    found = {}
    for line in out.read_text("utf-8").splitlines() if out.exists() else []:
        try:
            values = json.loads(line)
        except json.JSONDecodeError:
            continue
        found[Row(values["size"], values["stage"], values["topology"])] = values
    return found


SETTINGS = ("clips_per_chip", "remat", "fsdp", "dtype", "attention")


def settings(step: Step) -> dict[str, Any]:
    """What tells one attempt of a row from another."""
    config = step.config
    return {
        "clips_per_chip": step.clips // step.target.chips,
        "remat": config.model.remat,
        "fsdp": config.mesh.fsdp,
        "dtype": config.model.dtype,
        "attention": config.model.attention,
    }


def compile_row(row: Row, compile_step: Callable[[Step], Compiled], rows: Rows) -> dict[str, Any]:
    """Try a row's settings until one fits; the last attempt is the row's result."""
    attempts: list[dict[str, Any]] = []
    kind = row.topology.split(":")[0]
    small = rows.get(replace(row, topology=SLICES[kind][0])) if kind in SLICES else None
    compiler = "libtpu" if kind in SLICES else "jax-cuda13-plugin"
    steps = list(row.steps())
    first = 0 if small is None else _tried(steps).index(_said(small["attempts"][-1]))
    for step in steps[first:]:
        compiled = compile_step(step)
        fits = compiled.fits(step.target)
        attempts.append(settings(step) | {"fits": fits, "compiled": compiled.as_json()})
        if fits:
            break
    return {
        "size": row.size,
        "stage": row.stage,
        "topology": row.topology,
        "chips": step.target.chips,
        "hosts": step.target.hosts,
        "gflop_per_clip": round(step.flops_per_clip / 1e9, 1),
        "floor_seconds": step.floor_seconds,
        "clips_per_second_and_host": step.clips_per_second_and_host,
        "attempts": attempts,
        "code": code_digest(),
        "versions": {name: version_of(name) for name in ("videomae-jax", "jax", compiler)},
    }


NOT_COMPILED = {
    "models": {"flops", "loading", "probes"},
    "training": {
        "compilation",
        "hosts",
        "initial",
        "interrupts",
        "journal",
        "loop",
        "profile",
        "progress",
        "run_plan",
        "turns",
        "workdir",
    },
}


def code_digest() -> str:
    """A fingerprint of the code that is compiled, whatever its comments and layout."""
    package = Path(videomae_jax.__file__).parent
    files = [
        file
        for part, others in NOT_COMPILED.items()
        for file in sorted((package / part).glob("*.py"))
        if file.stem not in others
    ]
    code = [ast.unparse(ast.parse(file.read_text("utf-8"))) for file in files]
    return hashlib.sha256("".join(code).encode()).hexdigest()[:12]


def is_current(row: Row, values: dict[str, Any]) -> bool:
    """Whether a row was made with settings that would be tried now."""
    made, now = [_said(attempt) for attempt in values["attempts"]], _tried(row.steps())
    return all(each in now for each in made)


def _said(attempt: dict[str, Any]) -> dict[str, Any]:
    return {name: attempt.get(name) for name in SETTINGS}


def _tried(steps: Iterable[Step]) -> list[dict[str, Any]]:
    return [settings(step) for step in steps]


def compile_rows(
    rows: list[Row], out: Path, compile_step: Callable[[Step], Compiled], renew: bool = False
) -> None:
    """Append to `out` what is missing there, a row at a time; with `renew` also what other code made."""
    found = {row: values for row, values in read_rows(out).items() if is_current(row, values)}
    if renew:
        found = {row: values for row, values in found.items() if values["code"] == code_digest()}
    missing = [row for row in rows if row not in found]
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.exists() and not out.read_bytes().endswith(b"\n"):
        out.write_bytes(out.read_bytes()[: out.read_bytes().rfind(b"\n") + 1])
    for number, row in enumerate(missing, 1):
        began = time.monotonic()
        values = found[row] = compile_row(row, compile_step, found)
        with out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")
        write_page(out)
        last = values["attempts"][-1]
        print(
            f"{number}/{len(missing)} {row.size} {row.stage} {row.topology}: {last['clips_per_chip']} clips "
            f"a chip {'fit' if last['fits'] else 'do not fit'} ({time.monotonic() - began:.0f} s)",
            file=sys.stderr,
            flush=True,
        )


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
    return _said(one) == _said(other) and one["fits"] and other["fits"]


def _place(row: Row) -> tuple[int, ...]:
    stages = ("pre-training", "fine-tuning", "evaluation", "recipe")
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


def main(
    do: Literal["compile", "show"],
    /,
    out: Path = Path("docs/plan-table.jsonl"),
    renew: bool = False,
    only: tuple[str, ...] = (),
) -> None:
    """Make the rows that are missing, and with --renew those that other code made, or only write the page.

    With --only WORDS, those rows alone whose model, stage and slice hold all of the words.
    """
    if do == "compile":
        wanted = [row for row in all_rows() if set(only) <= {row.size, row.stage, row.topology}]
        compile_rows(wanted, out, compile_elsewhere, renew)
    write_page(out)


if __name__ == "__main__":
    tyro.cli(main)
