"""The files of a run: cut back to a step, compared with new settings, closed to a second run."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from videomae_jax.config import FinetuneConfig, PretrainConfig, VideoMAEConfig
from videomae_jax.errors import InputError, RunError
from videomae_jax.files import locked_folder
from videomae_jax.training.multihost.signals import stop_on_signals
from videomae_jax.training.run_folder import (
    Rows,
    changed_arithmetic,
    changed_draws,
    check_same_run,
    describe,
    read_rows,
)

CONFIG = PretrainConfig(VideoMAEConfig())


def description(config=CONFIG, digest="a", videos=3):
    return {"config": describe(config), "data": {"digest": digest, "videos": videos}}


def test_rows_are_cut_back_and_a_torn_last_line_is_dropped(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"step": step}) + "\n" for step in range(1, 6)) + '{"step": 6, "lo')
    assert [row["step"] for row in read_rows(path)] == [1, 2, 3, 4, 5]
    rows = Rows(path, last_step=3)
    rows.write({"step": 4, "again": True})
    rows.close()
    assert read_rows(path) == [{"step": 1}, {"step": 2}, {"step": 3}, {"step": 4, "again": True}]


def test_a_full_disk_is_told_with_the_file(tmp_path):
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    rows = Rows(tmp_path / "rows.jsonl", 0)
    with Path("/dev/full").open("w") as rows._file:
        with pytest.raises(RunError, match=r"rows.jsonl could not be written: No space left"):
            rows.write({"step": 1})
        rows.close()


def test_free_fields_and_moved_lists_may_change(tmp_path):
    moved = replace(
        CONFIG,
        data=replace(CONFIG.data, num_workers=9, train=("elsewhere",), max_failed_share=0.5),
        checkpoint=replace(CONFIG.checkpoint, every_steps=3),
        log=replace(CONFIG.log, every_steps=3),
        mesh=replace(CONFIG.mesh, fsdp=2),
    )
    check_same_run(description(), description(moved), tmp_path)


def test_changes_that_matter_are_all_named(tmp_path):
    changed = replace(
        CONFIG, seed=5, optim=replace(CONFIG.optim, base_lr=1.0), model=replace(CONFIG.model, image_size=112)
    )
    with pytest.raises(InputError) as error:
        check_same_run(description(), description(changed, "b", 4), tmp_path)
    for said in (
        "seed: 0 -> 5",
        "optim.base_lr: 0.00015 -> 1.0",
        "model.image_size: 224 -> 112",
        "other videos (3 ",
    ):
        assert said in str(error.value)
    assert str(tmp_path) in str(error.value)
    assert "num_workers" not in str(error.value)


def test_what_changes_only_rounding_is_free_and_told(tmp_path):
    model = replace(CONFIG.model, remat=True, dtype="bfloat16", attention="xla")
    changed = replace(CONFIG, model=model, optim=replace(CONFIG.optim, accumulation_steps=4))
    was, now = description(), description(changed)
    was["arithmetic"], now["arithmetic"] = {"dtype": "float32"}, {"dtype": "bfloat16"}
    check_same_run(was, now, tmp_path)
    assert changed_arithmetic(was, now) == (
        "From here on steps are computed in another way, which changes only rounding: model.attention auto "
        "-> xla; model.dtype float32 -> bfloat16; model.remat False -> True; optim.accumulation_steps 1 -> 4"
        ". Each part of a batch draws for itself, so the masks of validation are drawn anew."
    )
    finetuning = FinetuneConfig(VideoMAEConfig())
    split = replace(finetuning, optim=replace(finetuning.optim, accumulation_steps=2))
    said = changed_arithmetic(description(finetuning), description(split) | {"arithmetic": {}})
    assert said.endswith("so augmentation, mixing and dropout are drawn anew.")


def test_auto_that_means_something_else_on_another_machine_is_told():
    auto = replace(CONFIG, model=replace(CONFIG.model, dtype="auto"))
    was = description(auto) | {"arithmetic": {"dtype": "bfloat16", "attention": "cudnn"}}
    now = description(auto) | {"arithmetic": {"dtype": "float32", "attention": "cudnn"}}
    said = changed_arithmetic(was, now)
    assert said.endswith("model.dtype auto, which was bfloat16, is float32 on this machine.")
    assert changed_arithmetic(was, was) == ""
    assert changed_arithmetic(description(auto), now) == ""  # A run that did not say.


def test_planes_in_place_of_rgb_are_told():
    was = description() | {"arithmetic": {"dtype": "float32"}}  # Of a version that knew RGB only.
    now = description() | {"arithmetic": {"dtype": "float32", "data.pixels": "planes"}}
    said = changed_arithmetic(was, now)
    assert "data.pixels auto, which was rgb, is planes on this machine." in said
    assert said.endswith("differ by about a grey level.")
    given = description(replace(CONFIG, data=replace(CONFIG.data, pixels="planes")))
    assert "data.pixels auto -> planes" in changed_arithmetic(was, given | {"arithmetic": {}})
    assert changed_arithmetic(now, now) == ""


def test_a_setting_newer_than_the_run_had_its_default(tmp_path):
    old = description()
    del old["config"]["num_masks"], old["config"]["model"]["attention"]
    check_same_run(old, description(), tmp_path)
    with pytest.raises(InputError, match="num_masks: 1 -> 2"):
        check_same_run(old, description(replace(CONFIG, num_masks=2)), tmp_path)


def test_a_run_that_drew_other_frames_for_each_sample_is_told():
    """Runs from before write no `samples`; with one clip of each video nothing has changed."""
    assert changed_draws(description()) == ""
    old = description(replace(CONFIG, data=replace(CONFIG.data, num_sample=4)))
    assert "data.num_sample=4 clips of a video. From here on one clip is drawn" in changed_draws(old)
    assert changed_draws(old | {"data": old["data"] | {"samples": "of one clip"}}) == ""


def test_a_second_run_is_kept_out(tmp_path):
    with (
        locked_folder(tmp_path / "run", "--workdir"),
        pytest.raises(InputError, match="another process is writing to"),
        locked_folder(tmp_path / "run", "--workdir"),
    ):
        pass
    with locked_folder(tmp_path / "run", "--workdir"):
        pass


def test_a_file_is_no_work_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file"), locked_folder(tmp_path / "file", "--workdir"):
        pass


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_becomes_a_wish_and_a_second_one_ends_the_process(number):
    before = signal.getsignal(number)
    with stop_on_signals() as wish:
        assert wish.signal is None
        os.kill(os.getpid(), number)
        assert wish.signal == number
        assert signal.getsignal(signal.SIGINT) == signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert signal.getsignal(number) == before


@pytest.mark.parametrize("line", ['{"step": 2, "lo', "[2]", '{"loss": 1.0}', "\0\0\0"])
def test_a_broken_line_is_told_with_its_number(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 1}}\n{line}\n{{"step": 3}}\n')
    with pytest.raises(InputError, match=r"metrics\.jsonl, line 2, is not a row"):
        Rows(path, last_step=3)
