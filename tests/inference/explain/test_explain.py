"""Maps lie where the thing is that they are about, depend on the weights, and come as pictures."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from random_classifier import CONFIG, random_classifier, write_run

from videomae_jax import cli
from videomae_jax.inference.explain.explainer import Explainer, colours, heat, rank_correlation
from videomae_jax.inference.normalization import Normalization
from videomae_jax.models.maps import _mean_attention

SIDE, FRAMES = CONFIG.image_size, CONFIG.num_frames


@pytest.fixture
def clip():
    """A white square, one patch in size, that moves down at the left edge over a grey gradient."""
    clip = np.full((FRAMES, SIDE, SIDE, 3), 20, np.uint8) + np.arange(SIDE, dtype=np.uint8)[:, None] // 4
    for frame, time in zip(clip, range(FRAMES), strict=True):
        top = 8 * (time // CONFIG.tubelet_size) % SIDE
        frame[top : top + 8, :8] = 250
    return clip


def on_the_square(grid):
    """Whether each token of the grid (t h w) is the square."""
    t, h, _ = grid
    where = np.zeros(grid, bool)
    where[np.arange(t), np.arange(t) % h, 0] = True
    return where


@pytest.fixture(scope="module")
def bright():
    """A classifier whose first value of a token is its brightness, to which all attend."""
    model, params = random_classifier()
    embed, blocks = params["encoder"]["patch_embed"]["proj"], params["encoder"]["blocks"]
    embed["kernel"] = (0.01 * embed["kernel"]).at[:, 0].set(30 / embed["kernel"].shape[0])
    width = CONFIG.hidden_size // CONFIG.num_attention_heads
    keys = CONFIG.hidden_size + width * np.arange(CONFIG.num_attention_heads)
    kernel = 0.01 * blocks["attn"]["qkv"]["kernel"]
    blocks["attn"]["qkv"]["kernel"] = kernel.at[:, 0, keys].set(1.0)
    blocks["attn"]["q_bias"] = blocks["attn"]["q_bias"].at[:, keys - CONFIG.hidden_size].set(5.0)
    return model, params


@pytest.mark.parametrize("name", ["rollout", "class_map", "pca"])
def test_a_map_is_brightest_where_the_moving_square_is(bright, clip, name):
    found = Explainer(*(random_classifier() if name == "class_map" else bright), Normalization()).explain(
        clip
    )
    grid, where = getattr(found, name), on_the_square(CONFIG.grid)
    if name == "pca":  # A component's sign says nothing.
        grid = np.abs(grid[..., 0] - np.median(grid[..., 0]))
    assert grid[where].min() > grid[~where].max()


def test_other_weights_give_other_maps():
    clip = np.random.default_rng(0).integers(0, 256, (FRAMES, SIDE, SIDE, 3), np.uint8)
    found = Explainer(*random_classifier(), Normalization()).explain(clip)
    assert set(found.random) == {"rollout", "class_map", "pca"}
    assert max(found.random.values()) < 0.6
    assert found.rollout.mean() == pytest.approx(1, abs=1e-5)


def test_attention_is_that_of_the_model(clip):
    """The softmax that rollout is made of gives, times v, what the block's attention gives."""
    _, params = random_classifier()
    block = jax.tree.map(lambda leaf: leaf[0], params["encoder"]["blocks"])
    x = jax.random.normal(jax.random.key(1), (1, CONFIG.num_tokens, CONFIG.hidden_size))
    one_head = replace(CONFIG, num_attention_heads=1)
    weights = _mean_attention(one_head, block, x)
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)
    normed = (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + CONFIG.layer_norm_eps)
    q, k, _ = jnp.split(normed @ block["attn"]["qkv"]["kernel"], 3, axis=-1)
    q = q + block["attn"]["q_bias"]
    scores = jnp.einsum("bmd,bnd->bmn", q, k) / CONFIG.hidden_size**0.5
    np.testing.assert_allclose(weights, jax.nn.softmax(scores), rtol=1e-3, atol=1e-6)


def test_the_class_asked_for_is_explained_and_matters(clip):
    explainer = Explainer(*random_classifier(), Normalization())
    maps = [explainer.explain(clip, explainer.number_of(name)) for name in ("up", "grow")]
    assert [found.label for found in maps] == [2, 7]
    assert rank_correlation(maps[0].class_map, maps[1].class_map) < 0.999


def test_overlays_lie_over_their_places(clip):
    grid = on_the_square(CONFIG.grid).astype(float)
    seen = heat(np.zeros_like(clip), grid, CONFIG).mean(axis=-1)
    for time in range(FRAMES):
        row, column = np.unravel_index(seen[time].argmax(), seen[time].shape)
        assert clip[time, row, column, 0] == 250
    painted = colours(np.zeros_like(clip), np.stack([grid, 0 * grid, 0 * grid], axis=-1), CONFIG)
    assert painted[..., 0].max() > 150
    assert painted[..., 1:].max() == 0


def test_the_command_writes_pictures_that_move(video, pretrained, tmp_path, capsys):
    run = write_run(tmp_path / "run")
    for checkpoint, words in ((run, ["--label", "grow"]), (pretrained, [])):
        out = tmp_path / f"out{len(words)}"
        assert (
            cli.main(["explain", str(video), "--checkpoint", str(checkpoint), "--out", str(out), *words]) == 0
        )
        said = capsys.readouterr().out
        assert ("Class map: what bears on grow" in said) == bool(words)
        assert {path.name for path in out.iterdir()} == {
            f"{video.stem}.{kind}" for kind in ("png", "gif", "mp4")
        }
        with Image.open(out / f"{video.stem}.gif") as animation:
            assert animation.n_frames == FRAMES


def test_what_cannot_be_explained_is_said(video, pretrained, tmp_path, capsys):
    words = ["explain", str(video), "--out", str(tmp_path / "out"), "--checkpoint"]
    assert cli.main([*words, str(pretrained), "--label", "up"]) == 2
    assert "no class 'up'; its classes are none: it is no classifier" in capsys.readouterr().err
    assert cli.main([*words, str(write_run(tmp_path / "run")), "--label", "fly"]) == 2
    assert "no class 'fly'; its classes are left, right" in capsys.readouterr().err
