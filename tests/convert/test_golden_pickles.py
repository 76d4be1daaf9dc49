"""The original code's own .pth files, converted, give the numbers that the original recorded."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from einops import rearrange
from safetensors.numpy import load_file

from videomae_jax import VideoMAEForPreTraining, VideoMAEForVideoClassification
from videomae_jax.models.pixels import normalize


def pixels(video):
    return normalize(jnp.asarray(rearrange(video, "b c t h w -> b t h w c")))


@pytest.mark.parametrize("form", ["hf", "orbax"])
def test_pretraining(convert, reference, tmp_path, form):
    golden = reference / "golden_v1"
    flags = ("--num-heads", 4, "--decoder-num-heads", 2, "--image-size", 32)
    code, said = convert(golden / "pretrain_init.pth", tmp_path / "a", "--to", form, *flags)
    assert code == 0, said
    io, meta = (
        load_file(golden / "pretrain_io.safetensors"),
        json.loads((golden / "pretrain.json").read_text()),
    )
    model, params = VideoMAEForPreTraining.from_pretrained(tmp_path / "a")
    outputs = model.apply({"params": params}, pixels(io["videos_uint8"][0]), io["masks"][0])
    np.testing.assert_allclose(outputs.loss, meta["losses"][0], rtol=1e-5)
    np.testing.assert_allclose(outputs.logits, io["prediction_step0"], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("folder", "name", "video", "logits"),
    [
        ("golden_v1", "classify_mean", "videos_uint8", "logits_step0"),
        ("golden_v2", "v2_classify", "video_uint8", "logits"),
    ],
)
def test_classifiers(convert, reference, tmp_path, folder, name, video, logits):
    golden = reference / folder
    flags = ("--num-heads", 4, "--image-size", 32)
    code, said = convert(golden / f"{name}_init.pth", tmp_path / "a", "--to", "hf", *flags)
    assert code == 0, said
    io, meta = load_file(golden / f"{name}_io.safetensors"), json.loads((golden / f"{name}.json").read_text())
    clips = io[video] if io[video].ndim == 5 else io[video][0]
    model, params = VideoMAEForVideoClassification.from_pretrained(tmp_path / "a")
    have = model.apply({"params": params}, pixels(clips)).logits
    np.testing.assert_allclose(have, io[logits], rtol=0, atol=1e-5)
    if "losses" in meta:
        loss = -(io["soft_targets"][0] * jax.nn.log_softmax(have)).sum(axis=-1).mean()
        np.testing.assert_allclose(loss, meta["losses"][0], rtol=1e-5)
