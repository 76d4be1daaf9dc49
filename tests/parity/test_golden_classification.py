"""The original code's classifiers: features, logits and the first loss, of V1 and V2."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from einops import rearrange
from safetensors.numpy import load_file

from videomae_jax.checkpoints.names import strip_prefixes, tree_from_original
from videomae_jax.config import VideoMAEConfig
from videomae_jax.models.classification import VideoMAEForVideoClassification
from videomae_jax.models.pixels import normalize

GOLDENS = ["golden_v1/classify_mean", "golden_v1/classify_first_token", "golden_v2/v2_classify"]


@pytest.mark.parametrize("name", GOLDENS)
def test_features_and_logits(reference, name):
    said = json.loads((reference / f"{name}.json").read_text())
    m = said["model"]
    model = VideoMAEForVideoClassification(
        VideoMAEConfig(
            image_size=m["img_size"],
            patch_size=m["patch_size"],
            num_frames=m.get("num_frames", m.get("all_frames")),
            tubelet_size=m["tubelet_size"],
            hidden_size=m["embed_dim"],
            num_hidden_layers=m["depth"],
            num_attention_heads=m["num_heads"],
            intermediate_size=int(m["embed_dim"] * m["mlp_ratio"]),
            num_labels=m["num_classes"],
            use_mean_pooling=m.get("use_mean_pooling", True),
        )
    )
    io = load_file(reference / f"{name}_io.safetensors")
    params = tree_from_original(strip_prefixes(load_file(reference / f"{name}_init.safetensors")))
    assert jax.tree.structure(params) == jax.tree.structure(
        jax.eval_shape(model.init_params, jax.random.key(0))
    )
    videos = io.get("videos_uint8", io.get("video_uint8"))
    videos = videos if videos.ndim == 6 else videos[None]
    clip = normalize(jnp.asarray(rearrange(videos[0], "b c t h w -> b t h w c")))
    variables = {"params": params}
    logits = model.apply(variables, clip).logits
    np.testing.assert_allclose(logits, io.get("logits_step0", io.get("logits")), rtol=0, atol=1e-5)
    if "features_step0" in io:
        features, _ = model.apply(variables, clip, method="features")
        np.testing.assert_allclose(features, io["features_step0"], rtol=0, atol=1e-5)
    if "losses" in said:
        loss = -jnp.mean(jnp.sum(io["soft_targets"][0] * jax.nn.log_softmax(logits), axis=1))
        np.testing.assert_allclose(loss, said["losses"][0], rtol=1e-5)
