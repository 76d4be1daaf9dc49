"""VideoMAE V2's own numbers with dual masking: its running cells, prediction, loss and gradients."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from einops import rearrange
from golden_files import check_gradients, same_places
from safetensors.numpy import load_file

from videomae_jax.checkpoints.names import original_from_tree, tree_from_original
from videomae_jax.config import VideoMAEConfig
from videomae_jax.models.masking import DualMask, mask_indices, running_cells
from videomae_jax.models.patches import gather, patchify
from videomae_jax.models.pixels import normalize
from videomae_jax.models.pretraining import VideoMAEForPreTraining, masked_losses


class Golden:
    def __init__(self, folder):
        self.meta = json.loads((folder / "v2_pretrain.json").read_text())
        self.io, self.grads, tensors = (
            load_file(folder / f"v2_pretrain_{name}.safetensors") for name in ("io", "grads", "init")
        )
        m = self.meta["model"]
        self.config = VideoMAEConfig(
            image_size=m["img_size"],
            patch_size=m["patch_size"],
            num_frames=m["all_frames"],
            hidden_size=m["encoder_embed_dim"],
            num_hidden_layers=m["encoder_depth"],
            num_attention_heads=m["encoder_num_heads"],
            intermediate_size=int(m["encoder_embed_dim"] * m["mlp_ratio"]),
            decoder_hidden_size=m["decoder_embed_dim"],
            decoder_num_hidden_layers=m["decoder_depth"],
            decoder_num_attention_heads=m["decoder_num_heads"],
            decoder_intermediate_size=int(m["decoder_embed_dim"] * m["mlp_ratio"]),
        )
        self.model = VideoMAEForPreTraining(self.config)
        self.params = tree_from_original(tensors)
        self.video = jnp.asarray(rearrange(self.io["video_uint8"], "b c t h w -> b t h w c"))
        masked, undecoded = self.io["encoder_mask"], self.io["decoder_mask"]
        visible, _ = mask_indices(masked)
        decoded, _ = mask_indices(undecoded)
        counted = np.take_along_axis(masked, np.asarray(decoded), axis=1)
        self.mask = DualMask(visible, decoded, jnp.asarray(counted))


@pytest.fixture(scope="module")
def golden(golden_folder):
    return Golden(golden_folder / "golden_v2")


def test_the_four_running_cells_are_those_of_the_original(golden):
    left = np.ones((4, golden.config.num_tokens), bool)
    np.put_along_axis(left, running_cells(golden.config.grid, 0.5), False, axis=1)
    theirs = golden.io["all_running_cell_maps_ratio_0.5"].reshape(4, -1)
    np.testing.assert_array_equal(left, theirs)


def test_prediction(golden):
    tubelets = gather(patchify(normalize(golden.video), golden.config), golden.mask.visible)
    predict = jax.jit(partial(golden.model.apply, method="predict"))
    have = predict({"params": golden.params}, tubelets, golden.mask.visible, golden.mask.decoded)
    want = golden.io["prediction"]
    np.testing.assert_allclose(same_places(have, want), want, rtol=0, atol=1e-5)


def test_loss_and_gradients_of_every_tensor(golden):
    def loss(params):
        return masked_losses(golden.model, params, golden.video, golden.mask)[0].mean()

    value, grads = jax.jit(jax.value_and_grad(loss))(golden.params)
    np.testing.assert_allclose(value, golden.meta["loss"], rtol=1e-5)
    grads = original_from_tree(jax.tree.map(np.asarray, grads), golden.config)
    check_gradients(grads, golden.grads, 1e-5)


def test_places_that_the_encoder_sees_do_not_count(golden):
    """They are decoded, and a loss that counted them would be another."""
    losses, zero = masked_losses(golden.model, golden.params, golden.video, golden.mask)
    all_count = golden.mask._replace(counted=jnp.ones_like(golden.mask.counted))
    other, other_zero = masked_losses(golden.model, golden.params, golden.video, all_count)
    assert (losses != other).all()
    assert (zero != other_zero).all()
