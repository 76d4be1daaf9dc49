"""A folder of `convert --to orbax` goes through every command that takes weights, as its help says."""

import json
from dataclasses import asdict, replace

import jax
import numpy as np
import pytest
from random_checkpoints import random_tensors, save_pth

from videomae_jax import cli
from videomae_jax.checkpoints.names import tree_from_original
from videomae_jax.checkpoints.orbax import CheckpointWriter, read_params
from videomae_jax.config import CheckpointConfig, load_config
from videomae_jax.data.synthetic import MOTIONS, write_synthetic_videos
from videomae_jax.training.resolve import objective_of

PRETRAINED = load_config("tiny").model
CLASSIFIER = replace(PRETRAINED, num_labels=len(MOTIONS))
FLAGS = ("--num-heads", 4, "--image-size", 32, "--num-frames", 8)
DECODER = ("--decoder-num-heads", 2)
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    write_synthetic_videos(folder, train_per_class=2, val_per_class=1, side=32)
    return folder


@pytest.fixture
def converted(convert, tmp_path):
    """Convert tensors of a kind into a work folder."""

    def run(config, kind):
        source = save_pth(tmp_path / f"{kind}.pth", random_tensors(config, kind))
        flags = (*FLAGS, *(DECODER if kind == "pretraining" else ()))
        code, said = convert(source, tmp_path / kind, "--to", "orbax", *flags)
        assert code == 0, said
        return tmp_path / kind

    return run


def command(*arguments):
    return cli.main([str(argument) for argument in arguments])


def test_classifiers(converted, videos, tmp_path):
    folder = converted(CLASSIFIER, "classification")
    video, train, val = videos / "val/up_000.mp4", videos / "train.csv", videos / "val.csv"
    assert command("classify", video, "--checkpoint", folder) == 0
    where = ("--out", tmp_path / "evaluated", "--num-workers", 0)
    assert command("evaluate", val, "--checkpoint", folder, *where) == 0
    where = ("--out", tmp_path / "features.npz", "--num-workers", 0)
    assert command("features", video, "--checkpoint", folder, *where) == 0
    assert np.load(tmp_path / "features.npz")["features"].shape == (1, 48)
    where = ("--out", tmp_path / "probe", "--num-workers", 0, "--kind", "knn")
    assert command("probe", "--train", train, "--val", val, "--checkpoint", folder, *where) == 0
    objective_of(replace(load_config("tiny_finetune"), model=CLASSIFIER)).start_params(str(folder), KEY)


def test_pre_trained_models(converted, videos, tmp_path):
    folder = converted(PRETRAINED, "pretraining")
    video, train, val = videos / "val/up_000.mp4", videos / "train.csv", videos / "val.csv"
    assert command("reconstruct", video, "--checkpoint", folder, "--out", tmp_path / "pictures") == 0
    where = ("--out", tmp_path / "features.npz", "--num-workers", 0)
    assert command("features", video, "--checkpoint", folder, *where) == 0
    where = ("--out", tmp_path / "probe", "--num-workers", 0, "--kind", "knn")
    assert command("probe", "--train", train, "--val", val, "--checkpoint", folder, *where) == 0
    objective_of(load_config("tiny")).start_params(str(folder), KEY)
    objective_of(replace(load_config("tiny_finetune"), model=CLASSIFIER)).start_params(str(folder), KEY)


def test_converted_weights_are_no_run_to_continue(converted, videos, capsys):
    folder = converted(PRETRAINED, "pretraining")
    assert command("pretrain", "tiny", "--data.train", videos / "train.csv", "--workdir", folder) == 2
    assert f"--init-from {folder}" in capsys.readouterr().err


def test_the_best_step_of_a_run_is_converted(convert, tmp_path):
    """As every command reads it; the newest may be worse."""
    writer = CheckpointWriter(tmp_path / "run", CheckpointConfig())
    tensors = random_tensors(CLASSIFIER, "classification")
    config = json.loads(json.dumps({"model": asdict(CLASSIFIER)}))
    for step in (1, 2):
        trees = {"params": tree_from_original({name: step * each for name, each in tensors.items()})}
        writer.save(step, trees, {"config": config, "best": {"step": 1}})
    writer.wait()
    for source, times in (("run", 1), ("run/checkpoints/2", 2)):
        code, said = convert(tmp_path / source, tmp_path / f"{times}", "--to", "orbax")
        assert code == 0, said
        _, params = read_params(tmp_path / f"{times}")
        np.testing.assert_array_equal(params["head"]["bias"], times * tensors["head.bias"])
