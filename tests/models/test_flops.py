"""The count of operations: against published figures, and against the compiler's where it can count."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest

from videomae_jax.config import SIZES, PretrainConfig, VideoMAEConfig
from videomae_jax.hardware import peak_flops
from videomae_jax.models.classification import VideoMAEForVideoClassification
from videomae_jax.models.flops import (
    Flops,
    classification_flops,
    flops_per_clip,
    masked_tokens,
    pretraining_flops,
)
from videomae_jax.models.masking import sample_mask
from videomae_jax.models.pretraining import VideoMAEForPreTraining

V2_DECODER = {"decoder_num_hidden_layers": 4}


@pytest.mark.parametrize(
    ("size", "forward", "train"),
    [("small", 21.1, 63.1), ("base", 66.7, 199.7), ("large", 279.5, 838.0), ("huge", 467.7, 1402.5)],
)
def test_pretraining(size, forward, train):
    flops = pretraining_flops(SIZES[size], 0.9, "tube")
    assert flops.forward / 1e9 == pytest.approx(forward, rel=0.005)
    assert flops.train / 1e9 == pytest.approx(train, rel=0.005)


@pytest.mark.parametrize(
    ("size", "forward", "train"),
    [("small", 113.8, 339), ("base", 360.7, 1078), ("large", 1194, 3576), ("huge", 2382, 7140),
     ("giant", 5086, 15250)],
)  # fmt: skip
def test_classification(size, forward, train):
    flops = classification_flops(replace(SIZES[size], num_labels=400))
    assert flops.forward / 1e9 == pytest.approx(forward, rel=0.005)
    assert flops.train / 1e9 == pytest.approx(train, rel=0.005)


@pytest.mark.parametrize("kind", ["tube", "random", "frame", "motion"])
@pytest.mark.parametrize("ratio", [0.3, 0.75, 0.9])
def test_masked_tokens_are_those_that_are_drawn(kind, ratio):
    config = VideoMAEConfig(image_size=48, num_frames=12)
    clip = jax.ShapeDtypeStruct((1, 12, 48, 48, 3), "uint8")
    _, masked = jax.eval_shape(
        lambda key, video: sample_mask(kind, key, video, config.grid, ratio), jax.random.key(0), clip
    )
    assert masked_tokens(config, ratio, kind) == masked.shape[1]


# With one scanned layer each, the body that the compiler counts once is all there is. Wide, so that the
# products, which alone are counted analytically, outweigh norms and the like.
NARROW_LAYERS = VideoMAEConfig(
    num_hidden_layers=1,
    decoder_num_hidden_layers=2,
    decoder_hidden_size=768,
    decoder_num_attention_heads=12,
    decoder_intermediate_size=3072,
    num_labels=1000,
    attention="xla",  # The others loop over blocks.
)


def counted(function, *shapes):
    return jax.jit(function).lower(*shapes).compile().cost_analysis()["flops"]


def shape(*sizes, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(sizes, dtype)


def test_the_compiler_counts_as_much_for_pretraining():
    config = NARROW_LAYERS
    model = VideoMAEForPreTraining(config)
    params = jax.eval_shape(model.init_params, jax.random.key(0))
    masked = masked_tokens(config, 0.9, "tube")
    visible = config.num_tokens - masked
    forward = counted(
        lambda params, *args: model.apply({"params": params}, *args, method="predict"),
        params,
        shape(1, visible, config.values_per_tubelet),
        shape(1, visible, dtype=jnp.int32),
        shape(1, masked, dtype=jnp.int32),
    )
    assert pretraining_flops(config).forward == pytest.approx(forward, rel=0.05)


def test_the_compiler_counts_as_much_for_classification():
    config = NARROW_LAYERS
    model = VideoMAEForVideoClassification(config)
    params = jax.eval_shape(model.init_params, jax.random.key(0))
    forward = counted(
        lambda params, clips: model.apply({"params": params}, clips).logits,
        params,
        shape(1, config.num_frames, config.image_size, config.image_size, 3),
    )
    assert classification_flops(config).forward == pytest.approx(forward, rel=0.05)


def test_a_dual_mask_decodes_half():
    """51.6 GFLOP forward for ViT-B if all blocks of the decoder had 944 queries; the last one has 784."""
    config = SIZES["base"]
    flops = pretraining_flops(config, 0.9, "tube", 0.5)
    assert flops.forward / 1e9 == pytest.approx(47.7, rel=0.005)
    assert flops == flops_per_clip(PretrainConfig(config, decoder_mask_ratio=0.5))
    assert flops.forward < 0.72 * pretraining_flops(config).forward


def test_every_mask_of_a_clip_counts():
    config = PretrainConfig(SIZES["base"], num_masks=3)
    once = pretraining_flops(SIZES["base"])
    assert flops_per_clip(config) == Flops(once.forward, 3 * once.train)


@pytest.mark.parametrize(
    ("device_kind", "peak"),
    [("NVIDIA H100 80GB HBM3", 989e12), ("NVIDIA H100 PCIe", 756e12), ("NVIDIA A100-SXM4-40GB", 312e12),
     ("TPU v5 lite", 197e12), ("TPU v5", 459e12), ("TPU v5p", 459e12), ("cpu", None), ("NVIDIA L40S", None)],
)  # fmt: skip
def test_the_peak_of_a_device(device_kind, peak):
    assert peak_flops(device_kind) == peak
