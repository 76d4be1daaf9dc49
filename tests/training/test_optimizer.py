"""The schedule, what decays, and what a step does with gradients that are too large or not finite."""

from dataclasses import replace
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from videomae_jax.checkpoints.trees import flatten
from videomae_jax.config import OptimConfig, PretrainConfig, load_config
from videomae_jax.models.masking import tube_mask
from videomae_jax.models.pretraining import VideoMAEForPreTraining
from videomae_jax.training.objectives.pretraining import Pretraining
from videomae_jax.training.optimizer import decay_mask, effective_lr, layer_scales, warmup_cosine
from videomae_jax.training.state import init_state
from videomae_jax.training.step import optimizer_step

TINY = load_config("tiny")
assert isinstance(TINY, PretrainConfig)
SHAPES = jax.eval_shape(VideoMAEForPreTraining(TINY.model).init_params, jax.random.key(0))


def test_schedule_is_the_originals():
    config = OptimConfig(base_lr=1e-3, min_lr=1e-5, warmup_epochs=2)
    rates = [float(warmup_cosine(config, 512, 5, 50)(step)) for step in range(50)]
    rising = np.linspace(0, 2e-3, 10)
    falling = [2e-5 + 0.5 * (2e-3 - 2e-5) * (1 + np.cos(np.pi * i / 40)) for i in range(40)]
    np.testing.assert_allclose(rates, [*rising, *falling], rtol=1e-5)
    assert rates[9:11] == pytest.approx([effective_lr(1e-3, 512)] * 2), "the peak is taken twice"
    assert rates[-1] > 2e-5, "the minimum is never quite reached"


def test_schedule_agrees_with_the_recorded_one(golden_folder):
    import json

    meta = json.loads((golden_folder / "golden_v1" / "pretrain.json").read_text())
    config = OptimConfig(base_lr=1e-3, min_lr=1e-5, warmup_epochs=2)
    rates = [float(warmup_cosine(config, 256, 1, 6)(step)) for step in range(1, 6)]
    np.testing.assert_allclose(rates, meta["lr_schedule"][1:], rtol=1e-6)


def test_a_warm_up_longer_than_the_run_is_refused():
    with pytest.raises(ValueError, match=r"optim\.warmup_epochs=40 is 40 steps and the whole run 10"):
        warmup_cosine(OptimConfig(), 256, 1, 10)


def test_no_schedule_without_warm_up_is_lost():
    schedule = warmup_cosine(OptimConfig(base_lr=1e-3, warmup_epochs=0), 256, 1, 10)
    assert float(schedule(0)) == pytest.approx(1e-3)


def test_decay_is_chosen_by_name():
    decayed = {path for path, yes in flatten(decay_mask(SHAPES)).items() if yes}
    assert {path.rpartition(".")[2] for path in decayed} == {"kernel"}
    assert len(decayed) == 4 + 4 + 3  # qkv, proj, fc1, fc2 of both stacks; embedding, bridge, head


def test_what_cosine_attention_and_layer_scale_learn_is_not_decayed_and_of_its_layer():
    """As in V2, whose optimizer leaves out names that end in .scale, and vectors."""
    model = replace(TINY.model, cosine_attention=True, layer_scale=0.1)
    shapes = jax.eval_shape(VideoMAEForPreTraining(model).init_params, jax.random.key(0))
    masks, scales = flatten(decay_mask(shapes)), flatten(layer_scales(shapes, 0.5))
    more = masks.keys() - flatten(SHAPES).keys()
    own = {"attn.scale", "gamma_1", "gamma_2"}
    assert more == {f"{stack}.blocks.{name}" for stack in ("encoder", "decoder") for name in own}
    assert not any(masks[path] for path in more)
    assert all(np.ravel(scales[f"encoder.blocks.{name}"]).tolist() == [0.5**2, 0.5] for name in own)


def test_layers_learn_slower_the_further_they_are_from_the_head():
    scales = flatten(layer_scales(SHAPES, 0.5))
    assert float(scales["encoder.patch_embed.proj.kernel"]) == 0.5**3
    assert np.ravel(scales["encoder.blocks.mlp.fc1.kernel"]).tolist() == [0.5**2, 0.5]
    assert scales["encoder.blocks.attn.q_bias"].shape == (2, 1)
    assert float(scales["encoder.norm.scale"]) == 1


@pytest.fixture(scope="module")
def setting():
    params = jax.jit(VideoMAEForPreTraining(TINY.model).init_params)(jax.random.key(0))
    video = jax.random.randint(jax.random.key(1), (4, 8, 32, 32, 3), 0, 256).astype(jnp.uint8)
    return params, video, tube_mask(jax.random.key(2), video, TINY.model.grid, 0.75)


@lru_cache
def step_of(config, way):
    """A step, compiled once for each configuration and each way of `platform`."""
    loss = Pretraining(config).loss
    return jax.jit(partial(optimizer_step, loss=loss, optim=config.optim, schedule=lambda step: 1e-3))


def run_step(setting, config, params=None, way=None):
    fresh, video, mask = setting
    state = init_state(config.optim, fresh if params is None else params)
    return step_of(config, way)(state, (video, mask), jax.random.key(3))


@pytest.fixture(params=["cpu", "default"])
def platform(request, monkeypatch):
    """The step takes the way of a CPU, or that of GPUs and TPUs, which computes the same."""
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda **ways: ways[request.param]())
    return request.param


def test_a_step_that_is_not_finite_changes_only_the_counters(setting, platform):
    broken = jax.tree.map(lambda leaf: leaf, setting[0])
    broken["mask_token"] = broken["mask_token"].at[0, 0, 0].set(jnp.nan)
    state, metrics = run_step(setting, TINY, broken, way=platform)
    assert not np.isfinite(metrics["loss"])
    assert (int(state.step), int(state.nonfinite), int(state.streak)) == (1, 1, 1)
    assert int(state.opt_state[0].count) == 0
    assert not any(np.any(leaf) for leaf in jax.tree.leaves((state.opt_state[0].mu, state.opt_state[0].nu)))
    for before, after in zip(jax.tree.leaves(broken), jax.tree.leaves(state.params), strict=True):
        np.testing.assert_array_equal(before, after)
    good, metrics = run_step(setting, TINY, way=platform)
    assert (int(good.step), int(good.nonfinite), int(good.streak)) == (1, 0, 0)
    assert int(good.opt_state[0].count) == 1
    changed = jax.tree.map(lambda one, other: bool(np.any(one != other)), good.params, setting[0])
    assert changed["mask_token"]


def test_clipping_scales_the_gradient_to_the_norm(setting):
    free, metrics = run_step(setting, TINY)
    limit = float(metrics["grad_norm"]) / 4
    clipped, again = run_step(setting, replace(TINY, optim=replace(TINY.optim, clip_grad=limit)))
    assert again["grad_norm"] == metrics["grad_norm"], "the norm is reported before clipping"
    for one, other in zip(
        jax.tree.leaves(free.opt_state[0].mu), jax.tree.leaves(clipped.opt_state[0].mu), strict=True
    ):
        np.testing.assert_allclose(np.asarray(one) / 4, other, rtol=1e-4, atol=1e-9)


def test_accumulation_gives_the_same_step(setting):
    whole, metrics = run_step(setting, TINY)
    parts, again = run_step(setting, replace(TINY, optim=replace(TINY.optim, accumulation_steps=2)))
    assert float(metrics["loss"]) == pytest.approx(float(again["loss"]), rel=1e-6)
    for one, other in zip(
        jax.tree.leaves(whole.opt_state[0].mu), jax.tree.leaves(parts.opt_state[0].mu), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-8)
