"""Runs that are killed or stopped, while training and while saving, end like one that was left alone."""

import random
import signal
from pathlib import Path

import pytest

# 60 steps, a checkpoint every 7, no validation videos.
LENGTH = ("--epochs", "30", "--checkpoint.every-steps", "7", "--log.no-tensorboard")


def saving(workdir: Path) -> bool:
    return any((workdir / "checkpoints").glob("*.orbax-checkpoint-tmp"))


def newest_step(workdir: Path) -> int:
    return max(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdecimal())


def results(runs, workdir: Path) -> tuple[list, list]:
    losses = [(row["step"], row["loss"], row["skipped"]) for row in runs.rows(workdir)]
    return losses, runs.rows(workdir, "skipped.jsonl")


@pytest.fixture(scope="module")
def undisturbed(runs, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("undisturbed") / "run"
    runs.end(runs.start(workdir, *LENGTH), workdir, code=0)
    losses, skipped = results(runs, workdir)
    assert [step for step, _, _ in losses] == list(range(1, 61))
    assert {row["reason"] for row in skipped} == {"empty", "missing", "not-a-video"}
    assert losses[-1][1] < losses[0][1]
    return losses, skipped


def kill_at_a_random_moment(runs, workdir: Path, workers: str, chance: random.Random) -> None:
    rows = len(runs.rows(workdir)) + chance.randint(1, 15)
    process = runs.start(workdir, *LENGTH, "--data.num-workers", workers)
    runs.wait_until(process, workdir, lambda: len(runs.rows(workdir)) >= rows)
    process.send_signal(signal.SIGKILL)
    runs.end(process, workdir, code=-signal.SIGKILL)


def kill_during_a_save(runs, workdir: Path, workers: str) -> None:
    process = runs.start(workdir, *LENGTH, "--data.num-workers", workers)
    runs.wait_until(process, workdir, lambda: not saving(workdir))  # An earlier kill may have left debris.
    runs.wait_until(process, workdir, lambda: saving(workdir))
    process.send_signal(signal.SIGKILL)
    runs.end(process, workdir, code=-signal.SIGKILL)


def terminate_during_a_save(runs, workdir: Path, workers: str) -> None:
    process = runs.start(workdir, *LENGTH, "--data.num-workers", workers)
    runs.wait_until(process, workdir, lambda: not saving(workdir))  # An earlier kill may have left debris.
    runs.wait_until(process, workdir, lambda: saving(workdir))
    process.terminate()
    runs.end(process, workdir, code=128 + signal.SIGTERM)
    assert newest_step(workdir) == runs.rows(workdir)[-1]["step"] < 60
    assert not saving(workdir)


def finish(runs, workdir: Path, workers: str) -> tuple[list, list]:
    """Run to the end, from the newest whole checkpoint, and see the debris gone."""
    continued = f"continuing from step {newest_step(workdir)}\n" if (workdir / "checkpoints").exists() else ""
    runs.end(runs.start(workdir, *LENGTH, "--data.num-workers", workers), workdir, code=0)
    assert continued in runs.log(workdir)
    left = {path.name for path in (workdir / "checkpoints").iterdir()}
    assert left == {"56", "60"}
    return results(runs, workdir)


def test_one_disturbance_of_each_kind(runs, undisturbed, tmp_path):
    workdir = tmp_path / "disturbed"
    kill_at_a_random_moment(runs, workdir, "2", random.Random())
    kill_during_a_save(runs, workdir, "0")
    assert saving(workdir), "the save was complete before the kill: nothing was tested"
    terminate_during_a_save(runs, workdir, "3")
    assert finish(runs, workdir, "0") == undisturbed


@pytest.mark.chaos
@pytest.mark.parametrize("repeat", range(10))
@pytest.mark.parametrize("workers", ["023", "302", "230"])
def test_campaign(runs, undisturbed, tmp_path, workers, repeat):
    """Three kills at random moments, one during a save, one stop during a save, in random order."""
    workdir, chance = tmp_path / "disturbed", random.Random(repeat)
    kinds = [kill_during_a_save, terminate_during_a_save]
    kinds += [lambda *each: kill_at_a_random_moment(*each, chance)] * 3
    chance.shuffle(kinds)
    for number, disturb in enumerate(kinds):
        disturb(runs, workdir, workers[number % 3])
    assert finish(runs, workdir, workers[-1]) == undisturbed
