"""The original VideoMAE code's own numbers: encoder, prediction, targets, gradients, six training steps."""

import json
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from einops import rearrange
from golden_files import check_gradients, same_places
from safetensors.numpy import load_file

from videomae_jax.checkpoints.names import original_from_tree, tree_from_original
from videomae_jax.config import OptimConfig, PretrainConfig, VideoMAEConfig
from videomae_jax.models.masking import mask_indices
from videomae_jax.models.patches import gather, patchify
from videomae_jax.models.pixels import normalize, tubelet_targets
from videomae_jax.models.pretraining import VideoMAEForPreTraining, masked_losses
from videomae_jax.training.objectives.pretraining import Pretraining
from videomae_jax.training.state import init_state
from videomae_jax.training.step import optimizer_step


class Golden:
    def __init__(self, folder):
        self.meta = json.loads((folder / "pretrain.json").read_text())
        self.io = load_file(folder / "pretrain_io.safetensors")
        self.tensors, self.after, self.grads = (
            load_file(folder / f"pretrain_{name}.safetensors")
            for name in ("init", "after_6_steps", "grads_step0")
        )
        self.init = tree_from_original(self.tensors)
        m = self.meta["model"]
        self.config = VideoMAEConfig(
            image_size=m["img_size"],
            patch_size=m["patch_size"],
            num_frames=m["num_frames"],
            hidden_size=m["encoder_embed_dim"],
            num_hidden_layers=m["encoder_depth"],
            num_attention_heads=m["encoder_num_heads"],
            intermediate_size=m["encoder_embed_dim"] * m["mlp_ratio"],
            decoder_hidden_size=m["decoder_embed_dim"],
            decoder_num_hidden_layers=m["decoder_depth"],
            decoder_num_attention_heads=m["decoder_num_heads"],
            decoder_intermediate_size=m["decoder_embed_dim"] * m["mlp_ratio"],
        )
        self.model = VideoMAEForPreTraining(self.config)
        self.videos = jnp.asarray(rearrange(self.io["videos_uint8"], "s b c t h w -> s b t h w c"))
        self.masks = [mask_indices(mask) for mask in self.io["masks"]]


@pytest.fixture(scope="module")
def golden(golden_folder):
    return Golden(golden_folder / "golden_v1")


def check(have, want, atol):
    np.testing.assert_allclose(same_places(have, want), want, rtol=0, atol=atol)


def test_encoder_output_and_prediction(golden):
    visible, masked = golden.masks[0]
    tubelets = gather(patchify(normalize(golden.videos[0]), golden.config), visible)
    variables = {"params": golden.init}
    apply = jax.jit(golden.model.apply, static_argnames="method")
    encoded = apply(variables, tubelets, visible, method="encode")
    check(encoded, golden.io["encoder_out_step0"], atol=1e-5)
    predicted = apply(variables, tubelets, visible, masked, method="predict")
    check(predicted, golden.io["prediction_step0"], atol=1e-5)


@pytest.mark.parametrize(("norm", "name", "atol"), [(False, "raw", 1e-6), (True, "normalized", 5e-5)])
def test_targets(golden, norm, name, atol):
    tubelets = patchify(jnp.asarray(golden.videos[0]), golden.config)
    targets = tubelet_targets(tubelets, 3, norm)
    check(targets, golden.io[f"targets_step0_{name}"], atol=atol)


def test_gradients_of_every_tensor(golden):
    loss = lambda params: masked_losses(golden.model, params, golden.videos[0], golden.masks[0])[0].mean()  # noqa: E731
    grads = jax.tree.map(np.asarray, jax.jit(jax.grad(loss))(golden.init))
    grads = original_from_tree(grads, golden.config)
    check_gradients(grads, golden.grads, 2e-5)


@pytest.mark.parametrize("accumulation_steps", [1, 2])
def test_six_optimizer_steps(golden, accumulation_steps):
    adamw = golden.meta["adamw"]
    optim = OptimConfig(
        betas=tuple(adamw["betas"]),
        eps=adamw["eps"],
        weight_decay=adamw["weight_decay"],
        accumulation_steps=accumulation_steps,
    )
    task = Pretraining(PretrainConfig(model=golden.config, optim=optim))
    rates = jnp.asarray(golden.meta["lr_schedule"])
    step = jax.jit(partial(optimizer_step, loss=task.loss, optim=optim, schedule=lambda step: rates[step]))
    state = init_state(optim, jax.tree.map(jnp.asarray, golden.init))
    losses, norms = [], []
    for video, mask in zip(golden.videos, golden.masks, strict=True):
        state, metrics = step(state, (video, mask), jax.random.key(0))
        losses.append(metrics["loss"])
        norms.append(metrics["grad_norm"])
    np.testing.assert_allclose(losses, golden.meta["losses"], rtol=1e-5)
    np.testing.assert_allclose(norms, golden.meta["grad_norms"], rtol=1e-5)
    after = original_from_tree(jax.tree.map(np.asarray, state.params), golden.config)
    for name, want in golden.after.items():
        have = same_places(after[name], want)
        np.testing.assert_allclose(have, want, rtol=0, atol=5e-6, err_msg=name)


def test_public_call_agrees_with_the_training_path(golden):
    outputs = golden.model.apply({"params": golden.init}, normalize(golden.videos[0]), golden.io["masks"][0])
    np.testing.assert_allclose(outputs.loss, golden.meta["losses"][0], rtol=1e-5)
    check(outputs.logits, golden.io["prediction_step0"], atol=1e-5)


def test_raw_pixel_loss_differs(golden):
    model = VideoMAEForPreTraining(replace(golden.config, norm_pix_loss=False))
    error, zero = masked_losses(model, golden.init, golden.videos[0], golden.masks[0])
    cut = "b c (t a) (h p) (w q) -> b (t h w) (a p q c)"
    sizes = {"a": golden.config.tubelet_size, "p": golden.config.patch_size, "q": golden.config.patch_size}
    targets = rearrange(golden.io["videos_uint8"][0] / 255, cut, **sizes)
    check(targets, golden.io["targets_step0_raw"], atol=1e-6)
    mask = golden.io["masks"][0]
    predicted = golden.model.apply({"params": golden.init}, normalize(golden.videos[0]), mask).logits
    raw = targets[mask].reshape(predicted.shape)
    np.testing.assert_allclose(zero.mean(), np.mean(raw**2), rtol=1e-6)
    np.testing.assert_allclose(error.mean(), np.mean((raw - predicted) ** 2), rtol=1e-5)


def test_names_go_there_and_back(golden):
    back = original_from_tree(golden.init, golden.config)
    assert back.keys() == golden.tensors.keys()
    for name, tensor in golden.tensors.items():
        assert np.array_equal(back[name], tensor), name
