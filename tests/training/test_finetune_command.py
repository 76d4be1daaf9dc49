"""`videomae-jax finetune` from the first step to the final test."""

import json
from pathlib import Path

import pytest

from videomae_jax import cli

ROOT = Path(__file__).resolve().parents[2]
RECIPE = str(ROOT / "configs/test/tiny_finetune.py")


@pytest.mark.usefixtures("compilation_cache")
@pytest.mark.parametrize("which", ["best", "last"])
def test_the_final_test_says_which_checkpoint_it_used(video_list, tmp_path, capsys, which):
    labelled, held_out = (str(video_list.with_name(f"{name}.txt")) for name in ("labelled", "held_out"))
    arguments = ["--data.train", labelled, "--data.val", held_out, "--data.test", held_out]
    arguments += ["--workdir", str(tmp_path), "--test.num-segments", "2", "--test.num-crops", "3"]
    arguments += ["--epochs", "3", "--data.max-failed-share", "0.9", "--test-checkpoint", which]
    assert cli.main(["finetune", RECIPE, *arguments]) == 0
    said = capsys.readouterr().out
    assert f"the {which} checkpoint, on 2 clips x 3 crops of each video" in said
    assert "top-1" in said
    result = json.loads((tmp_path / "test/evaluation.json").read_text())
    best = max(
        (json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()),
        key=lambda row: (row.get("val_top1", -1), -row["step"]),
    )
    used = {"best": best["step"], "last": 6}[which]
    assert f"checkpoints/{used}" in json.dumps(result)
    assert (tmp_path / "loss.png").stat().st_size > 10_000
    assert (tmp_path / "test/confusion.png").exists()


def test_a_recipe_of_the_other_kind_is_refused(capsys):
    assert cli.main(["pretrain", RECIPE, "--workdir", "run"]) == 2
    assert "pretrain needs a PretrainConfig" in capsys.readouterr().err
    assert cli.main(["finetune", "tiny", "--workdir", "run"]) == 2
    assert "finetune needs a FinetuneConfig" in capsys.readouterr().err
