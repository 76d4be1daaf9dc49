"""The record of a run as it goes: rows of metrics, skipped videos, and the failures that must stop it."""

import math
import os
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from tqdm import tqdm

from videomae_jax.data.loading.failures import Failure
from videomae_jax.data.sources import set_address, split_weights
from videomae_jax.errors import RunError
from videomae_jax.files import write_json
from videomae_jax.training.objectives.objective import Metrics
from videomae_jax.training.reporting.hours import Clock, Hours, goodput, hours_in_words
from videomae_jax.training.reporting.overview import fact_lines
from videomae_jax.training.reporting.progress import Pace, Progress, TensorBoard
from videomae_jax.training.resolve import ResolvedRun
from videomae_jax.training.run_folder import METRICS, NONFINITE, SKIPPED, Rows

_NOTICEABLE_WAIT = 0.1
"""Share of the time spent waiting for data from which on something is said of it."""
_ROWS_BEFORE_ADVICE = 5


@dataclass(frozen=True)
class TakenStep:
    """A step handed to the devices, whose metrics nobody has waited for, and what it read."""

    step: int
    """Steps handed over so far, this one included."""
    metrics: Metrics
    record_ids: tuple[int, ...]
    """With those of the other hosts, as are `failures` and `clips`."""
    failures: tuple[Failure, ...]
    clips: int
    waited: float
    """Seconds that the slowest host spent waiting for its clips."""
    at: float
    """The moment it was handed over, by `time.perf_counter`."""


class Journal:
    """Writes metrics.jsonl, skipped.jsonl, hours.jsonl, TensorBoard and the progress display of one run."""

    def __init__(self, run: ResolvedRun, workdir: Path, first_step: int, clock: Clock) -> None:
        self._run, self._workdir, self._first = run, workdir, first_step
        self._rows = Rows(workdir / METRICS, first_step)
        self._skipped = Rows(workdir / SKIPPED, first_step)
        self._hours = Hours(workdir, first_step, clock)
        self._reasons = Counter(row["reason"] for row in self._skipped.kept)
        self._last_row = self._rows.kept[-1] if self._rows.kept else {}
        log = run.config.log
        self._board = TensorBoard(workdir / "tensorboard", first_step) if log.tensorboard else None
        self._progress = Progress(first_step, run.total_steps)
        self._nonfinite: deque[TakenStep] = deque(maxlen=run.config.max_nonfinite_steps)
        self._left_out: set[str] = set()
        self._began = time.monotonic()
        self._pace = Pace()
        self._waits: list[float] = []
        self._advised = False
        self._scores = _live_scores(self._last_row)
        """What the live line says of the latest validation."""
        self.problem: RunError | None = None
        """Why the run must stop, once it must: videos cannot be read, or steps in a row were not finite."""

    @property
    def skipped(self) -> int:
        """Videos that could not be read since step 0."""
        return self._reasons.total()

    def record(self, taken: TakenStep, validate: Callable[[], dict[str, float]] | None = None) -> None:
        """Wait for the metrics of a step and write down what it did, with validation scores if asked for."""
        for failure in taken.failures:
            self._reasons[failure.reason] += 1
            row = {"path": failure.path, "reason": failure.reason, "error": failure.error}
            self._skipped.write(row | {"step": taken.step})
        metrics = {name: value.item() for name, value in jax.device_get(taken.metrics).items()}
        self._pace.add(taken.clips, taken.waited)
        every, total = self._run.config.log.every_steps, self._run.total_steps
        if taken.step % every == 0 or taken.step == total or validate:
            values = {name: value for name, value in metrics.items() if name != "streak"}
            # Validation is left out of the time, and must not take with it the step that was waited for.
            pace = self._pace.read(time.perf_counter() if validate else taken.at)
            values |= {
                **pace,
                **self._run.utilization(pace["clips_per_second"], taken.step),
                "skipped": self.skipped,
            }
            if validate:
                scores = validate()
                values |= scores
                self._scores = _live_scores(scores) or self._scores
                self._pace.restart(time.perf_counter())
            values["goodput"] = round(goodput(self._hours.read()), 4)
            if taken.step > self._first + 1:  # Before it, workers start and the step is compiled.
                self._waits.append(values["data_wait"])
                if len(self._waits) == _ROWS_BEFORE_ADVICE and (advice := self._advice()):
                    tqdm.write(advice, file=sys.stderr)
                    self._advised = True
            self._last_row = {"step": taken.step} | {name: _finite(value) for name, value in values.items()}
            self._rows.write(self._last_row)
            self._hours.write(taken.step)
            if self._board:
                self._board.write(taken.step, self._last_row)
        self._show(taken.step, metrics["loss"])
        self._check_steps_finite(taken, metrics["streak"])
        self._check_failed_share(taken.step)

    def complete(self, scores: dict[str, float]) -> None:
        """Add validation scores to the last row of the run that is continued, if it had to go without."""
        if scores and self._rows.kept and self._rows.kept[-1]["step"] == self._first:
            self._last_row = self._rows.kept[-1] | {name: _finite(value) for name, value in scores.items()}
            self._rows.replace_last(self._last_row)

    def _show(self, step: int, loss: float) -> None:
        facts = {"loss": f"{loss:.4f}"}
        if "data_wait" in self._last_row:
            facts["clips/s"] = f"{self._last_row['clips_per_second']:.1f}"
            if "mfu" in self._last_row:
                facts["MFU"] = f"{self._last_row['mfu']:.1%}"
            facts["data wait"] = f"{self._last_row['data_wait']:.0%}"
        facts |= self._scores
        self._progress.show(step, facts | {"skipped": str(self.skipped)})

    def _check_steps_finite(self, taken: TakenStep, streak: int) -> None:
        if streak == 0:
            self._nonfinite.clear()
            return
        self._nonfinite.append(taken)
        if streak < self._run.config.max_nonfinite_steps:
            return
        videos = self._run.videos
        rows = [
            {"step": each.step, "videos": {record: videos[record].path for record in each.record_ids}}
            for each in self._nonfinite
        ]
        write_json(self._workdir / NONFINITE, rows)
        self.problem = RunError(
            f"the loss or the gradient was not finite in {streak} steps in a row, up to step {taken.step}; "
            f"none of them changed the weights. The videos read are named in {self._workdir / NONFINITE}: "
            "check them, or start anew with a lower --optim.base-lr, with --optim.clip-grad, or with "
            "--model.dtype float32."
        )

    def _check_failed_share(self, step: int) -> None:
        """Judge the share of failures once an epoch, or 1,000 videos, were asked for, and at least 20."""
        attempts = step * self._run.config.batch_size + self.skipped
        share, limit = self.skipped / attempts, self._run.config.data.max_failed_share
        if share > limit and attempts >= max(20, min(1000, len(self._run.videos))):
            self.problem = RunError(
                f"{self.skipped} of {attempts} videos asked for could not be read ({share:.0%}, above "
                f"data.max_failed_share={limit:.0%}): {self._by_reason()}. They are named in "
                f"{self._workdir / SKIPPED}. Fix the videos (see videomae-jax check-data LIST) or raise "
                "--data.max-failed-share, and run the same command again to continue."
            )

    def name_left_out(self, failures: Sequence[Failure]) -> None:
        """Say once which validation videos could not be read."""
        for failure in failures:
            if failure.path not in self._left_out:
                self._left_out.add(failure.path)
                tqdm.write(f"validation video left out ({failure.reason}): {failure.error}", file=sys.stderr)

    def _by_reason(self) -> str:
        return ", ".join(f"{count} {reason}" for reason, count in self._reasons.most_common()) or "none"

    def _advice(self) -> str:
        """What to do about waiting for data, where it takes a noticeable share of the time."""
        share = sum(self._waits) / max(1, len(self._waits))
        if share < _NOTICEABLE_WAIT:
            return ""
        data = self._run.config.data
        stored = all(set_address(source)[0] for source in split_weights(data.train)[0])
        return (
            f"{share:.0%} of the time is spent waiting for videos. Raise --data.num-workers (now "
            f"{data.num_workers}; {os.cpu_count()} cores here), or take more crops of each clip read "
            f"with --data.num-sample (now {data.num_sample})"
            + ("" if stored else ", or store the videos for quick reading with videomae-jax prepare")
        )

    def summary(self) -> str:
        """Loss, time and skipped videos, one fact a line."""
        row = self._last_row
        scores = [f"loss {row['loss']:.4f} at step {row['step']}"] if row.get("loss") is not None else []
        if row.get("val_loss") is not None:
            scores += _validation_in_words(row)
        if row.get("nonfinite"):
            scores.append(f"{row['nonfinite']} steps were not finite and changed nothing")
        if row.get("overflows"):
            scores.append(
                f"{row['overflows']} steps overflowed float16 and changed nothing but the scale of the loss, "
                f"now {row['loss_scale']:g}"
            )
        facts = {
            "result": ", ".join(scores) or "no step was logged",
            "time": f"{time.monotonic() - self._began:.1f} s since step {self._first}",
            "skipped": f"{self._by_reason()} ({self._workdir / SKIPPED})" if self.skipped else "no video",
        }
        facts["goodput"] = hours_in_words(self._hours.read())
        if advice := self._advice():
            facts["data wait"] = advice.partition(". ")[0] if self._advised else advice
        return fact_lines(facts)

    def close(self) -> None:
        self._progress.close()
        self._hours.close()
        self._rows.close()
        self._skipped.close()
        if self._board:
            self._board.close()


def _live_scores(row: Mapping[str, Any]) -> dict[str, str]:
    """The score of a row that the live line shows, where it has one."""
    if row.get("val_top1") is not None:
        return {"val top-1": f"{row['val_top1']:.1%}"}
    return {"val loss": f"{row['val_loss']:.4f}"} if row.get("val_loss") is not None else {}


class SilentJournal:
    """The journal of every host but the first: it waits as the first does, and writes and judges nothing."""

    problem: RunError | None = None

    def record(self, taken: TakenStep, validate: Callable[[], dict[str, float]] | None = None) -> None:
        """Wait for the metrics of a step, and take part in a validation."""
        jax.block_until_ready(taken.metrics)
        if validate:
            validate()

    def complete(self, scores: dict[str, float]) -> None:
        """See `Journal`."""

    def name_left_out(self, failures: Sequence[Failure]) -> None:
        """See `Journal`."""

    def summary(self) -> str:
        """See `Journal`."""
        return ""

    def close(self) -> None:
        """See `Journal`."""


def _finite(value: float) -> float | None:
    """JSON has no NaN: null stands for what is not finite."""
    return value if math.isfinite(value) else None


def _validation_in_words(row: Mapping[str, Any]) -> list[str]:
    """The scores of a row with a validation: of pre-training its loss, of fine-tuning its accuracies."""
    if "val_top1" not in row:
        zero = row["val_zero_loss"]
        return [f"validation loss {row['val_loss']:.4f} (predicting zero scores {zero:.4f})"]
    top5 = f", top-5 {row['val_top5']:.1%}" if "val_top5" in row else ""
    return [f"validation top-1 {row['val_top1']:.1%}{top5} (one clip a video)"]
