"""Random tiny checkpoints of every kind."""

import numpy as np
import pytest

from videomae_jax.checkpoints.architecture import expected_shapes
from videomae_jax.config import VideoMAEConfig

TINY = VideoMAEConfig(
    image_size=16, patch_size=8, num_frames=4, hidden_size=24, num_hidden_layers=2, num_attention_heads=4,
    intermediate_size=32, decoder_hidden_size=16, decoder_num_hidden_layers=2, decoder_num_attention_heads=2,
    decoder_intermediate_size=24,
)  # fmt: skip
FLAGS = ("--num-heads", "4", "--image-size", "16", "--num-frames", "4")
DECODER = ("--decoder-num-heads", "2")


def random_tensors(config, kind, dtype=np.float32):
    """Every tensor of an architecture, none of them constant."""
    rng = np.random.default_rng(0)
    shapes = expected_shapes(config, kind)
    return {name: (0.1 * rng.normal(size=shape)).astype(dtype) for name, shape in shapes.items()}


def save_pth(file, tensors, **more):
    torch = pytest.importorskip("torch", reason="torch is not installed (the extra convert)")
    torch.save({"model": {name: torch.from_numpy(tensor) for name, tensor in tensors.items()}, **more}, file)
    return file
