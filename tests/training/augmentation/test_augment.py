"""Crops, flips and erasing as published, and the whole chain as a pure function of keys."""

import json
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from videomae_jax.config import AugmentConfig
from videomae_jax.hardware import Hardware
from videomae_jax.models.compiled_for import compiling_for
from videomae_jax.models.pixels import normalize
from videomae_jax.training.augmentation.augment import augment, augment_clip, draw_crop, erase, resize_crop

FULL = AugmentConfig()
PLAIN = AugmentConfig(rand_num_ops=0, erase_prob=0, flip=False)
YES, NO = jnp.array(True), jnp.array(False)
SIZE = 32


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def keys(count):
    return jax.random.split(jax.random.key(0), count)


def boxes(*box):
    return jnp.array(box, jnp.int32)[None]


@pytest.mark.parametrize(
    "box", [(0, 0, 30, 44), (3, 5, 20, 31), (4, 2, 8, 28), (29, 7, 1, 9), (2, 43, 12, 1)], ids=str
)
def test_crop_is_scaled_as_by_torch(box):
    torch = pytest.importorskip("torch")
    frames = noise(30, 44, 2, 3)
    top, left, height, width = box
    cut = torch.from_numpy(frames[top : top + height, left : left + width]).permute(2, 3, 0, 1).float()
    wanted = torch.nn.functional.interpolate(cut, (SIZE, SIZE), mode="bilinear", align_corners=False)
    wanted = wanted.permute(2, 3, 0, 1).numpy()
    resize = jax.jit(partial(resize_crop, size=(SIZE, SIZE)))
    place = tuple(map(jnp.asarray, box))
    found = resize(jnp.asarray(frames), place, transposed=NO, mirrored=NO)
    assert np.abs(np.asarray(found) - wanted).max() < 1e-3
    on_its_side = jnp.asarray(frames.swapaxes(0, 1))
    mirrored = resize(on_its_side, place, transposed=YES, mirrored=YES)
    assert np.abs(np.asarray(mirrored)[:, ::-1] - wanted).max() < 1e-3
    for size in ((SIZE, SIZE), (24, 40)):
        for canvas, lying in ((on_its_side, YES), (jnp.asarray(frames), NO)):
            by_products = jax.jit(lambda canvas, *given, size=size: resize_crop(canvas, place, size, *given))
            with compiling_for(Hardware("tpu", "TPU v5 lite")):
                found = by_products(canvas, lying, YES)
            by_gathers = resize_crop(canvas, place, size, lying, YES)
            assert np.abs(found - by_gathers).max() < 1e-3


@pytest.mark.parametrize("size", [(24, 40), (40, 16)])
def test_clips_that_are_not_square(size):
    """A whole frame of the same shape is only resized; drawn crops are as far from it as from a square."""
    torch = pytest.importorskip("torch")
    frames, whole = noise(1, 2, 2 * size[0], 2 * size[1], 3), boxes(2 * size[0], 2 * size[1], 0)
    plain = replace(PLAIN, crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0))
    found = jax.jit(partial(augment, config=plain, size=size))(jax.random.key(0), jnp.asarray(frames), whole)
    clip = torch.from_numpy(frames[0]).permute(0, 3, 1, 2).float()
    wanted = torch.nn.functional.interpolate(clip, size, mode="bilinear", align_corners=False)
    assert np.abs(found[0] - normalize(wanted.permute(0, 2, 3, 1).numpy())).max() < 1e-4

    aspect = size[1] / size[0]
    draw = jax.jit(jax.vmap(lambda key: draw_crop(key, jnp.array([400, 400]), FULL, aspect)))
    _, _, height, width = (np.asarray(edge) for edge in draw(keys(2000)))
    assert 0.74 * aspect < (width / height).min() < 0.8 * aspect
    assert 1.28 * aspect < (width / height).max() < 1.35 * aspect


def test_crops_are_drawn_evenly():
    draw = jax.jit(jax.vmap(lambda key: draw_crop(key, jnp.array([200, 300]), FULL)))
    top, left, height, width = (np.asarray(edge) for edge in draw(keys(8000)))
    assert min(top.min(), left.min()) == 0
    assert ((top + height).max(), (left + width).max()) == (200, 300)
    area, ratio = height * width / 60000, width / height
    assert 0.079 < area.min() < 0.1
    assert 0.86 < area.max() < 0.89  # The whole height and four thirds of it.
    assert (ratio > 0.74).all()
    assert (ratio < 1.35).all()
    small = area < 0.4  # All of these fit, so they are as drawn.
    assert area[small].mean() == pytest.approx(0.24, abs=0.01)
    assert np.log(ratio[small]).mean() == pytest.approx(0, abs=0.02)
    assert np.log(ratio[small]).std() == pytest.approx(2 * np.log(4 / 3) / np.sqrt(12), abs=0.01)
    free = (top / np.maximum(200 - height, 1))[small], (left / np.maximum(300 - width, 1))[small]
    assert [place.mean() for place in free] == pytest.approx([0.5, 0.5], abs=0.02)


@pytest.mark.parametrize(
    ("valid", "box"),
    [((10, 400), (0, 193, 10, 13)), ((400, 9), (194, 0, 12, 9)), ((1, 1), (0, 0, 1, 1))],
    ids=str,
)
def test_a_crop_that_never_fits_is_the_middle(valid, box):
    draw = jax.jit(draw_crop, static_argnums=2)
    config = replace(FULL, crop_scale=(0.9, 1.0))
    assert tuple(map(int, draw(jax.random.key(0), jnp.array(valid), config))) == box


def test_whole_square_is_only_normalised_and_half_are_mirrored():
    video = noise(64, 2, SIZE, SIZE, 3)
    config = replace(PLAIN, flip=True, crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0))
    box = jnp.tile(boxes(SIZE, SIZE, 0), (64, 1))
    clips = jax.jit(partial(augment, config=config, size=(SIZE, SIZE)))(
        jax.random.key(0), jnp.asarray(video), box
    )
    wanted = np.asarray(normalize(video))
    same = np.abs(clips - wanted).max((1, 2, 3, 4)) < 1e-5
    mirrored = np.abs(clips - wanted[:, :, :, ::-1]).max((1, 2, 3, 4)) < 1e-5
    assert (same ^ mirrored).all()
    assert 16 <= mirrored.sum() <= 48  # 4 standard deviations.


def test_frames_on_their_side_come_out_upright():
    upright = noise(1, 2, 40, 28, 3)
    one = jax.jit(partial(augment, config=replace(PLAIN, flip=True), size=(SIZE, SIZE)))
    canvas, turned = np.zeros((2, 1, 2, 40, 50, 3), np.uint8)  # Two: JAX may read one after the call.
    canvas[:, :, :40, :28] = upright
    turned[:, :, :28, :40] = upright.swapaxes(2, 3)
    wanted = one(jax.random.key(3), jnp.asarray(canvas), boxes(40, 28, 0))
    found = one(jax.random.key(3), jnp.asarray(turned), boxes(28, 40, 1))
    assert np.abs(found - wanted).max() < 1e-5


def test_erasing_puts_normal_noise_in_one_box_of_all_frames():
    clip = jnp.full((2, SIZE, SIZE, 3), 9.0)
    erased = np.asarray(jax.jit(jax.vmap(lambda key: erase(key, clip, 0.25)))(keys(400)))
    places = (erased != 9).any((1, 4))
    assert ((erased != 9) == places[:, None, :, :, None]).all()
    hit = places.any((1, 2))
    assert hit.mean() == pytest.approx(0.25, abs=0.09)  # 4 standard deviations.
    areas = places[hit].mean((1, 2))
    assert 0.01 < areas.min() < 0.05 < 0.28 < areas.max() < 0.36
    assert areas.mean() == pytest.approx((0.02 + 1 / 3) / 2, abs=0.03)
    rows, columns = places[hit].any(2), places[hit].any(1)
    assert (places[hit] == rows[:, :, None] & columns[:, None, :]).all()
    assert 0.25 < (columns.sum(1) / rows.sum(1)).min() < 1 < (columns.sum(1) / rows.sum(1)).max() < 4
    values = erased[erased != 9]
    assert (values.mean(), values.std()) == pytest.approx((0, 1), abs=0.02)
    assert len(np.unique(values)) > 0.9 * values.size  # Another value for each pixel and frame.


@pytest.fixture(scope="module")
def chain():
    return jax.jit(partial(augment, config=FULL, size=(SIZE, SIZE)))


CANVASES = noise(8, 4, 36, 60, 3)
VALID = jnp.array(
    [[36, 60, 0], [36, 50, 1], [36, 36, 0], [20, 60, 0], [1, 60, 0], [36, 1, 1], [2, 3, 0], [1, 1, 0]]
)


def test_whole_chain(chain):
    results = [np.asarray(chain(jax.random.key(seed), jnp.asarray(CANVASES), VALID)) for seed in range(20)]
    for clips in results:
        assert (clips.shape, clips.dtype) == ((8, 4, SIZE, SIZE, 3), np.float32)
        assert np.isfinite(clips).all()
    assert all((results[0] != other).any((1, 2, 3, 4))[:4].all() for other in results[1:])


def test_chain_is_a_function_of_key_and_clip(chain):
    video = jnp.asarray(CANVASES)
    first = np.asarray(chain(jax.random.key(5), video, VALID))
    assert (first == chain(jax.random.key(5), video, VALID)).all()
    others = np.asarray(chain(jax.random.key(5), video.at[1:].set(0), VALID))
    assert (others[0] == first[0]).all()


def test_compiled_or_not_is_the_same():
    args = jax.random.key(5), jnp.asarray(CANVASES[0]), VALID[0], PLAIN, (SIZE, SIZE)
    compiled = jax.jit(augment_clip, static_argnums=(3, 4))(*args)
    assert np.abs(augment_clip(*args) - compiled).max() < 1e-5


def test_nothing_outside_of_the_valid_part_gets_in(chain):
    outside = np.ones(CANVASES.shape, bool)
    for place, (height, width, _) in enumerate(VALID.tolist()):
        outside[place, :, :height, :width] = False
    for seed in range(20):
        pair = [
            chain(jax.random.key(seed), jnp.asarray(np.where(outside, filled, CANVASES)), VALID)
            for filled in (np.uint8(0), np.uint8(255))
        ]
        assert (pair[0] == pair[1]).all()


def test_each_device_works_on_its_own_clips():
    program = Path(__file__).with_name("augment_mesh_run.py")
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=600)
    assert not done.returncode, done.stderr
    augmented, cropped = map(json.loads, done.stdout.splitlines())
    assert augmented["difference"] < 1e-5
    assert cropped["difference"] <= 1  # A rounding.
    assert [found["collected"] for found in (augmented, cropped)] == [0, 0]
    assert [found["clips_per_device"] for found in (augmented, cropped)] == [2, 2]
