"""Checkpoints written in every form: a Hugging Face folder, an Orbax folder, an original-style .pth."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import jax
import ml_dtypes
import numpy as np

from videomae_jax.checkpoints.architecture import kind_of
from videomae_jax.checkpoints.hugging_face import write_folder
from videomae_jax.checkpoints.names import hugging_face_from_original, original_spelling, tree_from_original
from videomae_jax.checkpoints.orbax import CheckpointWriter
from videomae_jax.checkpoints.processing_json import KEY
from videomae_jax.config import CheckpointConfig
from videomae_jax.errors import InputError, RunError
from videomae_jax.model_config import VideoMAEConfig
from videomae_jax.processing import Processing
from videomae_jax.versions import version_of

from .publish import remove_for_good

Form = Literal["hf", "orbax", "torch"]
DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


def cast(tensors: Mapping[str, np.ndarray], dtype: str) -> dict[str, np.ndarray]:
    """Tensors in another dtype; "keep" leaves each as it is."""
    if dtype == "keep":
        return dict(tensors)
    return {name: tensor.astype(DTYPES[dtype], copy=False) for name, tensor in tensors.items()}


def write_hugging_face(
    folder: Path, config: VideoMAEConfig, tensors: Mapping[str, np.ndarray], processing: Processing, card: str
) -> None:
    """config.json, preprocessor_config.json and model.safetensors, which transformers loads, and the card."""
    try:
        named = hugging_face_from_original(tensors)
        write_folder(folder, config, kind_of(tensors), named, processing, card)
    except InputError as error:  # It names the temporary folder.
        raise OSError(str(error.__cause__)) from error


def write_orbax(
    folder: Path, config: VideoMAEConfig, tensors: dict[str, np.ndarray], processing: Processing
) -> None:
    """A work folder with one step, 0, which every command here takes as a checkpoint.

    Empties `tensors`: Orbax needs their memory again. Of NumPy's arrays it takes a second copy, of JAX's not.
    """
    tree = tree_from_original(tensors)
    tensors.clear()
    _move_to_jax(tree)
    description = {
        "config": {"model": asdict(config)},
        KEY: processing.to_dict(),
        "version": version_of("videomae-jax"),
    }
    writer = CheckpointWriter(folder, CheckpointConfig())

    try:
        writer.save(0, {"params": tree}, description)
        writer.wait()
    except RunError as error:  # It speaks of a training run and its settings.
        remove_for_good(folder)
        raise OSError(str(error.__cause__)) from error


def write_torch(
    file: Path, config: VideoMAEConfig, tensors: Mapping[str, np.ndarray], processing: Processing
) -> None:
    """A pickle as the original saves it, with our configuration beside the weights."""
    from .pickles import write_pickle

    note = {"config": asdict(config), KEY: processing.to_dict()}
    write_pickle(file, original_spelling(tensors), note)


def _move_to_jax(tree: dict[str, Any]) -> None:
    """Replace leaf by leaf, so that each array of NumPy's goes before the next is copied."""
    for name, value in tree.items():
        if isinstance(value, dict):
            _move_to_jax(value)
        elif value.dtype != np.float64:  # JAX would make it float32.
            owned = value if value.base is None else np.array(value)  # A view keeps the whole file mapped.
            tree[name] = jax.device_put(owned)
