"""What every model needs on TPU slices: a table of compiled steps, each of which takes a minute or so.

    python benchmarks/plan_table.py compile        (stop it at will; the same command continues)
    python benchmarks/plan_table.py show           (writes the page again, from what is there)

Rows go to docs/plan-table.jsonl, or --out; the page beside them is made of those.
A row tries settings from the quickest to the most thrifty until one fits, and keeps what the compiler said of
each; on a large slice it begins with what fits on the small one, so that the two can be compared. Rows made
with other settings are made again, and with --renew those made of other code.
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
)
from videomae_jax.hardware import GIB
from videomae_jax.plan.compile import compile_elsewhere
from videomae_jax.plan.program import Compiled, Step, step_on
from videomae_jax.plan.topology import read_target
from videomae_jax.versions import version_of

Stage = Literal["pre-training", "fine-tuning", "evaluation"]
SLICES = {
    "v5e": ("v5e:2x4", "v5e:16x16"),
    "v5p": ("v5p:2x2x1", "v5p:4x4x8"),
    "v6e": ("v6e:2x4", "v6e:16x16"),
    "v4": ("v4:2x2x1", "v4:4x4x8"),
}
CLIPS = (32, 16, 8, 4, 2)
"""Clips a chip, the most first."""
FIRST = (("giant", "pre-training", "v5e"), ("huge", "pre-training", "v5p"))


@dataclass(frozen=True)
class Row:
    """One model in one stage on one slice."""

    size: str
    stage: Stage
    topology: str

    def steps(self) -> Iterator[Step]:
        """The settings to try, from the quickest to the most thrifty."""
        kind = self.topology.split(":")[0]
        split = 4 if kind in ("v4", "v5p") else 8  # The same on both slices of a kind, to compare them.
        if self.stage == "evaluation":
            ways = [(False, 1)]
        elif self.size in ("huge", "giant"):
            ways = [(True, split)]
        else:
            ways = [(False, 1), (True, 1), (True, split)]
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
    small = rows.get(replace(row, topology=SLICES[row.topology.split(":")[0]][0]))
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
        "versions": {name: version_of(name) for name in ("videomae-jax", "jax", "libtpu")},
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
    """The rows that are there and current, as a table, and what grows from a small slice to a large one."""
    order = sorted(all_rows(), key=_place)
    shown = {row: rows[row] for row in order if row in rows and is_current(row, rows[row])}
    versions = {json.dumps(values["versions"]) for values in shown.values()}
    codes = {values["code"] for values in shown.values()}
    said = "; ".join(
        ", ".join(f"{name} {version}" for name, version in json.loads(each).items())
        for each in sorted(versions)
    )
    title = f"# What every model needs on TPU slices\n\n{len(shown)} of {len(order)} rows compiled ({said})"
    mixed = f", by {len(codes)} states of the code" if len(codes) > 1 else ""
    return f"{title}{mixed}. See [plan.md](plan.md).\n\n{markdown(shown)}\n\n{weak_scaling(shown)}\n"


def markdown(shown: Rows) -> str:
    """A table of rows."""
    lines = [f"| {' | '.join(HEADER)} |", "|---" * len(HEADER) + "|"]
    lines += [f"| {' | '.join(_cells(row, values))} |" for row, values in shown.items()]
    return "\n".join(lines)


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
    stages = ("pre-training", "fine-tuning", "evaluation")
    kind = row.topology.split(":")[0]
    place = SLICES[kind].index(row.topology)
    return stages.index(row.stage), list(SIZES).index(row.size), list(SLICES).index(kind), place


def _cells(row: Row, values: dict[str, Any]) -> list[str]:
    last = values["attempts"][-1]
    compiled, limit = Compiled.from_json(last["compiled"]), read_target(row.topology).limit_bytes
    peak = "does not fit" if not last["fits"] else f"{(compiled.peak or 0) / GIB:.1f}"
    said = ", ".join(
        f"{each.kind} {each.bytes / 2**20:.0f}" for each in compiled.collectives if each.bytes >= 2**19
    )
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
        said or "none",
        f"{values['gflop_per_clip']:.1f}",
        f"{1000 * values['floor_seconds']:.1f}",
        f"{values['clips_per_second_and_host']:.0f}",
    ]


def main(
    do: Literal["compile", "show"], /, out: Path = Path("docs/plan-table.jsonl"), renew: bool = False
) -> None:
    """Make the rows that are missing, and with --renew those that other code made, or only write the page."""
    if do == "compile":
        compile_rows(all_rows(), out, compile_elsewhere, renew)
    write_page(out)


if __name__ == "__main__":
    tyro.cli(main)
