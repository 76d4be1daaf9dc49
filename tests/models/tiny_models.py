"""Models small enough to save and load many times."""

from dataclasses import replace

import jax
import numpy as np
from safetensors.numpy import load_file, save_file

from videomae_jax import VideoMAEConfig
from videomae_jax.checkpoints.trees import flatten

CONFIG = VideoMAEConfig(
    image_size=16, patch_size=8, num_frames=4, hidden_size=24, num_hidden_layers=2, num_attention_heads=2,
    intermediate_size=48, decoder_hidden_size=16, decoder_num_hidden_layers=2, decoder_num_attention_heads=2,
    decoder_intermediate_size=32,
)  # fmt: skip
NAMED = replace(CONFIG, id2label=("run", "jump", "swim"))
CLIP = np.random.default_rng(0).normal(size=(2, 4, 16, 16, 3)).astype(np.float32)
MASK = np.tile(np.arange(8) < 6, (2, 1))


def make(cls, config):
    """A model with no weight at 0 or 1."""
    model, rng = cls(config), np.random.default_rng(0)
    shapes = jax.eval_shape(model.init_params, jax.random.key(0))
    return model, jax.tree.map(lambda leaf: 0.1 * rng.standard_normal(leaf.shape, np.float32), shapes)


def same(one, other):
    one, other = flatten(one), flatten(other)
    return one.keys() == other.keys() and all(np.array_equal(one[path], other[path]) for path in one)


def change(folder, edit):
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors")
