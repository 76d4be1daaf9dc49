"""Clips that are not square: as a setting, in every form of a checkpoint, and to transformers."""

import json
from dataclasses import replace

import numpy as np
import pytest
from tiny_models import CONFIG, make

from videomae_jax import VideoMAEConfig, VideoMAEForPreTraining, VideoMAEImageProcessor, VideoMAEModel
from videomae_jax.checkpoints.config_json import read_config
from videomae_jax.errors import InputError
from videomae_jax.models.patches import patchify, unpatchify

WIDE = replace(CONFIG, image_size=(16, 40))


def test_equal_sides_are_one_number_and_lists_of_json_are_pairs():
    assert VideoMAEConfig(image_size=(224, 224)) == VideoMAEConfig() == VideoMAEConfig(image_size=[224])
    assert VideoMAEConfig(image_size=[160, 224]).image_size == (160, 224)
    assert VideoMAEConfig(image_size=[160, 224]).grid == (8, 10, 14)
    assert VideoMAEConfig().frame_size == (224, 224)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((230, 224), r"the height 230 of image_size=\(230, 224\) is not .* the nearest are 224 and 240$"),
        ((224, 8), r"the width 8 of image_size=\(224, 8\) is not .*patch_size=16.* the nearest is 16$"),
        ((224, 224, 3), "must be one number, or height and width"),
        ("224", "must be a whole number"),
        ((224, 0), "image_size=0 must be 1 or more"),
        (None, "must be a whole number"),
    ],
)
def test_what_cannot_be_is_refused(given, said):
    with pytest.raises(ValueError, match=said):
        VideoMAEConfig(image_size=given)


@pytest.mark.parametrize(
    ("given", "said"),
    [([230, 224], "nearest are 224 and 240"), ([16, "x"], "must be a whole number"), (None, "whole number")],
)
def test_a_wrong_size_in_config_json_is_told(tmp_path, given, said):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "videomae", "image_size": given}))
    with pytest.raises(InputError, match=said):
        read_config(tmp_path)


def test_tubelets_go_back_to_their_places():
    video = np.random.default_rng(0).normal(size=(2, 4, 16, 40, 3)).astype(np.float32)
    tubelets = patchify(video, WIDE)
    assert tubelets.shape == (2, WIDE.num_tokens, WIDE.values_per_tubelet)
    np.testing.assert_array_equal(unpatchify(tubelets, WIDE), video)


def test_folders_say_height_and_width(tmp_path):
    model, params = make(VideoMAEModel, WIDE)
    model.save_pretrained(tmp_path, params)
    again, _ = VideoMAEModel.from_pretrained(tmp_path)
    assert again.config.frame_size == (16, 40)
    processor = VideoMAEImageProcessor.from_pretrained(tmp_path)
    assert processor.crop_size == {"height": 16, "width": 40}
    frames = [np.random.default_rng(0).integers(0, 256, (32, 90, 3), np.uint8)] * 4
    assert processor(frames).pixel_values.shape == (1, 4, 16, 40, 3)
    assert "| clip | 4 frames of 16 x 40 pixels" in (tmp_path / "README.md").read_text()


def test_square_weights_are_run_on_clips_that_are_not(tmp_path, caplog):
    model, params = make(VideoMAEForPreTraining, CONFIG)
    model.save_pretrained(tmp_path, params)
    wide, _ = VideoMAEForPreTraining.from_pretrained(tmp_path, image_size=(16, 40))
    assert (wide.config.grid, wide.config.position_grid) == ((2, 2, 5), (2, 2, 2))
    assert "4 frames of 16x16, and is run on 4 frames of 16x40" in caplog.text
    assert wide.processing.crop_size == {"height": 16, "width": 40}


def test_transformers_computes_the_same(tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed (the parity group of pyproject.toml)")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    model, params = make(VideoMAEForPreTraining, WIDE)
    model.save_pretrained(tmp_path, params)
    theirs = transformers.VideoMAEForPreTraining.from_pretrained(tmp_path).eval()
    theirs.decoder.norm.eps = WIDE.decoder_norm_eps
    clip = np.random.default_rng(1).normal(size=(2, 4, 16, 40, 3)).astype(np.float32)
    mask = np.tile(np.arange(WIDE.num_tokens) % 4 > 0, (2, 1))
    with torch.no_grad():
        wanted = theirs(torch.from_numpy(clip.transpose(0, 1, 4, 2, 3)), torch.from_numpy(mask))
    found = model.apply({"params": params}, clip, mask)
    np.testing.assert_allclose(found.logits, wanted.logits.numpy(), atol=2e-5)
    np.testing.assert_allclose(found.loss, wanted.loss.item(), rtol=1e-5)
