"""Parameter counts of the published sizes, and the shapes of every recipe."""

import math
from dataclasses import replace
from pathlib import Path

import jax
import pytest

from videomae_jax.config import SIZES, load_config
from videomae_jax.models.classification import VideoMAEForVideoClassification
from videomae_jax.training.resolve import objective_of
from videomae_jax.training.state import state_shapes

CONFIGS = sorted((Path(__file__).parents[2] / "configs").rglob("*.py"))


def count(config):
    from videomae_jax.models.pretraining import VideoMAEForPreTraining

    shapes = jax.eval_shape(VideoMAEForPreTraining(config).init_params, jax.random.key(0))
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


@pytest.mark.parametrize(
    ("recipe", "parameters"),
    [
        ("v2_hybrid_base_200e", 94_210_944),  # exact in the reference
        ("v2_hybrid_large_300e", 317_782_016),  # 317.78 M
        ("v2_hybrid_huge_300e", 645_659_392),  # 645.66 M
        ("v2_hybrid_giant_300e", 1_026_306_560),  # 1026.31 M
    ],
)
def test_parameter_count_of_v2(recipe, parameters):
    """Whose decoders are smaller than V1's from ViT-L on."""
    assert count(load_config(recipe).model) == parameters


@pytest.mark.parametrize(
    ("size", "parameters"),
    [  # Exact in the reference, with the 400 classes of Kinetics.
        ("small", 22_033_936),
        ("base", 86_534_800),
        ("large", 304_270_736),
        ("huge", 632_119_440),
        ("giant", 1_012_174_352),
    ],
)
def test_parameter_count_of_a_classifier(size, parameters):
    model = VideoMAEForVideoClassification(replace(SIZES[size], num_labels=400))
    shapes = jax.eval_shape(model.init_params, jax.random.key(0))
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) == parameters


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_recipe_builds(path):
    config = load_config(str(path))
    if config.model.num_labels == 0:  # A classifier's classes are otherwise counted in its list.
        config = replace(config, model=replace(config.model, num_labels=8))
    shapes = state_shapes(objective_of(config))
    assert shapes.params["encoder"]["blocks"]["norm1"]["scale"].shape == (
        config.model.num_hidden_layers,
        config.model.hidden_size,
    )


def test_there_are_recipes():
    assert len(CONFIGS) > 10
