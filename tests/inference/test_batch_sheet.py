"""The contact sheet shows the frames that it claims to, of fine-tuning and of pre-training."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from videomae_jax.config import load_config
from videomae_jax.data.synthetic import write_synthetic_videos
from videomae_jax.inference.batch_sheet import draw_batch, show_batch
from videomae_jax.models.pixels import normalize


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    return write_synthetic_videos(tmp_path_factory.mktemp("shapes"), train_per_class=1, val_per_class=1)[0]


def test_sheet_has_six_frames_of_each_clip(tmp_path):
    video = np.zeros((2, 16, 32, 32, 3), np.uint8)
    video += (np.arange(32, dtype=np.uint8) * 7 + 20).reshape(2, 16, 1, 1, 1)  # No two frames are alike,
    video[..., 0] = 200  # and none is grey, as text is.
    draw_batch(tmp_path / "sheet.png", np.asarray(normalize(video)), ["first", "second " * 100])
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    shown = [[(sheet == frame[0, 0]).all(-1).sum() == 128 * 128 for frame in clip] for clip in video]
    assert [np.flatnonzero(clip).tolist() for clip in shown] == [[0, 3, 6, 9, 12, 15]] * 2
    assert (sheet[:, -12:] == 255).all()  # The long title is not cut.
    assert sheet.shape[1] > 2000


def test_fine_tuning_batch(videos, tmp_path, capsys):
    config = load_config("tiny_finetune")
    classes = str(videos.with_name("classes.txt"))
    config = replace(config, data=replace(config.data, train=(str(videos),), classes=classes))
    assert show_batch(config, tmp_path / "new" / "sheet.png", steps=2) == 0
    assert "with 16 rows" in capsys.readouterr().out
    sheet = np.asarray(Image.open(tmp_path / "new" / "sheet.png"))
    assert sheet.shape[0] > 16 * 128
    assert len(np.unique(sheet)) > 100


@pytest.mark.parametrize("pixels", ["rgb", "planes"])
def test_pre_training_batch_with_masks(videos, tmp_path, capsys, pixels):
    config = load_config("tiny")
    config = replace(config, data=replace(config.data, train=(str(videos),), pixels=pixels), batch_size=2)
    show_batch(config, tmp_path / "sheet.png")
    rows = 2 * 2 * config.data.num_sample
    assert f"with {rows} rows" in capsys.readouterr().out
    grey = (np.asarray(Image.open(tmp_path / "sheet.png")) == 128).all(-1).sum()
    hidden = rows / 2 * 6 * 128 * 128 * config.mask_ratio
    assert grey == pytest.approx(hidden, rel=0.15)
