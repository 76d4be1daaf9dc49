"""What a run says before its first step, and while it goes."""

from dataclasses import replace

import pytest

from videomae_jax.config import load_config
from videomae_jax.data.synthetic import write_synthetic_videos
from videomae_jax.training.reporting import pace
from videomae_jax.training.reporting.journal import _live_scores
from videomae_jax.training.reporting.overview import describe_run
from videomae_jax.training.resolve import resolve_run

TINY = load_config("tiny")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    write_synthetic_videos(folder, 1, 1, 1, side=32, num_frames=20)
    return folder


def facts(folder, **changes):
    data = replace(TINY.data, train=changes.pop("train", (str(folder / "train.csv"),)))
    text = describe_run(resolve_run(replace(TINY, data=data, **changes)), 0)
    return dict(line.strip().split("  ", 1) for line in text.splitlines())


def test_a_batch_larger_than_the_set_says_how_often_it_takes_a_video(folder):
    assert (
        "there are only 8 videos, so each comes 2 times in a batch" in facts(folder, batch_size=16)["batch"]
    )
    assert "with --batch-size 8, or a smaller one" in facts(folder, batch_size=12)["batch"]
    assert "only" not in facts(folder, batch_size=8)["batch"]


def test_the_shares_of_mixed_sources_are_told(folder):
    train, val = folder / "train.csv", folder / "val.csv"
    said = facts(folder, train=(f"{train}:3", f"{val}:1"))["mixture"]
    assert said == f"0.75 of {train} (8 videos), 0.25 of {val} (8 videos)"
    assert "mixture" not in facts(folder)


def test_a_rate_is_named_as_the_setting_is(folder):
    assert "sampling rate 2" in facts(folder)["clips"]


def test_a_long_step_on_a_cpu_says_how_long_and_what_to_try(monkeypatch, folder):
    monkeypatch.setattr(pace, "_product_speed", lambda: 250e9)  # 100 GFLOP/s in a step.
    said = pace.pace_in_words(replace(load_config("k400_base_1600e"), batch_size=64), 1000)
    assert said.startswith("about 2.13 minutes a step on this CPU, 35.5 hours in all (12.8 TFLOP a step")
    assert "try the recipe laptop" in said
    assert "--batch-size (now 64)" in said
    small = pace.pace_in_words(replace(load_config("k400_small_1600e"), batch_size=2), 10)
    assert small.startswith("about 1.3 s a step")
    assert "try" not in small
    assert pace.pace_in_words(TINY, 1000) == ""
    finetune = pace.pace_in_words(load_config("k400_base_75e"), 1)
    assert "try the recipe laptop_finetune" in finetune


def test_speed_is_measured_here():
    assert pace._product_speed() > 1e8


def test_the_live_line_has_the_score_of_the_latest_validation():
    assert _live_scores({"val_top1": 0.8125, "val_loss": 1.0}) == {"val top-1": "81.2%"}
    assert _live_scores({"val_loss": 0.01234}) == {"val loss": "0.0123"}
    assert _live_scores({"loss": 1.0}) == {}
