"""Weights from wherever a user says they are."""

from pathlib import Path
from typing import Any

from videomae_jax.checkpoints import hugging_face, orbax
from videomae_jax.config import VideoMAEConfig


def read_pretraining(source: str) -> tuple[VideoMAEConfig, dict[str, Any]]:
    """Configuration and parameters (host arrays) of a pre-training checkpoint.

    `source` is a work folder (its newest step counts), a step folder, a Hugging Face folder, or a hub id.
    Raises InputError when it is none of them.
    """
    folder = Path(source)
    written_by_us = orbax.list_steps(folder)  # Work folders have a config.json too.
    if not folder.exists() or ((folder / "config.json").is_file() and not written_by_us):
        return hugging_face.read_pretraining(source)
    return orbax.read_params(folder)
