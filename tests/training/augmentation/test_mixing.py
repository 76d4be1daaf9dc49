"""Mixup and cutmix: each clip with its partner at the other end, and targets in the same shares."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from videomae_jax.config import AugmentConfig
from videomae_jax.training.augmentation.mixing import group_size, mix, soft_targets

BATCH, SIDE = 6, 24


CLIPS = np.random.default_rng(0).normal(size=(BATCH, 2, SIDE, SIDE, 3)).astype(np.float32)
TARGETS = np.asarray(soft_targets(jnp.arange(BATCH), BATCH, 0.1))


@pytest.fixture(scope="module")
def by_kind():
    """(clips, targets) of 400 keys, by what was done to them."""
    config = AugmentConfig(mix_prob=0.75)
    one = partial(mix, clips=jnp.asarray(CLIPS), targets=jnp.asarray(TARGETS), config=config)
    kinds = {"none": [], "mixup": [], "cutmix": []}
    results = jax.device_get(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(1), 400)))
    for clips, targets in zip(*results, strict=True):
        kind = "cutmix" if ((clips == CLIPS) | (clips == CLIPS[::-1])).all() else "mixup"
        kinds["none" if (clips == CLIPS).all() else kind].append((clips, targets))
    return kinds


def weight_of(targets):
    """The share of a clip's own target, from a mixed target of the first clip."""
    on, off = 0.9 + 0.1 / BATCH, 0.1 / BATCH
    return (targets[0, 0] - off) / (on - off)


def test_soft_targets():
    targets = np.asarray(soft_targets(jnp.array([2, 0]), 4, 0.1))
    assert targets == pytest.approx(np.array([[0.025, 0.025, 0.925, 0.025], [0.925, 0.025, 0.025, 0.025]]))
    assert (np.asarray(soft_targets(jnp.array([1]), 3, 0.0)) == [[0, 1, 0]]).all()


def test_kinds_are_drawn_with_their_chances(by_kind):
    shares = [len(by_kind[kind]) / 400 for kind in ("none", "mixup", "cutmix")]
    assert shares == pytest.approx([0.25, 0.375, 0.375], abs=0.1)  # 4 standard deviations.


def test_batches_that_are_not_mixed_keep_their_targets(by_kind):
    assert all((targets == TARGETS).all() for _, targets in by_kind["none"])


def test_mixup_weighs_clips_as_targets(by_kind):
    weights = []
    for clips, targets in by_kind["mixup"]:
        weights.append(weight_of(targets))
        for found, alone in ((clips, CLIPS), (targets, TARGETS)):
            assert np.allclose(found, weights[-1] * alone + (1 - weights[-1]) * alone[::-1], atol=1e-5)
        assert np.allclose(targets.sum(1), 1, atol=1e-5)
    assert np.mean(weights) == pytest.approx(0.5, abs=0.1)
    # The variance of Beta(a, a) is 1 / (8 a + 4).
    assert np.var(weights) == pytest.approx(1 / 10.4, rel=0.3)


def test_cutmix_takes_the_area_that_targets_say(by_kind):
    weights = []
    for clips, targets in by_kind["cutmix"]:
        other = (clips == CLIPS[::-1]).all((0, 1, 4))
        assert ((clips == CLIPS).all((0, 1, 4)) ^ other).all()
        weights.append(weight_of(targets))
        assert 1 - other.mean() == pytest.approx(weights[-1], abs=1e-5)
        rows, columns = other.any(1), other.any(0)
        assert (other == rows[:, None] & columns).all()
        for line in (rows, columns):
            assert np.abs(np.diff(line.astype(int))).sum() <= 2
        assert np.allclose(targets.sum(1), 1, atol=1e-5)
    assert min(weights) < 0.4
    assert max(weights) > 0.9


@pytest.mark.parametrize("only", ["mixup", "cutmix"])
def test_one_kind_alone(only):
    config = AugmentConfig(**({"mixup": 0.0, "cutmix": 0.0} | {only: 1.0}))
    clips, _ = mix(jax.random.key(0), jnp.asarray(CLIPS), jnp.asarray(TARGETS), config)
    assert (clips != CLIPS).any()
    assert bool(((clips == CLIPS) | (clips == CLIPS[::-1])).all()) == (only == "cutmix")


@pytest.mark.parametrize("off", [{"mixup": 0.0, "cutmix": 0.0}, {"mix_prob": 0.0}], ids=str)
def test_off_changes_nothing(off):
    clips, targets = mix(jax.random.key(0), jnp.asarray(CLIPS), jnp.asarray(TARGETS), AugmentConfig(**off))
    assert (clips == CLIPS).all()
    assert (targets == TARGETS).all()


@pytest.mark.parametrize(
    ("batch", "group"), [(8, 8), (24, 24), (48, 24), (768, 24), (1024, 32), (31, 31), (50, 25)]
)
def test_groups_divide_the_batch(batch, group):
    assert group_size(batch, AugmentConfig().mix_group) == group


def test_groups_are_mixed_by_themselves():
    groups, clips = 40, np.tile(CLIPS, (40, 1, 1, 1, 1))
    targets = np.tile(TARGETS, (40, 1))
    config = AugmentConfig(mix_group=BATCH)
    mixed, weighed = jax.jit(partial(mix, config=config))(jax.random.key(2), clips, targets)
    weights = [weight_of(each) for each in np.split(np.asarray(weighed), groups)]
    assert len(set(weights)) > groups // 2
    for found, weight in zip(np.split(np.asarray(mixed), groups), weights, strict=True):
        of_partner = np.abs(found - CLIPS) > 1e-6
        by_cutmix = ((found == CLIPS) | (found == CLIPS[::-1])).all()
        expected = weight * CLIPS + (1 - weight) * CLIPS[::-1]
        assert by_cutmix or np.allclose(found, expected, atol=1e-5)
        assert of_partner.any() or weight == pytest.approx(1, abs=1e-5)
