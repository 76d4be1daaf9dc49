"""The model's promises: what flows where, what is refused, and how parameters start."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from videomae_jax.config import SIZES, VideoMAEConfig, load_config
from videomae_jax.hardware import Hardware
from videomae_jax.models.compiled_for import compiling_for
from videomae_jax.models.encoder import VideoMAEModel
from videomae_jax.models.masking import tube_mask
from videomae_jax.models.patches import patchify, unpatchify
from videomae_jax.models.pixels import tubelet_targets
from videomae_jax.models.position import sinusoid_table
from videomae_jax.models.pretraining import VideoMAEForPreTraining, masked_losses

CONFIG = load_config("tiny").model
MODEL = VideoMAEForPreTraining(CONFIG)


@pytest.fixture(scope="module")
def params():
    return jax.jit(VideoMAEForPreTraining(CONFIG).init_params)(jax.random.key(0))


@pytest.fixture(scope="module")
def clip():
    return jax.random.normal(jax.random.key(1), (2, 8, 32, 32, 3))


@pytest.fixture(scope="module")
def mask():
    return tube_mask(jax.random.key(2), np.zeros((2, 1, 1, 1, 3)), CONFIG.grid, 0.75)


def test_no_gradient_reaches_hidden_pixels_through_the_encoder(params, clip, mask):
    visible, masked = mask

    def predicted(clip):
        return jnp.sum(MODEL.apply({"params": params}, clip, mask).logits ** 2)

    grads = np.asarray(patchify(jax.jit(jax.grad(predicted))(clip), CONFIG))
    hidden = np.take_along_axis(grads, np.asarray(masked)[:, :, None], 1)
    shown = np.take_along_axis(grads, np.asarray(visible)[:, :, None], 1)
    assert (hidden == 0).all()
    assert (np.abs(shown).max(axis=2) > 0).all(), "every visible tubelet must matter"
    loss_grads = jax.jit(jax.grad(lambda clip: MODEL.apply({"params": params}, clip, mask).loss))(clip)
    hidden = np.take_along_axis(np.asarray(patchify(loss_grads, CONFIG)), np.asarray(masked)[:, :, None], 1)
    assert (hidden == 0).all(), "targets carry no gradient"


def test_every_parameter_gets_a_gradient(params, clip, mask):
    grads = jax.jit(jax.grad(lambda params: MODEL.apply({"params": params}, clip, mask).loss))(params)
    for path, grad in jax.tree_util.tree_leaves_with_path(grads):
        layers = grad if "blocks" in jax.tree_util.keystr(path) else grad[None]
        for layer, each in enumerate(layers):
            assert np.abs(each).max() > 0, f"{jax.tree_util.keystr(path)} layer {layer}"


def test_remat_changes_nothing(params, clip, mask):
    remat = VideoMAEForPreTraining(replace(CONFIG, remat=True))
    grads = [
        jax.jit(jax.grad(lambda params, model=model: model.apply({"params": params}, clip, mask).loss))(
            params
        )
        for model in (MODEL, remat)
    ]
    for one, other in zip(*map(jax.tree.leaves, grads), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


@pytest.mark.skipif(jax.__version_info__ < (0, 9), reason="jax before 0.9 has no bfloat16 on a CPU")
def test_bfloat16_stays_close_and_keeps_float32_parameters(params, clip, mask):
    half = VideoMAEForPreTraining(replace(CONFIG, dtype="bfloat16"))
    exact, rounded = (jax.jit(model.apply)({"params": params}, clip, mask) for model in (MODEL, half))
    assert rounded.logits.dtype == jnp.bfloat16
    assert rounded.loss.dtype == jnp.float32
    assert abs(float(exact.loss - rounded.loss)) < 0.02
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}


ON_A_GPU = Hardware("gpu", "NVIDIA H100 80GB HBM3", 9.0)


def test_targets_are_exact_on_every_device_and_need_no_product_on_a_gpu():
    tubelets = jax.random.randint(jax.random.key(0), (2, 5, 384), 0, 256, jnp.uint8)
    pixels = np.asarray(tubelets, np.float64).reshape(2, 5, 128, 3)
    mean, std = pixels.mean(2, keepdims=True), pixels.std(2, ddof=1, keepdims=True)
    exact = ((pixels - mean) / (std + 255e-6)).reshape(2, 5, 384)
    for there in (Hardware("cpu", "cpu"), ON_A_GPU):
        with compiling_for(there):
            program = jax.make_jaxpr(lambda tubelets: tubelet_targets(tubelets, 3, True))(tubelets)
            targets = tubelet_targets(tubelets, 3, norm_pix_loss=True)
        by_products = "dot_general" in str(program)
        assert by_products == (there != ON_A_GPU)
        # Products of JAX 0.7 add one value after the other, and are off by 2e-6.
        one_by_one = by_products and jax.__version_info__ < (0, 9)
        np.testing.assert_allclose(targets, exact, rtol=0, atol=4e-6 if one_by_one else 1e-6)


@pytest.mark.parametrize("there", [Hardware("cpu", "cpu"), ON_A_GPU])
def test_flat_tubelets_have_exactly_zero_targets(params, mask, there):
    for level in (0, 17, 255):
        flat = jnp.full((1, 5, 384), level, jnp.uint8)
        with compiling_for(there):
            assert (tubelet_targets(flat, 3, norm_pix_loss=True) == 0).all()
    letterbox = jnp.full((2, 8, 32, 32, 3), 16, jnp.uint8)
    assert float(masked_losses(MODEL, params, letterbox, mask)[1].max()) == 0
    normalised = jnp.full((2, 8, 32, 32, 3), jnp.float32(-1.8431373))
    predicted = MODEL.apply({"params": params}, normalised, mask)
    assert float(predicted.loss) == pytest.approx(float(jnp.mean(predicted.logits**2)), rel=1e-6)


def test_patchify_is_undone_and_ordered():
    video = np.arange(2 * 8 * 32 * 32 * 3).reshape(2, 8, 32, 32, 3)
    tubelets = patchify(video, CONFIG)
    assert np.array_equal(unpatchify(tubelets, CONFIG), video)
    second = video[0, 0:2, 0:8, 8:16]  # the second tubelet lies to the right of the first
    assert np.array_equal(tubelets[0, 1], second.ravel())


def test_positions_are_float64_sines_of_the_flat_index():
    table = sinusoid_table(1568, 768)
    assert table.dtype == np.float32
    assert table[1567, 0] == np.float32(np.sin(1567.0))
    assert table[1567, 1] == np.float32(np.cos(1567.0))
    assert table[100, 6] == np.float32(np.sin(100 / 10000 ** (6 / 768)))


def test_parameters_start_as_the_original_draws_them():
    config = replace(SIZES["small"], num_hidden_layers=2, decoder_num_hidden_layers=2)
    params = jax.jit(VideoMAEForPreTraining(config).init_params)(jax.random.key(0))

    def bound(kernel, expected):
        assert float(jnp.abs(kernel).max()) == pytest.approx(expected, rel=0.01)
        assert float(kernel.std()) == pytest.approx(expected / 3**0.5, rel=1.5 / kernel.size**0.5 + 0.002)

    blocks = params["encoder"]["blocks"]
    bound(blocks["attn"]["qkv"]["kernel"], (6 / (4 * 384)) ** 0.5)  # the fused matrix: fan 384 + 1152
    bound(blocks["mlp"]["fc1"]["kernel"], (6 / (384 + 1536)) ** 0.5)
    bound(params["encoder"]["patch_embed"]["proj"]["kernel"], 1536**-0.5)
    bound(params["encoder"]["patch_embed"]["proj"]["bias"], 1536**-0.5)
    bound(params["encoder_to_decoder"]["kernel"], 384**-0.5)
    bound(params["decoder"]["head"]["kernel"], (6 / (192 + 1536)) ** 0.5)
    assert float(jnp.abs(params["mask_token"]).max()) <= 0.02
    assert float(params["mask_token"].std()) == pytest.approx(0.02 * 0.54, rel=0.15)
    assert not jnp.array_equal(blocks["mlp"]["fc1"]["kernel"][0], blocks["mlp"]["fc1"]["kernel"][1])
    assert all((leaf == 0).all() for leaf in (blocks["attn"]["q_bias"], blocks["mlp"]["fc2"]["bias"]))


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ((2, 4, 32, 32, 3), "take 8 frames"),
        ((2, 8, 3, 32, 32), r"channels-first; use video.transpose\(0, 1, 3, 4, 2\)"),
        ((2, 3, 8, 32, 32), r"channels-first; use video.transpose\(0, 2, 3, 4, 1\)"),
        ((2, 8, 30, 30, 3), "multiples of the patch size 8"),
        ((2, 8, 40, 40, 3), "resize the clip to 32"),
        ((8, 32, 32, 3), r"leading batch axis, video\[None\]"),
        ((2, 8, 32, 32, 4), "built for 3 channels"),
    ],
)
def test_clips_that_do_not_fit_are_refused(params, mask, shape, says):
    with pytest.raises(ValueError, match=says) as error:
        MODEL.apply({"params": params}, np.zeros(shape, np.float32), mask)
    assert str(shape) in str(error.value)
    assert "(b, 8, 32, 32, 3)" in str(error.value)


def test_a_mask_of_another_grid_is_refused(params, clip):
    with pytest.raises(ValueError, match="the mask covers 1568 tokens, but a clip has 64 = 4 x 4 x 4"):
        MODEL.apply({"params": params}, clip, tube_mask(jax.random.key(0), clip, (8, 14, 14), 0.9))


def test_sizes_that_do_not_divide_are_refused_by_the_config():
    with pytest.raises(ValueError, match="hidden_size=770 is not a multiple of num_attention_heads=12"):
        VideoMAEConfig(hidden_size=770)


def test_the_bare_encoder_sees_all_tokens(clip):
    config = replace(CONFIG, use_mean_pooling=False)
    model = VideoMAEModel(config)
    variables = jax.jit(model.init)(jax.random.key(0), clip)
    assert model.apply(variables, clip).last_hidden_state.shape == (2, 64, 48)
    assert "norm" in variables["params"]["encoder"]
