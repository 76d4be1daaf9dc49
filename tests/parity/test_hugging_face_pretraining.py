"""A folder that transformers wrote gives the same loss and prediction here."""

import jax
import numpy as np
import pytest

from videomae_jax.checkpoints.source import read_pretraining
from videomae_jax.models.pretraining import VideoMAEForPreTraining

torch = pytest.importorskip("torch", reason="torch is not installed (the parity group of pyproject.toml)")
transformers = pytest.importorskip("transformers", reason="transformers is not installed (the parity group)")


@pytest.mark.parametrize(("mean_pooling", "bias"), [(False, True), (True, True), (False, False)])
def test_a_transformers_folder_gives_the_same_numbers(tmp_path, mean_pooling, bias):
    torch.manual_seed(0)
    config = transformers.VideoMAEConfig(
        image_size=32, patch_size=8, num_frames=8, hidden_size=48, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=96, decoder_hidden_size=32, decoder_num_hidden_layers=2,
        decoder_num_attention_heads=2, decoder_intermediate_size=64, use_mean_pooling=mean_pooling,
        qv_bias=bias,
    )  # fmt: skip
    theirs = transformers.VideoMAEForPreTraining(config).eval()
    for parameter in theirs.parameters():  # so that a forgotten bias or norm shows
        parameter.data += 0.1 * torch.randn_like(parameter)
    theirs.save_pretrained(tmp_path)

    rng = np.random.default_rng(0)
    clip = rng.normal(size=(2, 8, 3, 32, 32)).astype(np.float32)
    mask = np.stack([rng.permutation(64) < 48 for _ in range(2)])
    with torch.no_grad():
        wanted = theirs(torch.from_numpy(clip), torch.from_numpy(mask))

    config, params = read_pretraining(str(tmp_path))
    assert config.encoder_norm is not mean_pooling
    model = VideoMAEForPreTraining(config)
    outputs = jax.jit(lambda params, clip: model.apply({"params": params}, clip, mask))(
        params, clip.transpose(0, 1, 3, 4, 2)
    )
    np.testing.assert_allclose(outputs.logits, wanted.logits.numpy(), rtol=0, atol=2e-5)
    np.testing.assert_allclose(outputs.loss, wanted.loss.item(), rtol=1e-5)
