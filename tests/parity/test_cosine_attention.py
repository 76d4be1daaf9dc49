"""Cosine attention and layer scale, as published with VideoMAE V2, against their equations in PyTorch.

Of a block: x + gamma_1 attn(norm1(x)), then x + gamma_2 mlp(norm2(x)); the scores of a head are the cosines
of queries and keys times exp(min(scale, 4.6052)). Nothing of this package is in the equations but the table
of positions and the targets, which other tests compare.
"""

import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from videomae_jax import VideoMAEConfig, VideoMAEForPreTraining, VideoMAEForVideoClassification
from videomae_jax.checkpoints.architecture import expected_shapes
from videomae_jax.checkpoints.names import original_from_tree, tree_from_original
from videomae_jax.models.blocks import Block
from videomae_jax.models.patches import gather, patchify
from videomae_jax.models.pixels import denormalize, tubelet_targets
from videomae_jax.models.position import position_table

torch = pytest.importorskip("torch", reason="torch is not installed (the extra convert)")
F = torch.nn.functional

PLAIN = VideoMAEConfig(
    image_size=16, patch_size=4, num_frames=4, hidden_size=24, num_hidden_layers=3, num_attention_heads=4,
    intermediate_size=40, decoder_hidden_size=16, decoder_num_hidden_layers=2, decoder_num_attention_heads=2,
    decoder_intermediate_size=24, num_labels=5,
)  # fmt: skip
KINDS = {
    "both": {"cosine_attention": True, "layer_scale": 0.1},
    "cosine attention": {"cosine_attention": True},
    "layer scale": {"layer_scale": 0.1},
    "neither": {},
}


@pytest.fixture(params=KINDS, name="config")
def config_of_kind(request):
    return replace(PLAIN, **KINDS[request.param])


def random_tensors(config, kind):
    rng = np.random.default_rng(0)
    tensors = {name: 0.3 * rng.normal(size=shape) for name, shape in expected_shapes(config, kind).items()}
    for name in tensors:
        if name.endswith("attn.scale"):  # Around what training begins with, and one beyond the clamp.
            tensors[name] = tensors[name] + math.log(10)
            tensors[name][0] = 5.0
    return {name: tensor.astype(np.float32) for name, tensor in tensors.items()}


def linear(weights, name, x):
    return F.linear(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"))


def norm(weights, name, x):
    return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-6)


def attention(weights, name, x, heads):
    b, n, width = x.shape
    bias = torch.cat([weights[f"{name}.q_bias"], torch.zeros(width), weights[f"{name}.v_bias"]])
    joined = F.linear(x, weights[f"{name}.qkv.weight"], bias)
    q, k, v = joined.reshape(b, n, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
    if (scale := weights.get(f"{name}.scale")) is None:
        scores = (q * (width // heads) ** -0.5) @ k.transpose(-2, -1)
    else:
        cosines = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)
        scores = cosines * torch.clamp(scale, max=4.6052).exp()
    mixed = (scores.softmax(dim=-1) @ v).transpose(1, 2).reshape(b, n, width)
    return linear(weights, f"{name}.proj", mixed)


def blocks(weights, stack, x, depth, heads):
    for layer in range(depth):
        name = f"{stack}.blocks.{layer}"
        one, two = (weights.get(f"{name}.gamma_{number}", torch.ones(())) for number in (1, 2))
        x = x + one * attention(weights, f"{name}.attn", norm(weights, f"{name}.norm1", x), heads)
        hidden = F.gelu(linear(weights, f"{name}.mlp.fc1", norm(weights, f"{name}.norm2", x)))
        x = x + two * linear(weights, f"{name}.mlp.fc2", hidden)
    return x


def encoded(weights, config, video, visible=None):
    patch = weights["encoder.patch_embed.proj.weight"]
    x = F.conv3d(
        video.permute(0, 4, 1, 2, 3), patch, weights["encoder.patch_embed.proj.bias"], patch.shape[2:]
    )
    x = x.flatten(2).transpose(1, 2) + torch.tensor(np.asarray(position_table(config, config.hidden_size)))
    x = x if visible is None else torch.stack([row[ids] for row, ids in zip(x, visible, strict=True)])
    return blocks(weights, "encoder", x, config.num_hidden_layers, config.num_attention_heads)


def predicted(weights, config, video, visible, masked):
    x = norm(weights, "encoder.norm", encoded(weights, config, video, visible))
    x = linear(weights, "encoder_to_decoder", x)
    table = torch.tensor(np.asarray(position_table(config, config.decoder_hidden_size)))
    x = torch.cat([x + table[visible], weights["mask_token"] + table[masked]], dim=1)
    x = blocks(weights, "decoder", x, config.decoder_num_hidden_layers, config.decoder_num_attention_heads)
    return linear(weights, "decoder.head", norm(weights, "decoder.norm", x[:, -masked.shape[1] :]))


def classified(weights, config, video):
    return linear(weights, "head", norm(weights, "fc_norm", encoded(weights, config, video).mean(dim=1)))


def compare_gradients(weights, gradients, config):
    found = original_from_tree(jax.tree.map(np.asarray, gradients), config)
    assert found.keys() == weights.keys()
    for name, theirs in weights.items():
        allowed = 1e-5 * max(1, float(theirs.grad.abs().max()))
        np.testing.assert_allclose(found[name], theirs.grad.numpy(), atol=allowed, err_msg=name)


def leaves(tensors):
    return {name: torch.tensor(tensor, requires_grad=True) for name, tensor in tensors.items()}


def test_pre_training(config):
    tensors, rng = random_tensors(config, "pretraining"), np.random.default_rng(1)
    weights, params = leaves(tensors), tree_from_original(tensors)
    video = rng.normal(size=(2, 4, 16, 16, 3)).astype(np.float32)
    order = np.stack([rng.permutation(32) for _ in range(2)])
    visible, masked = np.sort(order[:, :8]), np.sort(order[:, 8:])
    model = VideoMAEForPreTraining(config)

    def loss(params):
        out = model.apply({"params": params}, video, (jnp.asarray(visible), jnp.asarray(masked)))
        return out.loss, out.logits

    (ours, logits), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    theirs = predicted(weights, config, torch.tensor(video), torch.tensor(visible), torch.tensor(masked))
    np.testing.assert_allclose(logits, theirs.detach().numpy(), atol=1e-5)
    targets = torch.tensor(np.asarray(targets_of(model, video, masked)))
    error = ((theirs - targets) ** 2).mean()
    assert float(ours) == pytest.approx(error.item(), rel=1e-5)
    error.backward()
    compare_gradients(weights, gradients, config)


def targets_of(model, video, masked):
    tubelets = jnp.asarray(patchify(video, model.config))
    return tubelet_targets(denormalize(gather(tubelets, jnp.asarray(masked))), 3, True)


def test_classification(config):
    tensors, rng = random_tensors(config, "classification"), np.random.default_rng(1)
    weights, params = leaves(tensors), tree_from_original(tensors)
    video, weighting = (rng.normal(size=shape).astype(np.float32) for shape in ((2, 4, 16, 16, 3), (2, 5)))

    def loss(params):
        logits = VideoMAEForVideoClassification(config).apply({"params": params}, video).logits
        return (weighting * logits).sum(), logits

    (_, logits), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    theirs = classified(weights, config, torch.tensor(video))
    np.testing.assert_allclose(logits, theirs.detach().numpy(), atol=1e-5)
    (torch.tensor(weighting) * theirs).sum().backward()
    compare_gradients(weights, gradients, config)


@pytest.mark.parametrize("backend", ["xla", "blockwise"])
@pytest.mark.parametrize("num_queries", [520, 600])
def test_long_sequences_in_every_way(backend, num_queries):
    config = replace(PLAIN, cosine_attention=True, layer_scale=0.1, attention=backend)
    rng, width = np.random.default_rng(0), config.hidden_size
    x = rng.normal(size=(1, 600, width)).astype(np.float32)
    tensors = random_tensors(config, "encoder")
    tensors = {name: tensor for name, tensor in tensors.items() if ".blocks.0." in name}
    stacked = tree_from_original(tensors)["encoder"]["blocks"]
    one = jax.tree.map(lambda leaf: leaf[0], stacked)
    ours = Block(config, 4, config.intermediate_size).apply({"params": one}, jnp.asarray(x), num_queries)
    theirs = blocks(leaves(tensors), "encoder", torch.tensor(x), 1, 4)[:, -num_queries:]
    np.testing.assert_allclose(ours, theirs.detach().numpy(), atol=1e-5)


def test_what_training_begins_with():
    config = replace(PLAIN, cosine_attention=True, layer_scale=0.1)
    params = VideoMAEForPreTraining(config).init_params(jax.random.key(0))
    for stack, depth, width, heads in (("encoder", 3, 24, 4), ("decoder", 2, 16, 2)):
        block = params[stack]["blocks"]
        first = np.full((depth, heads, 1, 1), math.log(10), np.float32)
        np.testing.assert_allclose(block["attn"]["scale"], first, rtol=1e-6)
        for name in ("gamma_1", "gamma_2"):
            np.testing.assert_array_equal(block[name], np.full((depth, width), np.float32(0.1)))
    plain = jax.eval_shape(VideoMAEForPreTraining(PLAIN).init_params, jax.random.key(0))
    count, without = (sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in (params, plain))
    assert count - without == 3 * (2 * 24 + 4) + 2 * (2 * 16 + 2)


def test_a_query_of_zeros_has_a_finite_gradient():
    config = replace(PLAIN, cosine_attention=True)
    block = Block(config, 4, 40)
    params = jax.jit(block.init)(jax.random.key(0), jnp.ones((1, 3, 24)))["params"]
    params["attn"]["qkv"]["kernel"] = jnp.zeros_like(params["attn"]["qkv"]["kernel"])
    x = jax.random.normal(jax.random.key(1), (1, 3, 24))
    gradients = jax.jit(jax.grad(lambda params: block.apply({"params": params}, x).sum()))(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
