"""Pictures hold the frames they claim to hold, and say what they must."""

import json

import numpy as np
import pytest
from PIL import Image

from videomae_jax.inference.pictures import draw_animation, draw_strip, save_gif
from videomae_jax.inference.reconstruction.reconstruct import Reconstruction, rows_of
from videomae_jax.training.reporting.curve import draw_curves

CAPTION = ("first line", "second line")


@pytest.fixture
def result():
    rng = np.random.default_rng(0)
    videos = [np.full((16, 32, 32, 3), rng.integers(0, 100, 3), np.uint8) for _ in range(3)]
    for video in videos:
        video += 9 * np.arange(16, dtype=np.uint8)[:, None, None, None]  # No two frames are alike.
    return Reconstruction(*videos, loss=0.5, zero_loss=1.0, pixel_error=0.01)


def contains(picture, frame, scale):
    """Whether an enlarged frame of one colour lies somewhere in the picture."""
    match = (np.asarray(picture) == frame[0, 0]).all(-1)
    return match.sum() == (scale * len(frame)) ** 2


def test_strip_shows_first_to_last_frame_of_all_three(result):
    strip = draw_strip(rows_of(result), "title", CAPTION)
    for video in (result.original, result.masked, result.reconstruction):
        assert contains(strip, video[0], 4)
        assert contains(strip, video[-1], 4)
        assert sum(contains(strip, frame, 4) for frame in video) == 8


def test_caption_is_drawn_and_never_cut(result):
    bare, told = (np.asarray(draw_strip(rows_of(result), "title", lines)) for lines in ((), CAPTION))
    assert told.shape[0] > bare.shape[0]
    assert (told[bare.shape[0] :] < 100).any()
    wide = draw_strip(rows_of(result), "title", ("word " * 100,))
    assert (np.asarray(wide)[:, -12:] == 255).all()
    assert wide.width > told.shape[1]


def test_animation_has_every_frame(result, tmp_path):
    frames = draw_animation(rows_of(result), CAPTION)
    assert len(frames) == 16
    for number, frame in enumerate(frames):
        for video in (result.original, result.masked, result.reconstruction):
            assert contains(frame, video[number], 6)
    save_gif(tmp_path / "a.gif", frames, 0.125)
    with Image.open(tmp_path / "a.gif") as read:
        assert (read.n_frames, read.info["duration"], read.info["loop"]) == (16, 120, 0)
        read.seek(9)
        shown = np.asarray(read.convert("RGB")).astype(int)
    assert np.abs(shown - np.asarray(frames[9]).astype(int)).mean() < 8


def test_curve_draws_what_there_is(tmp_path):
    assert draw_curves(tmp_path) is None
    rows = [{"step": step, "loss": 1 / step, "lr": 1e-3} for step in range(1, 20)]
    rows[5]["loss"] = None  # Not finite.
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    without = np.asarray(Image.open(draw_curves(tmp_path)))
    rows[9] |= {"val_loss": 0.5, "val_zero_loss": 0.9}
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    held_out = np.asarray(Image.open(draw_curves(tmp_path)))
    assert without.shape == held_out.shape == (624, 960, 4)
    assert (without != held_out).any()
