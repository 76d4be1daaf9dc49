"""What a person sees and plots of a running training: pace, a progress bar or plain lines, TensorBoard."""

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 10


class Pace:
    """Clips per second and the share of time spent waiting for data, since they were last read."""

    def __init__(self) -> None:
        self.restart(time.perf_counter())

    def restart(self, at: float) -> None:
        """Begin to measure at a moment of `time.perf_counter`."""
        self._since, self._waited, self._clips = at, 0.0, 0

    def add(self, clips: int, waited: float) -> None:
        """Count the clips of one step and the seconds it waited for them."""
        self._clips += clips
        self._waited += waited

    def read(self, at: float) -> dict[str, float]:
        """`clips_per_second` and `data_wait` (0 to 1) up to a moment, where the next measurement begins."""
        seconds = at - self._since
        pace = {
            "clips_per_second": round(self._clips / seconds, 3),
            "data_wait": round(min(1.0, self._waited / seconds), 4),
        }
        self.restart(at)
        return pace


class Progress:
    """A progress bar on a terminal, a line every ten seconds elsewhere; both on stderr."""

    def __init__(self, first_step: int, total_steps: int) -> None:
        self._total = total_steps
        self._first: tuple[int, float] | None = None  # The first step shown: those before it were compiled.
        self._next_line = time.monotonic()
        self._bar = tqdm(
            total=total_steps,
            initial=first_step,
            unit="step",
            dynamic_ncols=True,
            disable=not sys.stderr.isatty(),
        )

    def show(self, step: int, facts: Mapping[str, str]) -> None:
        """Report the state after `step`."""
        if not self._bar.disable:
            self._bar.set_postfix(facts, refresh=False)
            self._bar.update(step - self._bar.n)
            return
        now = time.monotonic()
        first_step, began = self._first = self._first or (step, now)
        if now < self._next_line and step < self._total:
            return
        self._next_line = now + SECONDS_BETWEEN_LINES
        said = ", ".join(f"{name} {value}" for name, value in facts.items())
        if first_step < step < self._total:
            left = (now - began) / (step - first_step) * (self._total - step)
            said += f", {tqdm.format_interval(left)} left"
        print(f"step {step}/{self._total}: {said}", file=sys.stderr, flush=True)

    def close(self) -> None:
        self._bar.close()


class TensorBoard:
    """Scalars for TensorBoard; what an earlier, killed run wrote past `first_step` is hidden."""

    def __init__(self, folder: Path, first_step: int) -> None:
        self._writer = _summary_writer()(str(folder), purge_step=first_step + 1)

    def write(self, step: int, values: Mapping[str, float | None]) -> None:
        for name, value in values.items():
            if value is not None:
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


def _summary_writer() -> Any:
    """tensorboardX's writer, which would load PyTorch where it is there: seconds and 700 MB for nothing."""
    loaded = sys.modules.get("torch")
    sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        from tensorboardX import SummaryWriter
    finally:
        del sys.modules["torch"]
        if loaded:
            sys.modules["torch"] = loaded
    return SummaryWriter
