"""What a running training writes down of its steps."""

from types import SimpleNamespace
from unittest.mock import Mock

import jax
import jax.numpy as jnp
import pytest

from videomae_jax.config import FinetuneConfig, LogConfig, VideoMAEConfig
from videomae_jax.training.reporting import journal
from videomae_jax.training.reporting.hours import Clock
from videomae_jax.training.reporting.journal import Journal, TakenStep
from videomae_jax.training.resolve import ResolvedRun


@pytest.fixture
def clock(monkeypatch):
    """A clock that only waiting for the devices moves, by two seconds a time."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr("time.perf_counter", lambda: clock.now)

    def wait(metrics):
        clock.now += 2
        return metrics

    monkeypatch.setattr(jax, "device_get", wait)
    return clock


def test_a_step_before_validation_counts_with_its_time_and_validation_does_not(tmp_path, clock):
    config = FinetuneConfig(VideoMAEConfig(), log=LogConfig(tensorboard=False))
    plan = Mock(ResolvedRun, config=config, total_steps=9, videos=(), utilization=lambda pace, step: {})
    written = Journal(plan, tmp_path, 0, Clock(clock.now))
    metrics = dict.fromkeys(("loss", "lr", "grad_norm"), jnp.zeros(()))
    metrics |= dict.fromkeys(("nonfinite", "streak"), jnp.zeros((), int))

    def validate():
        clock.now += 50
        return {"val_loss": 0.25}

    for step in (1, 2):
        written.record(TakenStep(step, metrics, (0,), (), 16, 0.5, clock.now), validate)
        assert written._last_row["clips_per_second"] == 8
        assert written._last_row["data_wait"] == 0.25
    assert len((tmp_path / journal.METRICS).read_text().splitlines()) == 2
