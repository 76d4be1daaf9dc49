"""From weights of one size to fine-tuning, tests and exports at others, through the commands."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from videomae_jax import VideoMAEForPreTraining, cli
from videomae_jax.checkpoints.orbax import CheckpointWriter
from videomae_jax.checkpoints.source import read_model
from videomae_jax.config import CheckpointConfig, load_config
from videomae_jax.training.run_folder import describe

ROOT = Path(__file__).resolve().parents[2]
TINY, TINY_FINETUNE = (str(ROOT / f"configs/test/{name}.py") for name in ("tiny", "tiny_finetune"))
FEW = ["--epochs", "2", "--data.max-failed-share", "0.9"]


def write_pretrained(folder, image_size):
    """Weights of 8 frames of that size, as pre-training leaves them."""
    tiny = load_config(TINY)
    tiny = replace(tiny, model=replace(tiny.model, image_size=image_size))
    params = jax.jit(VideoMAEForPreTraining(tiny.model).init_params)(jax.random.key(0))
    writer = CheckpointWriter(folder, CheckpointConfig())
    writer.save(3, {"params": params}, {"config": describe(tiny)})
    writer.wait()
    return folder


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    return write_pretrained(tmp_path_factory.mktemp("pretrained"), 32)


def losses(run):
    rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return {row["step"]: row["loss"] for row in rows if "loss" in row}


def test_fine_tuning_at_another_size(video_list, pretrained, tmp_path, capsys):
    """Trained, continued, evaluated over crops, exported, and classified alike in both forms."""
    labelled, video = (str(video_list.with_name(name)) for name in ("labelled.txt", "0.mp4"))
    run, exported = tmp_path / "run", tmp_path / "hf"
    command = ["finetune", TINY_FINETUNE, "--init-from", str(pretrained), "--workdir", str(run), *FEW]
    command += ["--data.train", labelled, "--data.val", labelled, "--checkpoint.every-steps", "2"]
    command += ["--model.image-size", "24x40", "--model.num-frames", "4", "--augment.rand-num-ops", "0"]
    assert cli.main(command) == 0
    said = capsys.readouterr()
    assert "4 frames of 24x40, " in said.out
    assert "for 4 x 4 x 4 tokens (time, height, width), is resized to 2 x 3 x 5" in said.out
    first = losses(run)
    steps = sorted(int(path.name) for path in (run / "checkpoints").iterdir() if path.name.isdecimal())
    shutil.rmtree(run / "checkpoints" / str(steps[-1]))
    assert cli.main(command) == 0
    assert f"continuing from step {steps[-2]}" in capsys.readouterr().out
    assert losses(run) == first

    config = read_model(str(run))
    assert (config.grid, config.position_grid) == ((2, 3, 5), (4, 4, 4))
    out = ["--num-segments", "2", "--num-crops", "3", "--out", str(tmp_path / "out"), "--num-workers", "0"]
    assert cli.main(["evaluate", labelled, "--checkpoint", str(run), *out]) == 0
    assert "files: " in capsys.readouterr().out
    assert cli.main(["convert", str(run), str(exported), "--to", "hf"]) == 0
    capsys.readouterr()
    seen = []
    for weights in (run, exported):
        assert cli.main(["classify", video, "--checkpoint", str(weights), "--json"]) == 0
        seen.append(json.loads(capsys.readouterr().out)["predictions"])
    assert [each["label"] for each in seen[0]] == [each["label"] for each in seen[1]]
    assert [each["score"] for each in seen[0]] == pytest.approx([each["score"] for each in seen[1]], abs=1e-6)


def test_pre_trained_weights_of_clips_that_are_not_square(video_list, tmp_path, capsys):
    run, video = write_pretrained(tmp_path / "run", (24, 40)), str(video_list.with_name("0.mp4"))
    assert cli.main(["reconstruct", video, "--checkpoint", str(run), "--out", str(tmp_path)]) == 0
    with Image.open(tmp_path / "0.gif") as animation:
        assert animation.width > 3 * 40 * 8  # Three frames of 24 x 40, enlarged eight times.
    for more in (["--out", str(tmp_path / "a.npz")], ["--out", str(tmp_path / "b"), "--layout", "v2-tad"]):
        assert cli.main(["features", video, "--checkpoint", str(run), *more]) == 0
    assert np.load(tmp_path / "b/0.npy").shape[1] == 48
    capsys.readouterr()


@pytest.mark.parametrize("word", ["24x", "24x40x2", "large"])
def test_a_word_that_is_no_size(word, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["pretrain", TINY, "--model.image-size", word, "--workdir", str(tmp_path)])
    assert end.value.code == 2
    assert "no size in pixels" in " ".join(capsys.readouterr().err.split())


def test_a_size_that_does_not_divide_names_the_nearest(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["pretrain", TINY, "--model.image-size", "30x40", "--workdir", str(tmp_path)])
    assert end.value.code == 2
    assert "24 and 32" in " ".join(capsys.readouterr().err.split())


def test_an_export_at_another_size_takes_one_word(pretrained, tmp_path, capsys):
    """Two words would take the positional arguments after them."""
    assert (
        cli.main(["convert", "--image-size", "24x40", str(pretrained), str(tmp_path / "a"), "--to", "hf"])
        == 0
    )
    assert read_model(str(tmp_path / "a")).frame_size == (24, 40)
    capsys.readouterr()
