"""Where the hours of a run go, kept over restarts: seconds by use, a row for each logged step.

Goodput is the share of them that went to steps which count: what a restart does again is lost.
"""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from videomae_jax.errors import RunError
from videomae_jax.training.reporting.pace import duration_in_words
from videomae_jax.training.run_folder import HOURS, Rows, read_rows

USES = {
    "steps": "steps",
    "starting": "starting",
    "compiling": "compiling",
    "data": "waiting for data",
    "validation": "validation",
    "saving": "saving",
    "lost": "lost to restarts",
}
"""What the hours of a run go to, in words."""


class Clock:
    """Seconds since a moment of `time.perf_counter`, by their use; those that were not noted are steps."""

    def __init__(self, began: float) -> None:
        self._began = began
        self._noted: dict[str, float] = defaultdict(float)

    def note(self, use: str, seconds: float) -> None:
        self._noted[use] += seconds

    @contextmanager
    def spent_on(self, use: str) -> Iterator[None]:
        """Note how long the block takes."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.note(use, time.perf_counter() - began)

    def read(self) -> dict[str, float]:
        seconds = time.perf_counter() - self._began
        return {**self._noted, "steps": max(0.0, seconds - sum(self._noted.values()))}


class Hours:
    """The hours of a run, with those of its earlier starts.

    What an earlier start did after `first_step`, from which this one continues, is lost. What a killed one
    did after its last row is not known, nor is the time between two starts counted.
    """

    def __init__(self, workdir: Path, first_step: int, clock: Clock) -> None:
        written = read_rows(workdir / HOURS)
        self._rows, self._clock = Rows(workdir / HOURS, first_step), clock
        newest = written[-1] if written else {}
        kept = self._rows.kept[-1] if self._rows.kept else {}
        self._earlier = {use: kept.get(use, 0.0) for use in USES}
        self._earlier["lost"] += seconds_of(newest) - seconds_of(kept)
        self._step = first_step

    def read(self) -> dict[str, float]:
        """Seconds by use, all that is known up to now."""
        now = self._clock.read()
        return {use: round(self._earlier[use] + now.get(use, 0.0), 3) for use in USES}

    def write(self, step: int) -> None:
        """Write the row of a step; raises RunError when that fails."""
        self._step = step
        self._rows.write({"step": step} | self.read())

    def close(self) -> None:
        """Write what came after the last row, such as the last checkpoint."""
        with suppress(RunError):
            self.write(self._step)
        self._rows.close()


def seconds_of(hours: Mapping[str, float]) -> float:
    """All seconds of a row."""
    return sum(hours.get(use, 0.0) for use in USES)


def goodput(hours: Mapping[str, float]) -> float:
    """The share that went to steps which count, 0 to 1."""
    return hours["steps"] / (seconds_of(hours) or 1.0)


def hours_in_words(hours: Mapping[str, float]) -> str:
    """How long a run took in all, and the shares of what it went to, of half a percent or more."""
    total = seconds_of(hours) or 1.0
    others = [
        f"{words} {hours[use] / total:.0%}"
        for use, words in USES.items()
        if use != "steps" and hours[use] / total >= 0.005
    ]
    return f"{goodput(hours):.0%} of {duration_in_words(total)} went to steps" + (
        f"; {', '.join(others)}" if others else ""
    )
