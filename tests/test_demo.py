"""The demo goes from nothing to pictures and accuracies, once; its second run has nothing to do."""

import json
from dataclasses import replace

import pytest

from videomae_jax import cli, demo
from videomae_jax.config import LogConfig, OptimConfig, load_config
from videomae_jax.data.synthetic import MOTIONS, write_synthetic_videos
from videomae_jax.files import locked_folder


@pytest.fixture
def small_demo(monkeypatch):
    """The demo with one video of each motion and a few steps."""
    recipes = {
        name: replace(
            load_config(name),
            epochs=2,
            batch_size=8,
            log=LogConfig(every_steps=1, val_every_steps=2, tensorboard=False),
            optim=OptimConfig(base_lr=1e-2, warmup_epochs=1),
        )
        for name in (demo.PRETRAIN, demo.FINETUNE)
    }
    monkeypatch.setattr(demo, "load_config", recipes.__getitem__)
    monkeypatch.setattr(
        demo,
        "write_synthetic_videos",
        lambda folder, **_: write_synthetic_videos(folder, 1, 1, 1, side=32, num_frames=34),
    )


@pytest.mark.usefixtures("small_demo")
def test_demo_goes_from_videos_to_pictures_and_accuracies(tmp_path, capsys):
    workdir = tmp_path / "demo"
    assert cli.main(["demo", "--workdir", str(workdir)]) == 0
    said = capsys.readouterr().out
    names = {f"{motion}_000.{kind}" for motion in MOTIONS for kind in ("png", "gif")}
    assert {path.name for path in (workdir / "pictures").iterdir()} == names
    for picture in ("pretrained/loss.png", "finetuned/loss.png", "finetuned/test/confusion.png"):
        assert (workdir / picture).stat().st_size > 5_000
    rows = [json.loads(line) for line in (workdir / "pretrained/metrics.jsonl").read_text().splitlines()]
    assert f"{rows[-1]['val_loss']:.4f}" in said
    assert f"{rows[-1]['val_zero_loss']:.4f}" in said
    results = [
        json.loads((workdir / name / "test/evaluation.json").read_text()) for name in ("finetuned", "scratch")
    ]
    assert [result["checkpoint"]["step"] for result in results] == [2, 2], "the last step"
    assert "Run next" in said
    before = (workdir / "videos/val.csv").stat().st_mtime_ns
    assert cli.main(["demo", "--workdir", str(workdir)]) == 0
    assert "Using the videos in" in capsys.readouterr().out
    assert (workdir / "videos/val.csv").stat().st_mtime_ns == before


def test_both_recipes_are_of_one_architecture():
    pretrained, finetuned = (load_config(name).model for name in (demo.PRETRAIN, demo.FINETUNE))
    for name in (
        "image_size",
        "patch_size",
        "num_frames",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
    ):
        assert getattr(pretrained, name) == getattr(finetuned, name)
    assert not load_config(demo.FINETUNE).augment.flip, "left and right are classes"


def test_a_second_demo_at_the_same_time_is_refused(tmp_path, capsys):
    with locked_folder(tmp_path, "--workdir"):
        assert cli.main(["demo", "--workdir", str(tmp_path)]) == 2
    assert "another process is writing to" in capsys.readouterr().err
    assert not (tmp_path / "videos").exists()
