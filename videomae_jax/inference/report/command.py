"""The command `videomae-jax report`, and the report that a run writes at its end."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from videomae_jax.errors import InputError
from videomae_jax.files import write_text
from videomae_jax.inference.report.page import write_page
from videomae_jax.inference.report.record import RunRecord, read_run
from videomae_jax.inference.report.samples import Sample, draw_samples
from videomae_jax.training.reporting.overview import fact_lines
from videomae_jax.training.run_folder import METRICS, read_rows

REPORT = "report.html"


@dataclass(frozen=True)
class Report:
    """Write one HTML file on one or several runs: curves over each other, where the hours went, skipped
    videos, samples of what the weights do, settings. It loads nothing and can be sent to others."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Work folders of runs, which may still be going on."""
    out: Path = Path(REPORT)
    """The file to write."""
    samples: int = 2
    """Videos of each run, of its validation where it has one, that are reconstructed by up to four of its
    checkpoints, or classified; 0 for none."""


def report(args: Report) -> int:
    """Write the report; returns the exit code. Raises InputError for a folder without a run."""
    if not args.runs:
        raise InputError("name at least one run: videomae-jax report WORKDIR")
    if args.samples < 0:
        raise InputError(f"--samples {args.samples} must be 0 or more")
    write_report(args.runs, args.out, args.samples)
    print(f"Wrote {args.out}")
    return 0


def write_report(workdirs: Sequence[Path], out: Path, samples: int) -> None:
    """As the command does. Why there are no samples is said on the page."""
    runs = [read_run(workdir) for workdir in workdirs]
    found = [_samples(run, samples) for run in runs]
    write_text(out, write_page(runs, [str(workdir) for workdir in workdirs], found))


def report_end(workdir: Path, with_samples: bool) -> None:
    """Write the report of a run at its end into its work folder, and say so, once it has logged a step."""
    if read_rows(workdir / METRICS):
        write_report([workdir], workdir / REPORT, Report.samples if with_samples else 0)
        print(fact_lines({"report": str(workdir / REPORT)}), flush=True)


def _samples(run: RunRecord, count: int) -> tuple[list[Sample], str]:
    found: list[Sample] = []
    try:
        if count:
            found.extend(draw_samples(run, count))
            if not found:
                return [], "There are none: no video could be read."
    # Weights of another version, videos that were moved, too little memory: a report says so and is written.
    except (ValueError, KeyError, OSError, RuntimeError) as error:
        return found, f"There are no more: {error}"
    return found, ""
