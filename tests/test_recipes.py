"""The published pre-training recipes: their settings, and that their files say what they hold."""

import ast
import re
from pathlib import Path

import pytest

from videomae_jax.config import SIZES, load_config
from videomae_jax.training.optim import effective_lr

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


def test_every_published_run_has_a_file():
    assert {path.stem for path in (CONFIGS / "pretrain").glob("*.py")} == set(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_settings_are_the_published_ones(name):
    config = load_config(name)
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
    assert re.search(rf"Run: .*videomae-jax (pretrain {path.stem}|demo)\b", text)
    assert "Cost: " in text
    assert "Expect: " in text
    if path.parent.name == "pretrain":
        assert "Ours: " in text


def test_bare_names_are_unique():
    names = [path.stem for path in CONFIGS.rglob("*.py")]
    assert len(names) == len(set(names))


def test_the_unpublished_run_is_marked():
    assert "UNVERIFIED" in (CONFIGS / "pretrain" / "hmdb51_base_4800e.py").read_text()
