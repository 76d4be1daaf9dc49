"""Training in float16 with a scaled loss: near float32, through overflows, and on from a checkpoint."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from videomae_jax.checkpoints.orbax import list_steps, step_folder
from videomae_jax.errors import RunError
from videomae_jax.hardware import Hardware
from videomae_jax.models.compiled_for import compiling_for
from videomae_jax.training import loop, loss_scale
from videomae_jax.training.loop import train
from videomae_jax.training.loss_scale import LossScale, adjusted, first_loss_scale
from videomae_jax.training.resolve import resolve_run
from videomae_jax.training.run_folder import read_rows
from videomae_jax.training.start import restored_state
from videomae_jax.training.state import state_shapes

DISTANCE = 2e-3
"""Of each loss of a run from that of float32, relative."""


def of_dtype(config, dtype="float16"):
    return replace(config, model=replace(config.model, dtype=dtype))


def rows(workdir, *names):
    return [[row[name] for name in names] for row in read_rows(workdir / "metrics.jsonl")]


def scale_of(value, good_steps=0):
    return LossScale(jnp.float32(value), jnp.int32(good_steps), jnp.int32(0))


def begin_with(monkeypatch, value):
    """Let runs begin with this scale."""
    monkeypatch.setattr(loss_scale, "FIRST", value)


training_batches = loop._training_batches
INTERVAL = loss_scale.GROWTH_INTERVAL


@pytest.mark.parametrize(
    ("before", "loss", "finite", "value", "good_steps", "overflowed"),
    [
        ((1024, 5), 1, True, 1024, 6, False),
        ((1024, INTERVAL - 1), 1, True, 2048, 0, False),
        ((loss_scale.LARGEST, INTERVAL - 1), 1, True, loss_scale.LARGEST, 0, False),
        ((1024, 5), 1, False, 512, 0, True),
        ((1024, INTERVAL - 1), 1, False, 512, 0, True),
        ((1, 5), 1, False, 1, 0, False),
        ((1024, 5), np.nan, False, 1024, 0, False),
        ((1024, 5), np.inf, False, 1024, 0, False),
    ],
)
def test_the_scale_grows_and_backs_off(before, loss, finite, value, good_steps, overflowed):
    after, said = jax.jit(adjusted)(scale_of(*before), jnp.float32(loss), jnp.bool(finite))
    assert (float(after.value), int(after.good_steps), bool(said)) == (value, good_steps, overflowed)
    assert int(after.overflows) == overflowed


@pytest.fixture(scope="module")
def in_float32(tiny, tiny_finetune, tmp_path_factory):
    folder = tmp_path_factory.mktemp("float32")
    train(tiny, folder / "pretrain")
    train(tiny_finetune, folder / "finetune")
    return folder


@pytest.mark.parametrize("parts", [1, 2])
def test_pre_training_follows_float32(tiny, in_float32, tmp_path, parts):
    config = of_dtype(replace(tiny, optim=replace(tiny.optim, accumulation_steps=parts)))
    train(config, tmp_path)
    ours, theirs = rows(tmp_path, "loss"), rows(in_float32 / "pretrain", "loss")
    np.testing.assert_allclose(ours, theirs, rtol=DISTANCE)
    assert ours != theirs
    assert rows(tmp_path, "loss_scale", "overflows", "nonfinite") == [[2.0**16, 0, 0]] * 12


def test_fine_tuning_follows_float32(tiny_finetune, in_float32, tmp_path):
    train(of_dtype(tiny_finetune), tmp_path)
    ours, theirs = rows(tmp_path, "loss"), rows(in_float32 / "finetune", "loss")
    np.testing.assert_allclose(ours, theirs, rtol=DISTANCE)


def test_overflows_halve_the_scale_and_skip_the_step(tiny, tmp_path, monkeypatch, capsys):
    """And are no steps to stop for, however many there are in a row."""
    begin_with(monkeypatch, 2.0**30)
    config = of_dtype(replace(tiny, epochs=20, max_nonfinite_steps=2))
    states = []
    plain = loop.make_train_step

    def spied(*arguments):
        step = plain(*arguments)

        def take(state, *rest):
            before = jax.device_get((state.params, state.opt_state))
            after, metrics = step(state, *rest)
            now = jax.device_get((after.params, after.opt_state))
            same = jax.tree.map(np.array_equal, before, now)
            states.append(all(jax.tree.leaves(same)))
            return after, metrics

        return take

    monkeypatch.setattr(loop, "make_train_step", spied)
    train(config, tmp_path)
    scales, overflows, nonfinite, losses = zip(
        *rows(tmp_path, "loss_scale", "overflows", "nonfinite", "loss"), strict=True
    )
    count = overflows[-1]
    assert count > 4
    halved = [2.0**30]
    for skipped in states:
        halved.append(halved[-1] / 2 if skipped else halved[-1])
    assert list(scales) == halved[1:]
    assert states[:4] == [True] * 4
    assert sum(states) == count
    assert not any(nonfinite)
    assert losses[-1] < 0.97 * losses[0]
    said = capsys.readouterr().out
    assert f"{count} steps overflowed float16 and changed nothing but the scale of the loss, now" in said


def test_a_loss_that_is_not_finite_stops_a_run_in_float16_too(tiny, tmp_path):
    config = replace(
        tiny, optim=replace(tiny.optim, base_lr=1e30, warmup_epochs=0), epochs=20, max_nonfinite_steps=3
    )
    with pytest.raises(RunError, match=r"not finite in 3 steps in a row"):
        train(of_dtype(config), tmp_path)
    assert rows(tmp_path, "loss_scale", "overflows")[-1] == [2.0**16, 0]


def test_a_run_resumes_bit_for_bit(tiny, tmp_path, monkeypatch):
    begin_with(monkeypatch, 2.0**26)
    monkeypatch.setattr(loss_scale, "GROWTH_INTERVAL", 4)
    config = of_dtype(replace(tiny, checkpoint=replace(tiny.checkpoint, every_steps=5, keep_last=9)))
    train(config, tmp_path / "whole")
    for source in ("checkpoints/5", "metrics.jsonl"):
        (tmp_path / "again" / source).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "whole" / source).rename(tmp_path / "again" / source)
    train(config, tmp_path / "again")
    run = resolve_run(config)
    one, other = (restored_state(run, step_folder(tmp_path / name, 12)) for name in ("whole", "again"))
    assert float(one.loss_scale.value) != 2.0**26
    assert int(one.loss_scale.overflows) > 0
    for ours, theirs in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_run_continues_in_and_out_of_float16(tiny, tmp_path, capsys, monkeypatch):
    """Its checkpoints have the scale or not: both are read, as are those of before there was one."""
    begin_with(monkeypatch, 2.0**12)
    lengths = {"float32": 2, "float16": 4, "auto": 6}
    for dtype, steps in lengths.items():
        stop_at(monkeypatch, steps)
        train(of_dtype(tiny, dtype), tmp_path)
        assert list_steps(tmp_path)[-1] == steps
        there = (step_folder(tmp_path, steps) / "loss_scale").is_dir()
        assert there == (dtype == "float16")
        run = resolve_run(of_dtype(tiny, "float16"))
        scale = restored_state(run, step_folder(tmp_path, steps)).loss_scale
        wanted = (2.0**12, 2 if there else 0)
        assert (float(scale.value), int(scale.good_steps)) == wanted
    said = capsys.readouterr().out
    assert "model.dtype float32 -> float16" in said
    assert "model.dtype float16 -> auto" in said


def stop_at(monkeypatch, step):
    """Let the next run end at this step, as if it were stopped there."""

    def fewer(run, hosts, start, stop, workers=None):
        return training_batches(run, hosts, start, min(stop, step), workers)

    monkeypatch.setattr(loop, "_training_batches", fewer)


def test_auto_scales_the_loss_where_it_means_float16(tiny):
    objective = resolve_run(of_dtype(tiny, "auto")).objective
    for where, scaled in (
        (Hardware("gpu", "Tesla T4", 7.5), True),
        (Hardware("gpu", "NVIDIA L4", 8.9), False),
        (Hardware("tpu", "TPU v4"), False),
        (Hardware("cpu", "cpu"), False),
    ):
        with compiling_for(where):
            assert (state_shapes(objective).loss_scale is not None) == scaled
    assert float(first_loss_scale().value) == 2.0**16


def test_bfloat16_is_warned_of_where_it_is_slow(tiny, caplog):
    for dtype, where, warned in (
        ("bfloat16", Hardware("gpu", "Tesla T4", 7.5), True),
        ("auto", Hardware("gpu", "Tesla T4", 7.5), False),
        ("float32", Hardware("gpu", "Tesla T4", 7.5), False),
        ("bfloat16", Hardware("gpu", "NVIDIA L4", 8.9), False),
    ):
        caplog.clear()
        with compiling_for(where):
            resolve_run(of_dtype(tiny, dtype))
        assert ("is as slow as float32 on Tesla T4" in caplog.text) == warned
