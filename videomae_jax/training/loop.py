"""A training run as a whole: start or continue, feed the steps, report, save, stop cleanly."""

import sys
import time
from collections.abc import Generator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from signal import Signals
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from videomae_jax.checkpoints.orbax import (
    CheckpointWriter,
    find_evaluated_folder,
    find_step_folder,
    list_steps,
    read_description,
    step_folder,
)
from videomae_jax.config import FinetuneConfig, RunConfig
from videomae_jax.data.loading.batches import batches, each_video
from videomae_jax.data.loading.failures import Failure
from videomae_jax.data.loading.filling import ClipBatch
from videomae_jax.data.loading.workers import Workers
from videomae_jax.errors import InputError, RunError
from videomae_jax.files import folder_lock, locked_folder, write_json
from videomae_jax.training.compilation import announced
from videomae_jax.training.memory import out_of_memory_explained, ways_to_save_memory
from videomae_jax.training.multihost.hosts import Hosts
from videomae_jax.training.multihost.lockstep import Lockstep, SharedBatch
from videomae_jax.training.multihost.signals import stop_on_signals
from videomae_jax.training.objectives.objective import Arrays, Metrics
from videomae_jax.training.reporting.hours import Clock
from videomae_jax.training.reporting.journal import Journal, SilentJournal, TakenStep
from videomae_jax.training.reporting.overview import describe_run, fact_lines
from videomae_jax.training.reporting.profile import Profile
from videomae_jax.training.resolve import ResolvedRun, resolve_run
from videomae_jax.training.run_folder import SETTINGS, changed_arithmetic, changed_draws, check_same_run
from videomae_jax.training.sharding import batch_sharding
from videomae_jax.training.start import check_same_teacher, initial_state, restored_state, taught_by
from videomae_jax.training.state import split_state
from videomae_jax.training.step import make_train_step, make_validation_step


@dataclass(frozen=True)
class Outcome:
    """How a run ended: the steps it has done of those planned, and the signal that stopped it, if one did."""

    step: int
    total_steps: int
    signal: Signals | None = None

    @property
    def exit_code(self) -> int:
        """0, or 128 + the signal's number as shells count."""
        return 0 if self.signal is None else 128 + self.signal


def train(
    config: RunConfig,
    workdir: Path,
    dry_run: bool = False,
    profile_steps: str | None = None,
    workers: Workers | None = None,
) -> Outcome:
    """Pre-train or fine-tune, or continue the run found in `workdir`, to the end or to SIGTERM or Ctrl-C.

    `profile_steps` such as "10:15" are traced by host 0. `workers` stay open; by default the run has some of
    its own. Raises InputError when settings, lists or the work folder do not allow it, RunError when it had
    to stop.
    """
    hosts, profile, clock = Hosts(), Profile(profile_steps, workdir), Clock(time.perf_counter())
    run = hosts.agree(partial(resolve_run, config, workdir))
    hosts.compare(run.facts_of_all_hosts)
    if dry_run:
        first_step = hosts.agree(partial(_first_step, run, workdir, hosts))
        _say(hosts, describe_run(run, first_step))
        with out_of_memory_explained(partial(ways_to_save_memory, run)):
            _try_one_step(run, hosts)
        return Outcome(0, run.total_steps)
    with ExitStack() as held:
        request = held.enter_context(stop_on_signals())
        workers = workers or held.enter_context(closing(Workers(config.data.num_workers)))
        first_step = _open(run, workdir, hosts, held)
        _say(hosts, describe_run(run, first_step))
        profile.check(first_step, run.total_steps)
        lockstep = Lockstep(hosts, request)
        with (
            closing(
                _Training(run, workdir, first_step, hosts, lockstep, profile, workers, clock)
            ) as training,
            out_of_memory_explained(partial(ways_to_save_memory, run)),
        ):
            training.train()
        stopped = "finished"
        if lockstep.signal:
            stopped = f"stopped by {lockstep.signal.name}; the same command continues"
        _say(hosts, f"{stopped} at step {training.step} of {run.total_steps}\n{training.journal.summary()}")
        if training.step:
            facts = {"checkpoint": str(find_step_folder(workdir))}
            if training.best:
                score = training.best["score"]
                facts["best"] = f"{find_evaluated_folder(workdir)}, {score:.1%} in validation"
            command = "classify" if isinstance(config, FinetuneConfig) else "reconstruct"
            facts["next"] = f"videomae-jax {command} VIDEO --checkpoint {workdir}"
            _say(hosts, fact_lines(facts))
        return Outcome(training.step, run.total_steps, lockstep.signal)


def _say(hosts: Hosts, text: str) -> None:
    """Print on the first host only, above a progress bar."""
    if hosts.first:
        tqdm.write(text)
        sys.stdout.flush()


def _open(run: ResolvedRun, workdir: Path, hosts: Hosts, held: ExitStack) -> int:
    """Take the work folder for this run, and return the step from which all hosts start or continue it."""

    def take() -> int:
        if not hosts.first:
            return 0
        held.enter_context(locked_folder(workdir, "--workdir"))
        return _first_step(run, workdir, hosts)

    def look() -> None:
        if not folder_lock(workdir).exists() or (
            first_step and not step_folder(workdir, first_step).is_dir()
        ):
            raise InputError(
                f"--workdir {workdir} is not that of host 0: it must be on a storage shared by all"
            )

    first_step = hosts.share(hosts.agree(take))[0]
    hosts.agree(look)
    return first_step


def _first_step(run: ResolvedRun, workdir: Path, hosts: Hosts) -> int:
    """The step from which a run starts or continues; raises InputError when it would not be the same run."""
    if not list_steps(workdir):
        return 0
    folder = find_step_folder(workdir)
    saved = read_description(folder)
    check_same_run(saved, run.description, workdir)
    for change in (changed_draws(saved), changed_arithmetic(saved, run.description)):
        if change:
            _say(hosts, change)
    return int(folder.name)


def _try_one_step(run: ResolvedRun, hosts: Hosts) -> None:
    """Read one batch, take one step with it and throw the result away."""
    step = make_train_step(run.objective, run.mesh, run.schedule)
    with closing(_training_batches(run, hosts, 0, 1)) as read:
        batch = hosts.agree(partial(next, read))
    teacher = taught_by(run)
    state, facts = initial_state(run, teacher and teacher.params)
    if facts:
        _say(hosts, fact_lines(facts))
    _, metrics = step(state, _to_devices(run, batch.arrays), run.key_on_devices("training"))
    shape, loss = next(iter(batch.arrays.values())).shape, float(metrics["loss"])
    _say(
        hosts,
        f"dry run: read a batch of {shape} ({len(batch.failures)} videos failed), took one step, with loss "
        f"{loss:.4f}, and threw it away; nothing was trained or written",
    )


def _training_batches(
    run: ResolvedRun, hosts: Hosts, start: int, stop: int, workers: Workers | None = None
) -> Generator[ClipBatch, None, None]:
    """This host's share of the batches of these steps."""
    config = run.config
    return batches(
        run.videos,
        run.objective.train_clips,
        seed=config.seed,
        batch_size=config.batch_size,
        num_workers=config.data.num_workers,
        workers=workers,
        start_step=start,
        stop_step=stop,
        shares=run.shares,
        process_index=hosts.index,
        process_count=hosts.count,
    )


def _to_devices(run: ResolvedRun, arrays: dict[str, np.ndarray]) -> Arrays:
    """Split the first axis of every array over the devices; each host gives its own part."""
    place = partial(jax.make_array_from_process_local_data, batch_sharding(run.mesh))
    return {name: place(values) for name, values in arrays.items()}


def _taken(step: int, metrics: Metrics, shared: SharedBatch) -> TakenStep:
    records, now = shared.record_ids, time.perf_counter()
    return TakenStep(step, metrics, records, shared.failures, len(records), shared.waited, now)


class _Training:
    """A run in its work folder. `step` counts the steps handed to the devices, `state` is that after them."""

    def __init__(
        self,
        run: ResolvedRun,
        workdir: Path,
        first_step: int,
        hosts: Hosts,
        lockstep: Lockstep,
        profile: Profile,
        workers: Workers,
        clock: Clock,
    ) -> None:
        self.run, self.step, self.hosts = run, first_step, hosts
        self.lockstep, self.profile, self.workers, self.clock = lockstep, profile, workers, clock
        self.best: dict[str, Any] | None = None
        """The best validation score so far: `step`, `score`, and `videos`, a digest of those it is from."""
        self.scores: dict[str, float] = {}
        """The validation scores of this step, once it was evaluated."""
        teacher = taught_by(run)
        self.taught = {"teacher": teacher.digest} if teacher else {}
        if first_step:
            folder = step_folder(workdir, first_step)
            said = read_description(folder)
            check_same_teacher(said.get("teacher"), teacher)
            self.state = restored_state(run, folder, teacher and teacher.params)
            best, self.scores = said.get("best"), said.get("held_out", {})
            self.best = best if best and best["videos"] == run.val_digest else None
        else:
            self.state, facts = initial_state(run, teacher and teacher.params)
            if facts:
                _say(hosts, fact_lines(facts))
        self.writer = CheckpointWriter(workdir, run.config.checkpoint)
        self.journal: Journal | SilentJournal = SilentJournal()
        if hosts.first:
            write_json(workdir / SETTINGS, run.description["config"])
            self.journal = Journal(run, workdir, self.step, clock)
        self.validation_step = make_validation_step(run.objective, run.mesh)

    def train(self) -> None:
        """Take the remaining steps, or fewer when all are to stop, and save the last state."""
        run, lockstep, late = self.run, self.lockstep, None
        tell = partial(_say, self.hosts), partial(self.clock.note, "compiling")
        step_for = cache(lambda part: announced(make_train_step(part, run.mesh, run.schedule), *tell))
        key = run.key_on_devices("training")
        self.clock.note("starting", self.clock.read()["steps"])
        if self.step and self._validation_due() and not self.scores:  # A stop had come in between.
            self.journal.complete(self._validate())
        with closing(_training_batches(run, self.hosts, self.step, run.total_steps, self.workers)) as read:
            for shared in lockstep.take(read, lambda: self.journal.problem):
                self.clock.note("data", shared.waited)
                if self.hosts.first:
                    self.profile.reach(self.step + 1, self.state)
                with jax.profiler.StepTraceAnnotation("train", step_num=self.step + 1):
                    take_step = step_for(run.objective.at(self.step, run.total_steps))
                    self.state, metrics = take_step(self.state, _to_devices(run, shared.batch.arrays), key)
                self.step, self.scores, lockstep.in_flight = self.step + 1, {}, metrics["loss"]
                if late:  # The step before: its numbers are there while this one is computed.
                    self.journal.record(late)
                late = self._pause(_taken(self.step, metrics, shared))
        if late:
            self.journal.record(late)
        lockstep.conclude(self.journal.problem)
        self._save()
        with self.clock.spent_on("saving"):
            self.writer.wait()
        if lockstep.problem:
            raise lockstep.problem

    def _pause(self, taken: TakenStep) -> TakenStep | None:
        """Evaluate and save where due; None when the step was recorded on the way."""
        best, due = self.best, self._validation_due()
        save = self.step % self.run.config.checkpoint.every_steps == 0
        self.writer.wait(timeout=0)
        if not (due or save):
            return taken
        self.journal.record(taken, self._validate if due else None)
        if save or self.best != best:  # After the rows, so that a run that continues from here has them all.
            self._save()
        return None

    def _validation_due(self) -> bool:
        run = self.run
        last = self.step == run.total_steps
        return bool(run.val_videos) and (last or self.step % run.val_every_steps == 0)

    def _validate(self) -> dict[str, float]:
        """The objective's scores on the validation videos, with fixed draws, by the weights to evaluate.

        Nothing when a stop is requested meanwhile: saving matters more.
        """
        run, lockstep, config = self.run, self.lockstep, self.run.config
        sums: list[Metrics] = []
        failures: list[Failure] = []
        read = each_video(
            run.val_videos,
            run.objective.validation_clips,
            batch_size=config.batch_size // config.optim.accumulation_steps,
            num_workers=config.data.num_workers,
            workers=self.workers,
            process_index=self.hosts.index,
            process_count=self.hosts.count,
        )
        fixed = run.key_on_devices("validation")
        with closing(read), self.clock.spent_on("validation"):
            for shared in lockstep.take(read):
                key = jax.random.fold_in(fixed, shared.batch.step)
                placed = _to_devices(run, shared.batch.arrays | {"weights": shared.batch.weights})
                weights = placed.pop("weights")
                sums.append(self.validation_step(self.state.evaluated, placed, weights, key))
                lockstep.in_flight = sums[-1]["count"]
                failures += shared.failures
        if lockstep.stopped:
            return {}
        self.journal.name_left_out(failures)
        total = {name: sum(float(each[name]) for each in sums) for name in sums[0]}
        count = total.pop("count")
        if not count:
            lists = ", ".join(config.data.val)
            self.journal.problem = RunError(f"none of the validation videos in {lists} could be read")
            return {}
        scores = {f"val_{name}": value / count for name, value in total.items()}
        if run.objective.best:
            self._note_best(scores[run.objective.best])
        self.scores = scores | {"val_skipped": len(failures)}
        return self.scores

    def _note_best(self, score: float) -> None:
        """Remember this step when its score is better than all before; on a tie the earlier step stays."""
        if self.best is None or score > self.best["score"]:
            self.best = {"step": self.step, "score": score, "videos": self.run.val_digest}

    def _save(self) -> None:
        if self.step:  # A start is no result: with nothing learned, other settings may be tried.
            description = self.run.description | {"best": self.best, "held_out": self.scores} | self.taught
            with self.clock.spent_on("saving"):
                self.writer.save(self.step, split_state(self.state), description)

    def close(self) -> None:
        """Wait for a checkpoint that is being written, whatever ended the run, and close the files."""
        with suppress(RunError):
            self.writer.wait()
        self.profile.close()
        self.journal.close()
