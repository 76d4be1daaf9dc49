"""Each operation of RandAugment does what Pillow's does, inside of the valid part only; draws are even."""

import runpy
from functools import lru_cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from videomae_jax.config import AugmentConfig
from videomae_jax.hardware import Hardware
from videomae_jax.models.compiled_for import compiling_for
from videomae_jax.training.augmentation.rand_augment import (
    OPERATIONS,
    Draws,
    apply_operations,
    draw_operations,
)

ON_HOST = runpy.run_path(str(Path(__file__).parents[3] / "benchmarks/augment.py"))
"""Pillow's side, as in the benchmark."""
CANVAS = (40, 56)
EXACT = set(OPERATIONS) - {"AutoContrast", "Rotate", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel"}


def frames_like_real(height, width, count=2):
    """Coloured waves with an edge and noise, not of full range."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width][:, None, :, :, None]
    phase = rng.uniform(0, 6, (2, count, 1, 1, 3))
    waves = np.sin(0.2 * x + phase[0]) + np.cos(0.13 * y + phase[1]) + (x > y)
    return (110 + 35 * waves + rng.normal(0, 4, (count, height, width, 3))).clip(3, 250).astype(np.uint8)


def on_canvas(frames, seed=0):
    """The frames at the top left of noise, as operations take them."""
    height, width = frames.shape[1:3]
    canvas = np.random.default_rng(seed).integers(0, 256, (len(frames), *CANVAS, 3), np.uint8)
    canvas[:, :height, :width] = frames
    return jnp.asarray(canvas.transpose(1, 2, 0, 3)), jnp.array([height, width])


def cut_out(video, size):
    return np.asarray(video)[: size[0], : size[1]].transpose(2, 0, 1, 3)


@lru_cache
def compiled(name):
    return jax.jit(OPERATIONS[name].apply)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("shape", [CANVAS, (29, 41), (2, 7), (1, 1)], ids=str)
def test_operation_is_that_of_pillow(name, shape):
    frames = frames_like_real(*shape)
    video, size = on_canvas(frames)
    for level in (0.0, 3.3, 7.2, 9.9):
        for sign in (-1, 1):
            value = ON_HOST["amount"](name, level, sign)
            assert value == pytest.approx(ON_HOST["amount_on_host"](name, level, sign), abs=1e-5) or name in (
                "AutoContrast", "Equalize", "Invert",
            )  # fmt: skip
            found = cut_out(compiled(name)(video, size, jnp.float32(value)), shape)
            difference = np.abs(found.astype(int) - ON_HOST["operate_on_host"](frames, name, value))
            assert difference.max() <= (name not in EXACT), (level, sign)
            # Few of them: results are cut, so that the last bit of a float can decide.
            assert (difference > 0).mean() < 0.02 or difference.size < 500


@pytest.mark.parametrize("name", ["Equalize", *sorted(EXACT ^ set(OPERATIONS))[1:]])
@pytest.mark.parametrize("shape", [CANVAS, (29, 41), (2, 7), (1, 1)], ids=str)
def test_operation_is_the_same_by_the_products_of_a_tpu(name, shape):
    video, size = on_canvas(frames_like_real(*shape))
    by_products = jax.jit(lambda *given: OPERATIONS[name].apply(*given))
    for level in (0.0, 7.2, 9.9):
        for sign in (-1, 1):
            given = video, size, jnp.float32(ON_HOST["amount"](name, level, sign))
            with compiling_for(Hardware("tpu", "TPU v5 lite")):
                found = cut_out(by_products(*given), shape)
            assert (found == cut_out(compiled(name)(*given), shape)).all(), (level, sign)


def test_a_tpu_takes_large_canvases_in_pieces():
    video = jnp.asarray(np.random.default_rng(0).integers(0, 256, (150, 230, 3, 3), np.uint8))
    size = jnp.array([140, 221])
    with compiling_for(Hardware("tpu", "TPU v5 lite")):
        found = jax.jit(lambda video: OPERATIONS["Equalize"].apply(video, size, jnp.float32(0)))(video)
    wanted = compiled("Equalize")(video, size, jnp.float32(0))
    assert (cut_out(found, size) == cut_out(wanted, size)).all()


@pytest.mark.parametrize("name", ["AutoContrast", "Equalize"])
def test_flat_frames_stay(name):
    video, size = on_canvas(np.full((2, 20, 30, 3), 77, np.uint8))
    assert (cut_out(compiled(name)(video, size, jnp.float32(0)), size) == 77).all()


def test_frames_have_statistics_of_their_own():
    frames = frames_like_real(29, 41)
    frames[1] //= 3
    both, size = on_canvas(frames)
    alone, _ = on_canvas(frames[1:])
    for name in ("AutoContrast", "Equalize", "ContrastIncreasing"):
        value = jnp.float32(0.5)
        pair = compiled(name)(both, size, value), compiled(name)(alone, size, value)
        assert (cut_out(pair[0], size)[1] == cut_out(pair[1], size)[0]).all()


def test_operations_follow_one_another_as_drawn():
    frames = frames_like_real(29, 41)
    video, size = on_canvas(frames)
    names = list(OPERATIONS)
    draws = Draws(
        jnp.array([1 + names.index("ShearX"), 0, 1 + names.index("SolarizeAdd"), 1 + names.index("ShearX")]),
        jnp.array([7.0, 5.0, 6.0, 2.0]),
        jnp.array([-1.0, 1.0, 1.0, 1.0]),
    )
    wanted = video
    for name, level, sign in (("ShearX", 7, -1), ("SolarizeAdd", 6, 1), ("ShearX", 2, 1)):
        wanted = compiled(name)(wanted, size, jnp.float32(ON_HOST["amount"](name, level, sign)))
    found = jax.jit(apply_operations)(video, size, draws)
    assert np.abs(cut_out(found, size).astype(int) - cut_out(wanted, size)).max() <= 1


def test_draws():
    config = AugmentConfig()
    numbers, levels, signs = jax.vmap(lambda key: draw_operations(key, config))(
        jax.random.split(jax.random.key(0), 8000)
    )
    assert numbers.shape == (8000, 4)
    counts = np.bincount(np.asarray(numbers).reshape(-1), minlength=16)
    assert counts[0] / counts.sum() == pytest.approx(0.5, abs=0.01)
    assert np.allclose(counts[1:] / counts.sum(), 0.5 / 15, atol=0.004)  # 4 standard deviations.
    assert (float(levels.mean()), float(levels.std())) == pytest.approx((7, 0.5), abs=0.02)
    assert float(signs.mean()) == pytest.approx(0, abs=0.03)
    pairs = np.asarray(numbers[:, :2])
    assert np.corrcoef(pairs.T)[0, 1] == pytest.approx(0, abs=0.05)


def test_levels_stay_within_the_scale():
    config = AugmentConfig(rand_magnitude=10, rand_magnitude_std=4, rand_num_ops=500)
    draw = jax.jit(draw_operations, static_argnums=1)
    levels = draw(jax.random.key(0), config).levels
    assert levels.max() == 10
    assert levels.min() >= 0
    assert draw(jax.random.key(0), AugmentConfig(rand_magnitude_std=0)).levels.tolist() == [7] * 4
