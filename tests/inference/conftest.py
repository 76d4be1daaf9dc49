"""Generated videos, and weights to make features of them with."""

import jax
import pytest

from videomae_jax.checkpoints.orbax import CheckpointWriter
from videomae_jax.config import CheckpointConfig, load_config
from videomae_jax.data.synthetic import write_synthetic_videos
from videomae_jax.models.pretraining import VideoMAEForPreTraining
from videomae_jax.training.run_folder import describe

TINY = load_config("tiny")


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """val/ with videos of 40 frames, train.csv and val.csv."""
    folder = tmp_path_factory.mktemp("videos")
    write_synthetic_videos(folder, train_per_class=0, val_per_class=1, side=40)
    return folder


@pytest.fixture(scope="module")
def video(videos):
    return videos / "val" / "up_000.mp4"


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A work folder of pre-training, with weights of which none is at its plain start."""
    folder = tmp_path_factory.mktemp("pretrained")
    params = jax.jit(VideoMAEForPreTraining(TINY.model).init_params)(jax.random.key(0))
    params["encoder"]["norm"]["bias"] += 0.3
    writer = CheckpointWriter(folder, CheckpointConfig())
    writer.save(3, {"params": params}, {"config": describe(TINY)})
    writer.wait()
    return folder
