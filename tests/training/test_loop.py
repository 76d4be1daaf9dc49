"""What a run writes, and when it refuses, stops and continues."""

import gzip
import json
import shutil
import time
from dataclasses import replace

import jax
import numpy as np
import pytest

from videomae_jax.checkpoints.orbax import list_steps, read_params
from videomae_jax.errors import InputError, RunError
from videomae_jax.models.flops import flops_per_clip, pretraining_flops
from videomae_jax.models.pretraining import VideoMAEForPreTraining
from videomae_jax.training import loop
from videomae_jax.training.loop import train
from videomae_jax.training.reporting import journal
from videomae_jax.training.resolve import resolve_run
from videomae_jax.training.run_folder import read_rows
from videomae_jax.training.start import initial_state


@pytest.fixture
def held_out(tiny, video_list):
    """A run of 6 steps with validation videos, some of which cannot be read."""
    return replace(
        tiny,
        epochs=3,
        data=replace(tiny.data, val=(str(video_list),)),
        log=replace(tiny.log, val_every_steps=4, tensorboard=True),
    )


def test_a_dual_masked_run_learns_and_keeps_its_cells(tiny, tmp_path, capsys):
    config = replace(tiny, decoder_mask_ratio=0.5, epochs=4)
    train(config, tmp_path / "whole")
    assert "running cell, 50% of the tokens" in capsys.readouterr().out
    rows = read_rows(tmp_path / "whole/metrics.jsonl")
    assert rows[-1]["loss"] < rows[0]["loss"]
    whole, plain = (resolve_run(each).config for each in (config, tiny))
    assert flops_per_clip(whole).train < flops_per_clip(plain).train
    with pytest.raises(InputError, match=r"decoder_mask_ratio: 0.5 -> 0.0"):
        train(replace(config, decoder_mask_ratio=0.0), tmp_path / "whole")
    with pytest.raises(InputError, match=r"decoder_mask_ratio=0.4 must be 0.25"):
        train(replace(config, decoder_mask_ratio=0.4), tmp_path / "other")


def test_a_run_with_a_cross_attention_decoder(tiny, tmp_path, capsys):
    config = replace(tiny, epochs=4, model=replace(tiny.model, decoder_type="cross"))
    train(config, tmp_path)
    assert "masked tokens see visible ones alone" in capsys.readouterr().out
    rows = read_rows(tmp_path / "metrics.jsonl")
    assert rows[-1]["loss"] < rows[0]["loss"]
    model, _ = VideoMAEForPreTraining.from_pretrained(tmp_path)
    assert model.config.decoder_type == "cross"
    with pytest.raises(InputError, match=r"model\.decoder_type: cross -> self"):
        train(replace(config, model=tiny.model), tmp_path)


def test_a_run_writes_its_rows_scores_settings_and_checkpoints(held_out, tmp_path, capsys):
    outcome = train(held_out, tmp_path)
    assert (outcome.step, outcome.total_steps, outcome.exit_code) == (6, 6, 0)
    rows = read_rows(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    for row in rows:
        assert {"loss", "lr", "grad_norm", "clips_per_second", "data_wait", "skipped"} <= row.keys()
        assert row["clips_per_second"] > 0
        assert 0 <= row["data_wait"] <= 1
        asked_for = row["clips_per_second"] * pretraining_flops(held_out.model, held_out.mask_ratio).train
        assert row["tflops"] == pytest.approx(asked_for / 1e12, abs=1e-4)
    assert [row["step"] for row in rows if "val_loss" in row] == [4, 6]
    # Normalised targets have variance 1 less the unbiased divisor: predicting zero scores just under 1.
    assert rows[-1]["val_zero_loss"] == pytest.approx(127 / 128, abs=0.01)
    assert rows[-1]["val_skipped"] == 3
    assert json.loads((tmp_path / "settings.json").read_text())["epochs"] == 3
    assert list_steps(tmp_path) == [4, 6]
    assert list((tmp_path / "tensorboard").iterdir())
    said = capsys.readouterr()
    assert "87,728 parameters" in said.out
    assert "6 = 3 epochs x 2" in said.out
    assert f"validation loss {rows[-1]['val_loss']:.4f}" in said.out
    assert said.err.count("empty.mp4") == 1
    assert said.out.count("compiled  in") == 1


@pytest.fixture(scope="module")
def finished(tiny, tmp_path_factory):
    """A config and the work folder of its finished run of 4 steps."""
    config, workdir = replace(tiny, epochs=2), tmp_path_factory.mktemp("finished")
    train(config, workdir)
    return config, workdir


def test_a_finished_run_is_left_as_it_is(finished):
    config, workdir = finished
    before = (workdir / "metrics.jsonl").read_bytes()
    assert train(config, workdir).step == 4
    assert (workdir / "metrics.jsonl").read_bytes() == before


def test_other_settings_and_other_videos_are_refused(finished, video_list):
    config, workdir = finished
    before = (workdir / "metrics.jsonl").read_bytes()
    with pytest.raises(InputError, match=r"seed: 0 -> 1"):
        train(replace(config, seed=1), workdir)
    with pytest.raises(InputError, match=r"other videos \(8 in .* -> 11 in"):
        train(replace(config, data=replace(config.data, train=(str(video_list),))), workdir)
    assert (workdir / "metrics.jsonl").read_bytes() == before


def test_a_run_continues_with_what_its_message_on_memory_offers(tiny, tmp_path, capsys, monkeypatch):
    """Bit for bit the same videos and masks, so that only rounding differs."""
    tiny = replace(tiny, epochs=2, checkpoint=replace(tiny.checkpoint, every_steps=2))
    train(tiny, tmp_path / "whole")
    (tmp_path / "parts" / "checkpoints").mkdir(parents=True)
    shutil.copytree(tmp_path / "whole/checkpoints/2", tmp_path / "parts/checkpoints/2")
    shutil.copy(tmp_path / "whole/metrics.jsonl", tmp_path / "parts")
    changed = replace(
        tiny,
        model=replace(tiny.model, remat=True, attention="blockwise"),
        optim=replace(tiny.optim, accumulation_steps=2),
    )
    capsys.readouterr()
    assert train(changed, tmp_path / "parts").step == 4
    said = capsys.readouterr().out
    assert "model.attention auto -> blockwise; model.remat False -> True; optim.accumulation_steps" in said
    one, other = (
        [row["loss"] for row in read_rows(tmp_path / name / "metrics.jsonl")] for name in ("whole", "parts")
    )
    assert len(other) == 4
    np.testing.assert_allclose(one, other, rtol=1e-4)

    def fail(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 9 GiB\nand more")

    monkeypatch.setattr(loop, "make_train_step", lambda *_: fail)
    with pytest.raises(RunError) as caught:
        train(tiny, tmp_path / "new")
    for option in ("--optim.accumulation-steps", "--model.remat", "--model.dtype bfloat16", "--batch-size"):
        assert option in str(caught.value)
    half = replace(changed, model=replace(changed.model, dtype="bfloat16"))
    if jax.__version_info__ < (0, 9):
        with pytest.raises(InputError, match=r"cannot compute in bfloat16 on a CPU: choose dtype float32"):
            train(half, tmp_path / "new")
        return
    with pytest.raises(RunError) as caught:
        train(half, tmp_path / "new")
    assert "more than 2 --optim.accumulation-steps: a run continues" in str(caught.value)


def test_a_tpu_compiler_that_is_too_old_is_named(tiny, tmp_path, monkeypatch):
    """As Colab's, when JAX gives it the kernel for attention."""

    def fail(*_):
        raise jax.errors.JaxRuntimeError(
            "INTERNAL: Failed to deserialize the Mosaic module: Unsupported version"
        )

    monkeypatch.setattr(loop, "make_train_step", lambda *_: fail)
    with pytest.raises(InputError, match=rf'pip install "jax\[tpu\]=={jax.__version__}" and start again'):
        train(tiny, tmp_path)


def test_a_dry_run_trains_and_writes_nothing(tiny, tmp_path, capsys):
    outcome = train(tiny, tmp_path / "run", dry_run=True)
    assert outcome.step == 0
    assert not (tmp_path / "run").exists()
    said = capsys.readouterr().out
    assert "nothing was trained or written" in said
    assert "(4, 8, 32, 32, 3)" in said


def test_the_steps_asked_for_are_traced(tiny, tmp_path):
    train(replace(tiny, epochs=3), tmp_path, profile_steps="3:4")
    trace = next((tmp_path / "profile").rglob("*.xplane.pb"))
    events = [
        event
        for plane in jax.profiler.ProfileData.from_file(str(trace)).planes
        for line in plane.lines
        for event in line.events
    ]
    assert {dict(event.stats)["step_num"] for event in events if event.name == "train"} == {3, 4}
    perfetto = json.loads(gzip.decompress(trace.with_name("perfetto_trace.json.gz").read_bytes()))
    names = {event.get("name") for event in perfetto["traceEvents"]}
    assert "train" in names
    assert any("fusion" in str(name) for name in names)


@pytest.mark.parametrize("steps", ["5", "0:2", "3:2", "5:7", "a:b"])
def test_steps_that_cannot_be_traced_are_refused(tiny, tmp_path, steps):
    with pytest.raises(InputError, match=f"--profile-steps {steps}"):
        train(replace(tiny, epochs=3), tmp_path, profile_steps=steps)
    assert not list_steps(tmp_path)


def test_a_stopped_run_leaves_the_trace_of_what_it_did(tiny, tmp_path):
    config = replace(
        tiny, optim=replace(tiny.optim, base_lr=1e30, warmup_epochs=0), epochs=20, max_nonfinite_steps=3
    )
    with pytest.raises(RunError, match="not finite in 3 steps"):
        train(config, tmp_path, profile_steps="2:30")
    assert next((tmp_path / "profile").rglob("perfetto_trace.json.gz")).stat().st_size


def test_steps_that_are_not_finite_stop_the_run_and_name_their_videos(tiny, tmp_path):
    config = replace(
        tiny, optim=replace(tiny.optim, base_lr=1e30, warmup_epochs=0), epochs=20, max_nonfinite_steps=3
    )
    with pytest.raises(RunError, match=r"not finite in 3 steps in a row, up to step 4.*nonfinite.json"):
        train(config, tmp_path)
    named = json.loads((tmp_path / "nonfinite.json").read_text())
    assert [each["step"] for each in named] == [2, 3, 4]
    assert all(path.endswith(".mp4") for each in named for path in each["videos"].values())
    _, params = read_params(tmp_path)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))
    assert read_rows(tmp_path / "metrics.jsonl")[-1]["loss"] is None


def test_too_many_failures_stop_the_run_which_then_continues(tiny, video_list, tmp_path):
    bad = replace(tiny.data, train=(str(video_list),), max_failed_share=0.05)
    config = replace(tiny, data=bad, epochs=10, optim=replace(tiny.optim, base_lr=0.1))
    with pytest.raises(RunError, match=r"above data.max_failed_share=5%.*check-data"):
        train(config, tmp_path)
    stopped = list_steps(tmp_path)[-1]
    assert 3 < stopped < 20
    skipped = read_rows(tmp_path / "skipped.jsonl")
    assert {"path", "reason", "error", "step"} == skipped[0].keys()
    train(replace(config, data=replace(bad, max_failed_share=0.9)), tmp_path)
    rows = read_rows(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, 21))
    skipped = read_rows(tmp_path / "skipped.jsonl")
    assert rows[-1]["skipped"] == len(skipped)
    assert rows[-1]["loss"] < 0.95 * rows[0]["loss"]
    assert {row["reason"] for row in skipped} == {"empty", "missing", "not-a-video"}


def test_a_run_starts_from_the_weights_of_another(tiny, finished):
    _, workdir = finished
    _, params = read_params(workdir)
    plan = resolve_run(replace(tiny, init_from=str(workdir)))
    state, _ = initial_state(plan)
    jax.tree.map(np.testing.assert_array_equal, state.params, params)
    assert int(state.step) == 0
    other = replace(tiny, model=replace(tiny.model, hidden_size=64), init_from=str(workdir))
    with pytest.raises(InputError, match=r"hidden_size = 48 +hidden_size = 64"):
        initial_state(resolve_run(other))


def test_a_run_from_before_repeated_augmentation_says_what_changes(tiny, finished, monkeypatch, capsys):
    _, workdir = finished
    config = replace(tiny, data=replace(tiny.data, num_sample=2))
    description = resolve_run(config).description
    del description["data"]["samples"]
    monkeypatch.setattr(loop, "read_description", lambda folder: description)
    train(config, workdir, dry_run=True)
    assert "This run began with a version that drew other frames for each" in capsys.readouterr().out


@pytest.mark.parametrize("workers", [0, 2])
def test_a_list_without_one_readable_video_ends_the_run_and_leaves_nothing_to_continue(
    tiny, video_list, tmp_path, workers
):
    bad = str(video_list.with_name("text.mp4"))
    with pytest.raises(RunError, match=r"could.*be read.*text.mp4"):
        train(replace(tiny, data=replace(tiny.data, train=(bad,), num_workers=workers)), tmp_path)
    assert list_steps(tmp_path) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"batch_size": 5, "accumulation": 2},
            "batch_size=5 is not a multiple of 2 .* or --optim.accumulation-steps$",
        ),
        ({"mask_ratio": 0.01}, "mask_ratio=0.01"),
        ({"warmup": 50}, "warmup_epochs=50"),
        ({"epochs": 0}, "epochs=0 must be at least 1"),
        ({"accumulation": 0}, r"optim.accumulation_steps=0 must be at least 1"),
        ({"train": ()}, "--data.train"),
        ({"train": ("nowhere.txt",)}, "nowhere.txt"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_anything_starts(tiny, tmp_path, change, said):
    change = dict(change)
    optim = replace(
        tiny.optim,
        accumulation_steps=change.pop("accumulation", 1),
        warmup_epochs=change.pop("warmup", 1),
    )
    data = replace(tiny.data, train=change.pop("train", tiny.data.train))
    with pytest.raises(InputError, match=said):
        train(replace(tiny, optim=optim, data=data, **change), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("stored", [False, True])
def test_a_run_that_waits_for_its_videos_says_what_to_do(tiny, tmp_path, capsys, monkeypatch, stored):
    from videomae_jax.data.clips import readers as clips

    monkeypatch.setattr(journal, "set_address", lambda source: (source if stored else "", ""))

    read = clips.PretrainClips.__call__

    def slowly(self, record, key):
        time.sleep(0.05)
        return read(self, record, key)

    monkeypatch.setattr(clips.PretrainClips, "__call__", slowly)
    train(replace(tiny, epochs=5), tmp_path)
    said = capsys.readouterr()
    assert "of the time is spent waiting for videos. Raise --data.num-workers (now 0;" in said.err
    assert ("videomae-jax prepare" in said.err) is not stored
    assert "of the time is spent waiting for videos\n" in said.out, "the advice was given once"
