"""The cross-attention decoder: what is masked sees what is visible, and nothing of what else is masked."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import CLIP, CONFIG, make, same

from videomae_jax import VideoMAEForPreTraining, VideoMAEModel
from videomae_jax.checkpoints.architecture import expected_shapes
from videomae_jax.config import SIZES
from videomae_jax.errors import InputError
from videomae_jax.models.flops import pretraining_flops
from videomae_jax.models.masking import DualMask
from videomae_jax.models.position import position_table
from videomae_jax.models.pretraining import masked_losses

CROSS = replace(CONFIG, decoder_type="cross")
VISIBLE = jnp.asarray([[1, 4, 6]] * 2)
MASKED = jnp.asarray([[0, 2, 3, 5, 7]] * 2)


def random_tubelets(config):
    return jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, config.values_per_tubelet)), jnp.float32)


def predict(config, params, masked):
    predicted = jax.jit(partial(VideoMAEForPreTraining(config).apply, method="predict"))
    return predicted({"params": params}, random_tubelets(config), VISIBLE, masked)


@pytest.mark.parametrize(("config", "independent"), [(CROSS, True), (CONFIG, False)], ids=["cross", "self"])
def test_a_prediction_does_not_depend_on_what_else_is_masked(config, independent):
    _, params = make(VideoMAEForPreTraining, config)
    whole = predict(config, params, MASKED)
    one, some = predict(config, params, MASKED[:, 2:3]), predict(config, params, MASKED[:, [0, 2, 4]])
    assert np.allclose(one[:, 0], whole[:, 2], atol=1e-6) == independent
    assert np.allclose(some, whole[:, [0, 2, 4]], atol=1e-6) == independent


def test_every_block_is_attention_to_the_visible_tokens_alone():
    """By hand in NumPy: keys and values of each block are of the same visible tokens."""
    model, params = make(VideoMAEForPreTraining, CROSS)
    encoded = model.bind({"params": params}).encode(random_tubelets(CROSS), VISIBLE)
    table = np.asarray(position_table(CROSS, CROSS.decoder_hidden_size))
    seen = np.asarray(encoded) @ params["encoder_to_decoder"]["kernel"] + table[VISIBLE]
    x = params["mask_token"] + table[MASKED]
    blocks = jax.tree.map(np.asarray, params["decoder"]["blocks"])
    for layer in range(CROSS.decoder_num_hidden_layers):
        x = by_hand(jax.tree.map(lambda leaf, layer=layer: leaf[layer], blocks), x, seen)
    x = norm(params["decoder"]["norm"], x)
    expected = x @ params["decoder"]["head"]["kernel"] + params["decoder"]["head"]["bias"]
    np.testing.assert_allclose(predict(CROSS, params, MASKED), expected, atol=1e-5)


def norm(params, x):
    centred = x - x.mean(axis=-1, keepdims=True)
    deviation = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-6)
    return centred / deviation * params["scale"] + params["bias"]


def by_hand(block, x, seen, heads=2):
    width = x.shape[-1]
    q, _, _ = np.split(norm(block["norm1"], x) @ block["attn"]["qkv"]["kernel"], 3, axis=-1)
    _, k, v = np.split(norm(block["norm1"], seen) @ block["attn"]["qkv"]["kernel"], 3, axis=-1)
    q, v = q + block["attn"]["q_bias"], v + block["attn"]["v_bias"]
    q, k, v = (each.reshape(*each.shape[:2], heads, width // heads) for each in (q, k, v))
    scores = np.einsum("bmke,bnke->bkmn", q, k) / np.sqrt(width // heads)
    shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
    shares = shares / shares.sum(axis=-1, keepdims=True)
    mixed = np.einsum("bkmn,bnke->bmke", shares, v).reshape(x.shape)
    x = x + mixed @ block["attn"]["proj"]["kernel"] + block["attn"]["proj"]["bias"]
    hidden = norm(block["norm2"], x) @ block["mlp"]["fc1"]["kernel"] + block["mlp"]["fc1"]["bias"]
    hidden = np.asarray(jax.nn.gelu(hidden, approximate=False))
    return x + hidden @ block["mlp"]["fc2"]["kernel"] + block["mlp"]["fc2"]["bias"]


def test_it_has_the_tensors_of_the_other_and_learns(tmp_path):
    """And with a running cell: the loss of the places that it decodes is that among all of them."""
    assert expected_shapes(CROSS, "pretraining") == expected_shapes(CONFIG, "pretraining")
    model, params = make(VideoMAEForPreTraining, CROSS)
    video = jnp.asarray(np.random.default_rng(1).integers(0, 256, (2, 4, 16, 16, 3), np.uint8))
    half = DualMask(VISIBLE, MASKED[:, :2], jnp.ones((2, 2), bool))

    @jax.jit
    def loss(params, mask):
        return masked_losses(model, params, video, mask)[0].mean()

    gradient = jax.jit(jax.grad(loss))
    gradients = gradient(params, (VISIBLE, MASKED))
    assert all(np.any(leaf) for leaf in jax.tree.leaves(gradients["decoder"]))
    assert all(np.any(leaf) for leaf in jax.tree.leaves(gradients["encoder"]["blocks"]))
    rest = DualMask(VISIBLE, MASKED[:, 2:], jnp.ones((2, 3), bool))
    parts = 2 * loss(params, half) + 3 * loss(params, rest)
    assert float(loss(params, (VISIBLE, MASKED))) == pytest.approx(float(parts) / 5, rel=1e-5)
    recomputed = VideoMAEForPreTraining(replace(CROSS, remat=True))
    again = jax.jit(jax.grad(lambda params: masked_losses(recomputed, params, video, half)[0].mean()))(params)
    once = gradient(params, half)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), again, once)


def test_no_folder_is_written_for_transformers(tmp_path):
    model, params = make(VideoMAEForPreTraining, CROSS)
    with pytest.raises(InputError, match="a cross-attention decoder, which transformers cannot build"):
        model.save_pretrained(tmp_path / "a", params)
    assert not (tmp_path / "a").exists()
    encoder = VideoMAEModel(replace(CROSS, use_mean_pooling=False))
    encoder.save_pretrained(tmp_path / "b", {"encoder": params["encoder"]})
    assert same(VideoMAEModel.from_pretrained(tmp_path / "b")[1], {"encoder": params["encoder"]})
    assert VideoMAEForPreTraining(CROSS).apply({"params": params}, CLIP, (VISIBLE, MASKED)).loss > 0


@pytest.mark.parametrize(
    ("size", "plain", "dual", "cross", "both"),
    [("small", 21.1, 13.8, 13.2, 10.7), ("base", 66.7, 47.7, 48.6, 39.9),
     ("large", 160.3, 131.0, 134.1, 119.2),
     ("huge", 266.8, 237.5, 240.6, 225.7), ("giant", 519.8, 475.4, 478.2, 457.5)],
)  # fmt: skip
def test_operations(size, plain, dual, cross, both):
    """GFLOP of a clip forward, with V2's decoders of four layers."""
    ours = replace(SIZES[size], decoder_num_hidden_layers=4)
    if size == "huge":
        ours = replace(
            ours, decoder_hidden_size=512, decoder_num_attention_heads=8, decoder_intermediate_size=2048
        )
    crossing = replace(ours, decoder_type="cross")
    kinds = (ours, 0), (ours, 0.5), (crossing, 0), (crossing, 0.5)
    found = [pretraining_flops(each, decoder_mask_ratio=ratio).forward / 1e9 for each, ratio in kinds]
    assert found == pytest.approx([plain, dual, cross, both], abs=0.06)
