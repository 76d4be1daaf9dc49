"""Where the hours of a run go: everything is counted once, and what a restart does again is lost."""

from types import SimpleNamespace

import pytest

from videomae_jax.training.loop import train
from videomae_jax.training.reporting.hours import USES, Clock, Hours, goodput, hours_in_words, seconds_of
from videomae_jax.training.run_folder import HOURS, read_rows


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr("time.perf_counter", lambda: clock.now)
    return clock


def start(workdir, first_step, clock):
    timed = Clock(clock.now)
    return timed, Hours(workdir, first_step, timed)


def test_what_is_not_noted_is_steps_and_the_sum_is_the_time(tmp_path, clock):
    timed, hours = start(tmp_path, 0, clock)
    clock.now += 3
    timed.note("starting", timed.read()["steps"])
    with timed.spent_on("validation"):
        clock.now += 5
    timed.note("data", 2)
    clock.now += 12
    hours.write(7)
    clock.now += 1
    hours.close()
    first, last = read_rows(tmp_path / HOURS)
    assert first == {
        "step": 7,
        **dict.fromkeys(USES, 0.0),
        "starting": 3,
        "validation": 5,
        "data": 2,
        "steps": 10,
    }
    assert seconds_of(last) == 21
    assert goodput(first) == 0.5
    assert (
        hours_in_words(first)
        == "50% of 20 s went to steps; starting 15%, waiting for data 10%, validation 25%"
    )


def test_a_killed_start_loses_what_came_after_its_checkpoint(tmp_path, clock):
    timed, hours = start(tmp_path, 0, clock)
    clock.now += 10
    hours.write(5)  # Saved here.
    timed.note("compiling", 4)
    clock.now += 30
    hours.write(9)  # Killed here.
    clock.now += 1000
    _, hours = start(tmp_path, 5, clock)
    assert hours.read() == {**dict.fromkeys(USES, 0.0), "steps": 10, "lost": 30}
    clock.now += 8
    hours.write(9)
    hours.close()
    _, hours = start(tmp_path, 9, clock)  # Ended by itself: nothing more is lost.
    assert hours.read() == {**dict.fromkeys(USES, 0.0), "steps": 18, "lost": 30}


def test_a_run_says_where_its_time_went(tiny, tmp_path, capsys):
    train(tiny, tmp_path)
    rows = read_rows(tmp_path / HOURS)
    assert min(rows[-1][use] for use in ("starting", "compiling", "steps", "saving")) > 0
    assert rows[-1]["lost"] == 0
    assert [seconds_of(row) for row in rows] == sorted(seconds_of(row) for row in rows)
    assert 0 < read_rows(tmp_path / "metrics.jsonl")[-1]["goodput"] < 1
    assert "went to steps; " in capsys.readouterr().out
