"""A run whose mask ratio rises: each part compiles its step, and a continued run is in the right part."""

import json
import shutil
from dataclasses import replace

import pytest

from videomae_jax.errors import InputError
from videomae_jax.training.loop import train


def losses(workdir):
    rows = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return {row["step"]: row["loss"] for row in rows if "loss" in row}


def test_each_part_compiles_once_and_continues_exactly(tiny, tmp_path, capsys):
    config = replace(
        tiny,
        epochs=2,
        earlier_mask_ratios=(0.5,),
        mask_type="motion",
        checkpoint=replace(tiny.checkpoint, every_steps=1, keep_last=4),
    )
    assert train(config, tmp_path).step == 4
    said = capsys.readouterr().out
    assert "motion, 50%, then 75% of 64 tokens" in said
    assert said.count("compiled  in") == 2
    whole = losses(tmp_path)
    shutil.rmtree(tmp_path / "checkpoints/4")
    train(config, tmp_path)
    assert capsys.readouterr().out.count("compiled  in") == 1
    assert losses(tmp_path) == whole
    with pytest.raises(InputError, match="earlier_mask_ratios"):
        train(replace(config, earlier_mask_ratios=(0.6,)), tmp_path)


def test_a_part_that_masks_nothing_is_refused(tiny, tmp_path):
    with pytest.raises(InputError, match=r"mask_ratio=0\.01 masks 0 of 16"):
        train(replace(tiny, earlier_mask_ratios=(0.01,)), tmp_path)
