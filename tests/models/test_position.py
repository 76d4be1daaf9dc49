"""Positions of clips of another size than the weights learned: resized, remembered, and told."""

from dataclasses import replace
from math import prod

import numpy as np
import pytest
from tiny_models import CLIP

from videomae_jax import VideoMAEConfig, VideoMAEForPreTraining, VideoMAEModel
from videomae_jax.models.position import interpolation, position_table, resized_table, sinusoid_table

GRID = (8, 14, 14)
SIZES = [(8, 20, 20), (16, 14, 14), (4, 14, 14), (8, 7, 28), (12, 10, 18), (1, 3, 40)]


def nearest_rows(table, before, after):
    """The share of places whose row lies nearest to the row of their own place in the table learned."""
    learned = sinusoid_table(prod(before), table.shape[1])
    scale = np.array(before) / np.array(after)
    places = np.stack(np.unravel_index(np.arange(prod(after)), after), -1)
    near = np.argmax(table @ learned.T, axis=1)
    there = np.stack(np.unravel_index(near, before), -1)
    return np.mean((np.abs((places + 0.5) * scale - 0.5 - there) <= 0.5001).all(axis=1))


def test_the_table_of_the_same_size_is_the_original():
    config = VideoMAEConfig()
    assert position_table(config, 768) is sinusoid_table(1568, 768)
    named = replace(config, position_grid=GRID)
    assert position_table(named, 768) is sinusoid_table(1568, 768)


@pytest.mark.parametrize("after", SIZES)
def test_resizing_is_that_of_torch(after):
    torch = pytest.importorskip("torch", reason="torch is not installed (the parity group of pyproject.toml)")
    table = np.random.default_rng(0).standard_normal((prod(GRID), 24), np.float32)
    ours = resized_table(table, GRID, after)
    volume = torch.from_numpy(table).reshape(*GRID, -1).permute(0, 3, 1, 2)
    resize = torch.nn.functional.interpolate
    in_space = resize(volume, size=after[1:], mode="bicubic", align_corners=False).permute(2, 3, 1, 0)
    in_time = resize(in_space.flatten(0, 1), size=after[0], mode="linear", align_corners=False)
    theirs = in_time.permute(2, 0, 1).reshape(ours.shape)
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("after", SIZES[:5])
def test_rows_of_a_resized_table_stay_at_their_places(after):
    """A fresh table, whose index runs on from row to row, scrambles them."""
    assert nearest_rows(resized_table(sinusoid_table(prod(GRID), 768), GRID, after), GRID, after) > 0.9
    assert nearest_rows(sinusoid_table(prod(after), 768), GRID, after) < 0.7


@pytest.mark.parametrize("cubic", [False, True])
def test_what_is_the_same_everywhere_stays_the_same(cubic):
    for have, want in ((1, 5), (2, 7), (5, 2), (14, 20)):
        np.testing.assert_allclose(interpolation(have, want, cubic=cubic).sum(axis=1), 1, atol=1e-12)


@pytest.mark.parametrize(
    ("given", "said"),
    [((8, 14), "three whole numbers"), ((0, 1, 1), "of 1 or more"), ((1, 1.5, 1), "three"), (4, "three")],
)
def test_what_is_no_grid_is_refused(given, said):
    with pytest.raises(ValueError, match=said):
        VideoMAEConfig(position_grid=given)


def test_sizes_that_fit_are_named():
    with pytest.raises(ValueError, match=r"image_size=230 is not .*: the nearest are 224 and 240$"):
        VideoMAEConfig(image_size=230)
    with pytest.raises(ValueError, match=r"num_frames=1 is not .*: the nearest is 2$"):
        VideoMAEConfig(num_frames=1)


def test_a_second_change_starts_from_the_table_that_was_learned(tmp_path, pretrained, caplog):
    """Through Hugging Face's folder: 2 x 2 x 2, then 4 x 3 x 3, then back."""
    model, params = pretrained
    model.save_pretrained(tmp_path / "a", params)
    assert "position_grid" not in (tmp_path / "a/config.json").read_text()
    larger, kept = VideoMAEForPreTraining.from_pretrained(tmp_path / "a", num_frames=8, image_size=24)
    assert larger.config.position_grid == (2, 2, 2)
    caplog.clear()
    larger.save_pretrained(tmp_path / "b", kept)
    assert "transformers and the original code build one anew" in caplog.text
    caplog.clear()
    again, _ = VideoMAEForPreTraining.from_pretrained(tmp_path / "b")
    assert again.config == larger.config
    assert "resized" not in caplog.text, "as it was trained"
    assert VideoMAEConfig.from_pretrained(tmp_path / "b", num_frames=12).learned_grid == (2, 2, 2)
    back, _ = VideoMAEModel.from_pretrained(tmp_path / "b", num_frames=4, image_size=16)
    assert back.config.learned_grid == back.config.grid == (2, 2, 2)
    assert caplog.text.count("that for these clips again") == 1
    same, _ = VideoMAEModel.from_pretrained(tmp_path / "a")
    outputs = (
        each.apply({"params": {"encoder": kept["encoder"]}}, CLIP).last_hidden_state for each in (back, same)
    )
    np.testing.assert_array_equal(*outputs)


def test_a_fresh_table_is_to_be_had(tmp_path, pretrained, caplog):
    model, params = pretrained
    model.save_pretrained(tmp_path / "a", params)
    fresh, _ = VideoMAEModel.from_pretrained(tmp_path / "a", num_frames=8, position_grid=(4, 2, 2))
    assert position_table(fresh.config, 24) is sinusoid_table(16, 24)
    assert "OTHER POSITIONS" in caplog.text
