"""Stochastic depth and head dropout: which clips skip what, and that evaluation never does."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from videomae_jax.config import load_config
from videomae_jax.models.blocks import _scaled
from videomae_jax.models.classification import VideoMAEForVideoClassification
from videomae_jax.models.stack import drop_path_scales

CONFIG = replace(load_config("tiny").model, num_labels=5)


@pytest.fixture(scope="module")
def setting():
    params = jax.jit(VideoMAEForVideoClassification(CONFIG, init_scale=1).init_params)(jax.random.key(0))
    return {"params": params}, jax.random.normal(jax.random.key(1), (6, 8, 32, 32, 3))


def run(setting, rng=0, deterministic=False, **changes):
    model = VideoMAEForVideoClassification(replace(CONFIG, **changes))
    variables, clips = setting
    return model.apply(
        variables, clips, deterministic=deterministic, rngs={"dropout": jax.random.key(rng)}
    ).logits


def test_the_chance_to_skip_rises_evenly_and_the_mean_stays():
    scales = drop_path_scales(jax.random.key(0), 0.4, 5, 20_000)
    assert scales.shape == (5, 2, 20_000)
    np.testing.assert_allclose(
        (scales == 0).mean(axis=2), np.linspace(0, 0.4, 5)[:, None].repeat(2, 1), atol=0.015
    )
    np.testing.assert_allclose(scales.mean(axis=2), 1, atol=0.02)
    assert len(np.unique(scales[4])) == 2
    assert abs(np.corrcoef(scales[4] > 0)[0, 1]) < 0.05, "the two branches of a block are drawn apart"


def test_factors_are_not_rounded_before_they_are_used():
    tokens = jax.random.normal(jax.random.key(0), (2, 128, 64), jnp.bfloat16)
    factors = np.float32([1 / 0.9, 1 / 0.8])  # In bfloat16 the first is 1.1094.
    wanted = np.asarray(tokens, np.float32) * factors[:, None, None]
    np.testing.assert_array_equal(_scaled(tokens, jnp.asarray(factors)), wanted.astype(jnp.bfloat16))


def without_last_block(setting):
    variables, clips = setting
    first = jax.tree.map(lambda leaf: leaf[:1], variables["params"]["encoder"]["blocks"])
    shallow = variables["params"] | {"encoder": variables["params"]["encoder"] | {"blocks": first}}
    return run(({"params": shallow}, clips), num_hidden_layers=1)


def test_a_skipped_branch_leaves_a_clip_as_it_is(setting):
    np.testing.assert_allclose(
        run(setting, drop_path=1 - 1e-7), without_last_block(setting), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("changes", [{"drop_path": 0.5}, {"head_dropout": 0.5}])
def test_only_training_drops(setting, changes):
    plain = run(setting)
    np.testing.assert_array_equal(run(setting, deterministic=True, **changes), plain)
    assert not np.allclose(run(setting, **changes), plain)
    np.testing.assert_array_equal(run(setting, rng=3, **changes), run(setting, rng=3, **changes))
    assert not np.allclose(run(setting, rng=3, **changes), run(setting, rng=4, **changes))


def test_clips_are_dropped_one_by_one(setting):
    """At rate one half, a quarter of the clips skips both branches of the last block."""
    alone = without_last_block(setting)
    runs = [np.isclose(run(setting, rng=n, drop_path=0.5), alone, atol=1e-6).all(axis=1) for n in range(8)]
    assert 2 < np.sum(runs) < 24
    assert 0 < max(map(sum, runs)) < 6


def test_recomputing_blocks_changes_neither_value_nor_gradient(setting):
    variables, clips = setting

    def loss(params, remat):
        return jnp.sum(run(({"params": params}, clips), drop_path=0.5, remat=remat) ** 2)

    one, other = (
        jax.jit(jax.value_and_grad(loss), static_argnums=1)(variables["params"], r) for r in (False, True)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), one, other)
