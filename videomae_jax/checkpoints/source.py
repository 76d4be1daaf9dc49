"""Weights from wherever a user says they are."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np

from videomae_jax.checkpoints import hugging_face, orbax
from videomae_jax.checkpoints.architecture import correct_heads
from videomae_jax.checkpoints.config_json import read_config
from videomae_jax.checkpoints.names import original_from_tree, original_names
from videomae_jax.errors import InputError
from videomae_jax.model_config import VideoMAEConfig

log = logging.getLogger(__name__)


def read_weights(
    source: str, revision: str | None = None, subfolder: str = "", local_files_only: bool = False
) -> tuple[VideoMAEConfig, dict[str, np.ndarray]]:
    """Configuration and tensors of a checkpoint, in float32 and under their original names.

    `source` is a work folder (its best step counts, or its newest), a step folder, a Hugging Face folder, or
    a hub id, of which `revision` is a branch, tag or commit; `subfolder` is a folder in it. With
    `local_files_only` the hub is not asked. Raises InputError when it is none of them.
    """
    path = _folder(source, subfolder)
    if orbax.is_run(path):
        config, params = orbax.read_params(path)
        tensors = original_from_tree(params, config)
    else:
        folder = hugging_face.find_folder(
            source, revision, subfolder=subfolder, local_files_only=local_files_only
        )
        named: dict[str, np.ndarray] = {}
        for file in hugging_face.weight_files(folder, str(path)):
            named |= hugging_face.read_safetensors(file)
        tensors = original_names(named)
        config = replace(read_config(folder), encoder_norm="encoder.norm.weight" in tensors)
    return config, {name: _float32(tensor) for name, tensor in tensors.items()}


def read_model(source: str) -> VideoMAEConfig:
    """The configuration alone of a checkpoint of any kind, as it says it."""
    path = _folder(source)
    if path.is_dir() and not orbax.is_run(path):
        hugging_face.weight_files(path, source)  # It says what else a folder without weights is.
    return _read_config(source)


def read_config_of(
    source: str, revision: str | None = None, subfolder: str = "", local_files_only: bool = False
) -> VideoMAEConfig:
    """The configuration alone, with or without weights beside it; the hub's wrong number of heads is
    corrected, with a warning."""
    config, warning = correct_heads(source, _read_config(source, revision, subfolder, local_files_only))
    if warning:
        log.warning(warning)
    return config


def _read_config(
    source: str, revision: str | None = None, subfolder: str = "", local_files_only: bool = False
) -> VideoMAEConfig:
    path = _folder(source, subfolder)
    if orbax.is_run(path):
        return orbax.read_model(orbax.find_evaluated_folder(path))
    folder = hugging_face.find_folder(source, revision, ("*.json",), subfolder, local_files_only)
    return read_config(folder)


def _folder(source: str, subfolder: str = "") -> Path:
    path = Path(source)
    if path.is_file():
        pickled = path.suffix in (".bin", ".pth", ".pt", ".ckpt")
        raise InputError(
            f"{source} is a file. "
            + (hugging_face.refusal(source) if pickled else "Give the folder with config.json that it is in")
        )
    return path / subfolder


def _float32(tensor: np.ndarray) -> np.ndarray:
    """Floating-point tensors as float32; NumPy counts bfloat16 as no kind of float."""
    return tensor if tensor.dtype.kind in "biu" else np.asarray(tensor, np.float32)
