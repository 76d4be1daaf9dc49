"""Losses of three tiny runs are those that were recorded, so that a drift of draws or arithmetic is seen.

`python tests/training/test_golden_losses.py` records them anew.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from videomae_jax.config import load_config
from videomae_jax.training.optimizer import warmup_cosine
from videomae_jax.training.resolve import objective_of
from videomae_jax.training.sharding import make_mesh
from videomae_jax.training.state import create_state
from videomae_jax.training.step import make_train_step

RECORDED = Path(__file__).with_name("golden_losses.json")
STEPS = 4
TINY, TINY_FINETUNE = load_config("tiny"), load_config("tiny_finetune")
RUNS = {
    "pre-training": TINY,
    "pre-training with dual masking": replace(TINY, decoder_mask_ratio=0.5),
    "fine-tuning": replace(TINY_FINETUNE, model=replace(TINY_FINETUNE.model, num_labels=4)),
}


def losses_of(config):
    """Of some steps on one device over clips of noise."""
    config, rng = replace(config, batch_size=4), np.random.default_rng(0)
    objective, mesh = objective_of(config), make_mesh(1, jax.devices()[:1])
    blank = objective.train_clips.blank()
    video = blank["video"].shape[1:]
    state = create_state(objective, mesh, jax.random.key(0))
    step = make_train_step(objective, mesh, warmup_cosine(config.optim, 4, 1, STEPS))
    losses = []
    for _ in range(STEPS):
        # Waves rather than noise: a network that learned to say the mean would hide what it is given.
        phases = (
            rng.uniform(0, 6, (4, 1, 1, 1, 3))
            + rng.uniform(-1, 1, (4, 1, 1, 1, 1)) * np.arange(video[0])[:, None, None, None]
        )
        waves = np.sin(phases + 0.3 * np.arange(video[1])[:, None, None]) + np.cos(
            phases + 0.2 * np.arange(video[2])[:, None]
        )
        batch = {"video": (128 + 60 * waves).astype(np.uint8)}
        if "label" in blank:
            batch |= {
                "label": rng.integers(0, 4, 4).astype(np.int32),
                "box": np.tile(np.int32([*video[1:3], 0]), (4, 1)),
            }
        state, metrics = step(state, jax.device_put(batch), jax.random.key(1))
        losses.append(float(metrics["loss"]))
    return losses


@pytest.mark.parametrize("name", RUNS)
def test_losses_are_those_recorded(name):
    # Processors, and versions of XLA, add up in other orders: float32 has 6e-8, four steps of AdamW make it
    # more, and one grey level that falls the other way moves the loss of a clip by some 1e-6.
    assert losses_of(RUNS[name]) == pytest.approx(json.loads(RECORDED.read_text())[name], rel=1e-4)


if __name__ == "__main__":
    assert jax.default_backend() == "cpu", "recorded on a CPU"
    RECORDED.write_text(
        json.dumps({name: losses_of(config) for name, config in RUNS.items()}, indent=1) + "\n"
    )
    sys.stdout.write(RECORDED.read_text())
