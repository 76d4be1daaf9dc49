"""Parameter counts of the published sizes, and the shapes of every recipe."""

import math
from pathlib import Path

import jax
import pytest

from videomae_jax.config import SIZES, load_config
from videomae_jax.training.steps import state_shapes

CONFIGS = sorted((Path(__file__).parents[2] / "configs").rglob("*.py"))


def count(config):
    from videomae_jax.models.pretraining import init_params

    shapes = jax.eval_shape(lambda key: init_params(config, key), jax.random.key(0))
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))


@pytest.mark.parametrize(
    ("size", "parameters"),
    [
        ("small", 24_029_376),  # 24.03 M in the reference
        ("base", 94_210_944),  # exact in the reference
        ("large", 342_996_992),  # 343.00 M
        ("huge", 692_487_296),  # 692.49 M
        ("giant", 1_026_306_560),  # 1026.31 M
    ],
)
def test_parameter_count(size, parameters):
    assert count(SIZES[size]) == parameters


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_recipe_builds(path):
    config = load_config(str(path))
    shapes = state_shapes(config)
    assert shapes.params["encoder"]["blocks"]["norm1"]["scale"].shape == (
        config.model.num_hidden_layers,
        config.model.hidden_size,
    )


def test_there_are_recipes():
    assert len(CONFIGS) > 10
