"""A tiny classifier of the synthetic videos' motions, with random weights, and a run that might leave it."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import jax
import numpy as np

from videomae_jax.checkpoints.orbax import CheckpointWriter
from videomae_jax.config import (
    CheckpointConfig,
    FinetuneConfig,
    LabelledDataConfig,
    VideoMAEConfig,
    ViewsConfig,
    load_config,
)
from videomae_jax.data.synthetic import MOTIONS
from videomae_jax.models.classification import VideoMAEForVideoClassification

CONFIG = replace(load_config("tiny").model, id2label=tuple(MOTIONS), num_labels=len(MOTIONS))
DATA = LabelledDataConfig(sampling_rate=2)
VIEWS = ViewsConfig(num_segments=2, num_crops=3)


def random_classifier(config: VideoMAEConfig = CONFIG) -> tuple[VideoMAEForVideoClassification, dict]:
    """Parameters whose head is large, so that scores of different clips differ much."""
    model = VideoMAEForVideoClassification(config)
    params = model.init_params(jax.random.key(0))
    return model, params | {"head": jax.tree.map(lambda leaf: 3e4 * leaf, params["head"])}


def softmax_of(model: VideoMAEForVideoClassification, params: dict, pixels: np.ndarray) -> np.ndarray:
    """The softmax of normalised clips, in float64 and with nothing of the code under test but the model."""
    logits = jax.jit(model.apply)({"params": params}, pixels.astype(np.float32)).logits
    shares = np.exp(np.asarray(logits, np.float64))
    return shares / shares.sum(axis=1, keepdims=True)


def write_run(folder: Path, config: VideoMAEConfig = CONFIG) -> Path:
    """A work folder as fine-tuning leaves it, with one checkpoint, of step 7."""
    run = FinetuneConfig(config, data=DATA, test=VIEWS)
    writer = CheckpointWriter(folder, CheckpointConfig())
    trees = {"params": random_classifier(config)[1]}
    writer.save(7, trees, {"config": json.loads(json.dumps(asdict(run)))})
    writer.wait()
    return folder
