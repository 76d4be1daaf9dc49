"""What a work folder says of its run: rows, hours, skipped videos, settings, the result of a test."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from videomae_jax.checkpoints.trees import flatten
from videomae_jax.errors import InputError
from videomae_jax.files import read_json
from videomae_jax.training.run_folder import HOURS, METRICS, SETTINGS, SKIPPED, read_rows

_TEST = "test/evaluation.json"


@dataclass(frozen=True)
class RunRecord:
    """What is known of a run."""

    workdir: Path
    rows: list[dict[str, Any]]
    """A row of metrics for each logged step."""
    hours: dict[str, float]
    """Seconds by use; empty for a run of a version that did not count them."""
    skipped: Counter[str]
    """Videos that could not be read, by reason."""
    settings: dict[str, Any]
    """By names with dots."""
    test: dict[str, Any] | None
    """The result of the final test, where there was one."""

    def last(self, name: str) -> float | None:
        """The newest value of a metric; None where it was never finite, or never measured."""
        return next((row[name] for row in reversed(self.rows) if row.get(name) is not None), None)

    def series(self, name: str) -> tuple[list[int], list[float]]:
        """Steps and finite values of a metric."""
        points = [(row["step"], row[name]) for row in self.rows if row.get(name) is not None]
        return [step for step, _ in points], [value for _, value in points]


def read_run(workdir: Path) -> RunRecord:
    """Raises InputError for a folder that no run wrote in, or whose files are damaged."""
    rows = read_rows(workdir / METRICS)
    if not rows:
        raise InputError(
            f"{workdir} has no row in {METRICS}: name the work folder of a run that has taken a step"
        )
    hours = read_rows(workdir / HOURS)
    return RunRecord(
        workdir,
        rows,
        hours[-1] if hours else {},
        Counter(row.get("reason", "unknown") for row in read_rows(workdir / SKIPPED)),
        flatten(_found(workdir / SETTINGS, "the settings of a run") or {}),
        _found(workdir / _TEST, "the result of a test"),
    )


def _found(file: Path, what: str) -> dict[str, Any] | None:
    return read_json(file, what) if file.exists() else None
