"""What every model needs on TPU slices and on GPUs: a table of compiled steps, each of a minute or so.

    python benchmarks/plan_table.py compile        (stop it at will; the same command continues)
    python benchmarks/plan_table.py show           (writes the page again, from what is there)

Rows go to docs/plan-table.jsonl, or --out; the page beside them is made of those.
A row tries settings from the quickest to the most thrifty until one fits, and keeps what the compiler said of
each; on a large slice it begins with what fits on the small one, so that the two can be compared. A recipe's
row begins with the recipe as it is. Rows made with other settings are made again, and with --renew those made
of other code. `compile --only h100:8 base` makes the rows alone that have all of these words.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import tyro
from plan_page import write_page
from plan_rows import (
    SLICES,
    Row,
    Rows,
    all_rows,
    code_digest,
    is_current,
    read_rows,
    settings,
    settings_of,
    settings_tried,
)

from videomae_jax.files import write_text
from videomae_jax.plan.compile import compile_elsewhere
from videomae_jax.plan.program import Compiled, Step
from videomae_jax.versions import version_of


def compile_row(row: Row, compile_step: Callable[[Step], Compiled], rows: Rows) -> dict[str, Any]:
    """Try a row's settings until one fits; the last attempt is the row's result."""
    attempts: list[dict[str, Any]] = []
    kind = row.topology.split(":")[0]
    small = rows.get(replace(row, topology=SLICES[kind][0])) if kind in SLICES else None
    compiler = "libtpu" if kind in SLICES else "jax-cuda13-plugin"
    steps = list(row.steps())
    first = 0 if small is None else settings_tried(steps).index(settings_of(small["attempts"][-1]))
    for step in steps[first:]:
        compiled = compile_step(step)
        fits = compiled.fits(step.target)
        attempts.append(settings(step) | {"fits": fits, "compiled": asdict(compiled)})
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


def compile_rows(
    rows: list[Row], out: Path, compile_step: Callable[[Step], Compiled], renew: bool = False
) -> None:
    """Add to `out` what is missing there, a row at a time, and with `renew` replace what other code made."""
    found = {row: values for row, values in read_rows(out).items() if is_current(row, values)}
    if renew:
        found = {row: values for row, values in found.items() if values["code"] == code_digest()}
    missing = [row for row in rows if row not in found]
    out.parent.mkdir(parents=True, exist_ok=True)
    for number, row in enumerate(missing, 1):
        began = time.monotonic()
        values = found[row] = compile_row(row, compile_step, found)
        kept = read_rows(out) | {row: values}
        write_text(out, "".join(json.dumps(each) + "\n" for each in kept.values()))
        write_page(out)
        last = values["attempts"][-1]
        print(
            f"{number}/{len(missing)} {row.size} {row.stage} {row.topology}: {last['clips_per_chip']} clips "
            f"a chip {'fit' if last['fits'] else 'do not fit'} ({time.monotonic() - began:.0f} s)",
            file=sys.stderr,
            flush=True,
        )


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
