"""The published recipes: their settings, and that their files say what they hold."""

import ast
import re
from dataclasses import replace
from pathlib import Path

import pytest

from videomae_jax.config import SIZES, FinetuneConfig, PretrainConfig, load_config
from videomae_jax.training.optimizer import effective_lr

CONFIGS = Path(__file__).parents[1] / "configs"
# Recipe: epochs, batch, mask ratio, sampling rate, effective learning rate, recomputed blocks.
PUBLISHED = {
    "k400_small_1600e": (1600, 1024, 0.9, 4, 6e-4, False),
    "k400_base_800e": (800, 2048, 0.9, 4, 1.2e-3, False),
    "k400_base_1600e": (1600, 2048, 0.9, 4, 1.2e-3, False),
    "k400_large_1600e": (1600, 512, 0.9, 4, 3e-4, False),
    "k400_huge_1600e": (1600, 1024, 0.9, 4, 6e-4, True),
    "ssv2_small_2400e": (2400, 2048, 0.9, 2, 1.2e-3, False),
    "ssv2_base_800e": (800, 2048, 0.9, 2, 1.2e-3, False),
    "ssv2_base_2400e": (2400, 2048, 0.9, 2, 1.2e-3, False),
    "ucf101_base_3200e": (3200, 192, 0.75, 4, 2.25e-4, False),
    "hmdb51_base_4800e": (4800, 192, 0.75, 2, 2.25e-4, False),
}
# VideoMAE V2: epochs, batch, warm-up, effective rate, clipping, recomputed blocks.
DUAL_MASKED = {
    "v2_hybrid_base_200e": (200, 1024, 20, 4e-3, None, False),
    "v2_hybrid_large_300e": (300, 1536, 30, 6e-3, None, False),
    "v2_hybrid_huge_300e": (300, 2048, 30, 8e-3, None, True),
    "v2_hybrid_giant_300e": (300, 2048, 30, 4.8e-3, 0.02, True),
}
# Recipe: batch, clips per video, effective rate, least rate, layer decay, drop path, head dropout, decay,
# recomputed blocks.
FINE_TUNED = {
    "k400_small_150e": (384, 2, 7.5e-4, 1e-6, 0.75, 0.1, 0, 0.05, False),
    "k400_base_100e": (512, 1, 2e-3, 1e-6, 0.75, 0.1, 0, 0.05, False),
    "k400_base_75e": (384, 2, 7.5e-4, 1e-6, 0.75, 0.1, 0, 0.05, False),
    "k400_large_35e": (128, 2, 1e-3, 1e-6, 0.75, 0.1, 0, 0.05, False),
    "k400_huge_50e": (512, 2, 2e-3, 1e-5, 0.75, 0.2, 0.5, 0.05, True),
    "ssv2_small_40e": (384, 2, 1.5e-3, 1e-6, 0.7, 0.1, 0, 0.05, False),
    "ssv2_base_50e": (512, 1, 1e-3, 1e-6, 0.75, 0.1, 0, 0.05, False),
    "ssv2_base_30e": (384, 2, 7.5e-4, 1e-6, 0.75, 0.1, 0, 0.05, False),
    "ucf101_base_100e": (128, 2, 2.5e-4, 1e-5, 0.7, 0.2, 0.5, 0.05, True),
    "hmdb51_base_100e": (128, 2, 2.5e-4, 1e-5, 0.7, 0.2, 0.5, 0.05, True),
    "v2_k400_base_90e": (512, 2, 1.4e-3, 1e-6, 0.75, 0.1, 0, 0.05, False),
    "v2_k710_base_90e": (512, 2, 1.4e-3, 1e-6, 0.75, 0.1, 0, 0.05, False),
    "v2_ssv2_base_25e": (256, 2, 2e-3, 1e-6, 0.65, 0.1, 0, 0.05, False),
    "v2_k400_large_35e": (192, 2, 1.5e-3, 1e-6, 0.75, 0.2, 0, 0.05, False),
    "v2_ssv2_large_20e": (192, 2, 3.75e-4, 1e-6, 0.75, 0.2, 0, 0.05, False),
    "v2_k400_huge_40e": (128, 2, 5e-4, 1e-6, 0.8, 0.2, 0.5, 0.05, False),
    "v2_k600_huge_40e": (128, 2, 5e-4, 1e-6, 0.8, 0.2, 0.5, 0.05, False),
    "v2_k710_huge_40e": (128, 2, 5e-4, 1e-6, 0.8, 0.2, 0.5, 0.05, False),
    "v2_ssv2_huge_20e": (128, 2, 2.5e-4, 1e-6, 0.8, 0.2, 0, 0.05, False),
    "v2_k400_giant_30e": (192, 2, 7.5e-4, 1e-6, 0.9, 0.2, 0, 0.1, False),
    "v2_k710_giant_35e": (96, 2, 3.75e-4, 1e-6, 0.9, 0.3, 0, 0.1, False),
    "v2_k400_giant_3e": (96, 2, 3.75e-6, 1e-6, 0.9, 0.25, 0, 0.1, False),
    "v2_k600_giant_3e": (96, 2, 3.75e-6, 1e-6, 0.9, 0.25, 0, 0.1, False),
    "v2_ssv2_giant_20e": (96, 2, 1.125e-4, 1e-6, 0.9, 0.25, 0, 0.05, False),
    "v2_ucf101_giant_50e": (24, 2, 9.375e-5, 1e-6, 0.9, 0.35, 0.5, 0.05, False),
    "v2_hmdb51_giant_15e": (24, 2, 4.6875e-5, 1e-6, 0.9, 0.35, 0.5, 0.05, False),
}
DISTILLED = ("v2_k710_small_distilled_100e", "v2_k710_base_distilled_100e")
LARGE_CLIPS = {"k400_large_32x320_35e": "k400_large_35e", "k400_huge_32x320_50e": "k400_huge_50e"}
"""Of these only the size, the views and the result are published; the rest is that of another recipe."""
CLASSES = {"k400": 400, "k600": 600, "k710": 710, "ssv2": 174, "ucf101": 101, "hmdb51": 51}


def test_every_published_run_has_a_file():
    assert {path.stem for path in (CONFIGS / "pretrain").glob("*.py")} == PUBLISHED.keys() | DUAL_MASKED
    assert {path.stem for path in (CONFIGS / "finetune").glob("*.py")} == {
        *FINE_TUNED,
        *DISTILLED,
        *LARGE_CLIPS,
    }


@pytest.mark.parametrize("name", LARGE_CLIPS)
def test_large_clips_differ_from_the_recipe_at_224_in_what_is_published(name):
    config, like = load_config(name), load_config(LARGE_CLIPS[name])
    assert isinstance(config, FinetuneConfig)
    assert isinstance(like, FinetuneConfig)
    model = replace(like.model, num_frames=32, image_size=320, remat=True)
    assert model.num_tokens == 6400
    data, test = replace(like.data, canvas=(366, 652)), replace(like.test, num_segments=4, num_crops=3)
    assert config == replace(like, model=model, data=data, test=test)


@pytest.mark.parametrize("name", DISTILLED)
def test_students_of_a_giant(name):
    config = load_config(name)
    assert isinstance(config, FinetuneConfig)
    _, data, size, _, epochs = name.split("_")
    assert (config.teacher, config.teacher_size, config.teacher_temperature) == (None, "giant", 1)
    assert (config.model.num_labels, int(epochs.removesuffix("e"))) == (CLASSES[data], config.epochs)
    assert SIZES[size].hidden_size == config.model.hidden_size


@pytest.mark.parametrize("name", FINE_TUNED)
def test_fine_tuning_settings_are_the_published_ones(name):
    config = load_config(name)
    assert isinstance(config, FinetuneConfig)
    batch, num_sample, lr, min_lr, layer_decay, drop_path, head_dropout, decay, remat = FINE_TUNED[name]
    model, optim, augment = config.model, config.optim, config.augment
    assert (config.batch_size, config.data.num_sample, config.layer_decay) == (batch, num_sample, layer_decay)
    assert (model.drop_path, model.head_dropout, model.remat) == (drop_path, head_dropout, remat)
    assert effective_lr(optim.base_lr, batch) == pytest.approx(lr)
    assert (optim.min_lr, optim.weight_decay, optim.betas) == (min_lr, decay, (0.9, 0.999))
    assert optim.warmup_epochs == (1 if config.epochs == 3 else 5)
    assert optim.clip_grad == (5 if name == "v2_k710_giant_35e" else None)
    assert (augment.mixup, augment.cutmix, augment.mix_prob, augment.mix_switch_prob) == (0.8, 1, 1, 0.5)
    assert (augment.label_smoothing, augment.erase_prob, config.init_scale) == (0.1, 0.25, 0.001)
    assert (augment.rand_num_ops, augment.rand_magnitude, augment.rand_magnitude_std) == (4, 7, 0.5)
    *_, data, size, epochs = name.split("_")
    assert (model.num_labels, int(epochs.removesuffix("e"))) == (CLASSES[data], config.epochs)
    assert SIZES[size].hidden_size == model.hidden_size
    something = data == "ssv2"
    assert config.data.sampling == ("uniform" if something else "dense")
    assert augment.flip != something
    assert (config.test.num_segments, config.test.num_crops) == ((2, 3) if something else (5, 3))
    assert config.data.sampling_rate == (2 if data == "hmdb51" else 4)


@pytest.mark.parametrize("name", PUBLISHED)
def test_settings_are_the_published_ones(name):
    config = load_config(name)
    assert isinstance(config, PretrainConfig)
    epochs, batch, ratio, rate, lr, remat = PUBLISHED[name]
    assert (config.epochs, config.batch_size, config.mask_ratio) == (epochs, batch, ratio)
    assert (config.data.sampling_rate, config.model.remat, config.mask_type) == (rate, remat, "tube")
    assert effective_lr(config.optim.base_lr, batch) == pytest.approx(lr)
    assert effective_lr(config.optim.min_lr, batch) == pytest.approx(1e-5 * batch / 256)
    assert config.optim.warmup_epochs == 40
    assert config.optim.betas == (0.9, 0.95)
    assert config.optim.weight_decay == 0.05
    assert config.optim.clip_grad is None
    assert config.model.norm_pix_loss
    assert config.model.dtype == "auto"


@pytest.mark.parametrize("name", DUAL_MASKED)
def test_settings_of_dual_masking_are_the_published_ones(name):
    config = load_config(name)
    assert isinstance(config, PretrainConfig)
    epochs, batch, warmup, lr, clip, remat = DUAL_MASKED[name]
    assert (config.epochs, config.batch_size, config.optim.warmup_epochs) == (epochs, batch, warmup)
    assert (config.mask_type, config.mask_ratio, config.decoder_mask_ratio) == ("tube", 0.9, 0.5)
    assert (config.data.num_sample, config.data.sampling_rate) == (4, 4)
    assert effective_lr(config.optim.base_lr, batch) == pytest.approx(lr)
    assert (config.optim.clip_grad, config.model.remat, config.optim.betas) == (clip, remat, (0.9, 0.95))
    _, _, size, length = name.split("_")
    assert (int(length.removesuffix("e")), SIZES[size].hidden_size) == (epochs, config.model.hidden_size)
    decoder = (384, 4, 6) if size == "base" else (512, 4, 8)
    model = config.model
    assert decoder == (
        model.decoder_hidden_size,
        model.decoder_num_hidden_layers,
        model.decoder_num_attention_heads,
    )


@pytest.mark.parametrize("name", PUBLISHED)
def test_name_says_what_it_holds(name):
    config = load_config(name)
    data, size, epochs = name.split("_")
    assert int(epochs.removesuffix("e")) == config.epochs
    assert SIZES[size].hidden_size == config.model.hidden_size
    assert config.data.sampling_rate == {"k400": 4, "ssv2": 2, "ucf101": 4, "hmdb51": 2}[data]


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.py")), ids=lambda path: path.stem)
def test_a_recipe_opens_with_command_cost_and_expectation(path):
    text = ast.get_docstring(ast.parse(path.read_text()))
    assert text is not None
    assert re.search(rf"Run: .*videomae-jax ((pretrain|finetune) {path.stem}|demo)\b", text)
    assert "Cost: " in text
    assert "Expect: " in text
    if path.parent.name in ("pretrain", "finetune"):
        assert "Ours: " in text


def test_bare_names_are_unique():
    names = [path.stem for path in CONFIGS.rglob("*.py")]
    assert len(names) == len(set(names))


def test_the_unpublished_run_is_marked():
    assert "UNVERIFIED" in (CONFIGS / "pretrain" / "hmdb51_base_4800e.py").read_text()
    assert "UNVERIFIED" in (CONFIGS / "finetune" / "hmdb51_base_100e.py").read_text()
