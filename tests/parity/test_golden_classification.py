"""The original code's classifiers: features and logits of V1 and V2, and six training steps of V1."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from einops import rearrange
from golden_files import same_places
from safetensors.numpy import load_file

from videomae_jax.checkpoints.names import original_from_tree, original_names, tree_from_original
from videomae_jax.config import OptimConfig, VideoMAEConfig
from videomae_jax.models.classification import VideoMAEForVideoClassification
from videomae_jax.models.pixels import normalize
from videomae_jax.training.objectives.finetuning import soft_cross_entropy
from videomae_jax.training.optimizer import layer_scales
from videomae_jax.training.state import init_state
from videomae_jax.training.step import optimizer_step

GOLDENS = ["golden_v1/classify_mean", "golden_v1/classify_first_token", "golden_v2/v2_classify"]


class Golden:
    def __init__(self, folder, name):
        self.said = json.loads((folder / f"{name}.json").read_text())
        m = self.said["model"]
        self.model = VideoMAEForVideoClassification(
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
        self.io = load_file(folder / f"{name}_io.safetensors")
        self.params = tree_from_original(original_names(self._init(folder, name)))
        if "video_uint8" in self.io:
            videos = self.io["video_uint8"][None]
        else:  # Both classifiers of V1 and the pre-training were shown the same.
            videos = load_file(folder / "golden_v1/pretrain_io.safetensors")["videos_uint8"]
        self.clips = [normalize(rearrange(video, "b c t h w -> b t h w c")) for video in videos]

    @staticmethod
    def _init(folder, name):
        """The classifier of the first token starts as that of the mean does; its norm has another name."""
        tensors = load_file(folder / f"{name.replace('first_token', 'mean')}_init.safetensors")
        if name.endswith("first_token"):
            tensors = {each.replace("fc_norm.", "norm."): tensor for each, tensor in tensors.items()}
        return tensors


@pytest.mark.parametrize("name", GOLDENS)
def test_features_and_logits(golden_folder, name):
    golden = Golden(golden_folder, name)
    model, io = golden.model, golden.io
    assert jax.tree.structure(golden.params) == jax.tree.structure(
        jax.eval_shape(model.init_params, jax.random.key(0))
    )
    variables = {"params": golden.params}
    logits = model.apply(variables, golden.clips[0]).logits
    np.testing.assert_allclose(logits, io.get("logits_step0", io.get("logits")), rtol=0, atol=1e-5)
    if "features_step0" in io:
        features, _ = model.apply(variables, golden.clips[0], method="features")
        np.testing.assert_allclose(features, io["features_step0"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", GOLDENS[:2])
def test_six_optimizer_steps_with_layer_decay(golden_folder, name):
    golden = Golden(golden_folder, name)
    adamw, rates = golden.said["adamw"], jnp.asarray(golden.said["lr_schedule"])
    optim = OptimConfig(betas=tuple(adamw["betas"]), eps=adamw["eps"], weight_decay=adamw["weight_decay"])

    def loss(params, batch, key):
        clips, targets = batch
        return soft_cross_entropy(golden.model.apply({"params": params}, clips).logits, targets).mean()

    step = jax.jit(
        partial(
            optimizer_step,
            loss=loss,
            optim=optim,
            schedule=lambda step: rates[step],
            lr_scales=layer_scales(golden.params, adamw["layer_decay"]),
        )
    )
    state, losses = init_state(optim, jax.tree.map(jnp.asarray, golden.params)), []
    for batch in zip(golden.clips, golden.io["soft_targets"], strict=True):
        state, metrics = step(state, batch, jax.random.key(0))
        losses.append(metrics["loss"])
    np.testing.assert_allclose(losses, golden.said["losses"], rtol=1e-5)
    wanted = original_names(load_file(golden_folder / f"{name}_after_6_steps.safetensors"))
    reached = original_from_tree(jax.tree.map(np.asarray, state.params), golden.model.config)
    assert reached.keys() == wanted.keys()
    for each, want in wanted.items():
        have = same_places(reached[each], want)
        np.testing.assert_allclose(have, want, rtol=0, atol=5e-6, err_msg=each)
