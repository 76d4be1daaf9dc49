"""Reading Hugging Face folders and hub ids: config.json and safetensors. Needs no torch."""

import json
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import huggingface_hub
import huggingface_hub.errors
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from videomae_jax.checkpoints.names import original_from_hugging_face, tree_from_original
from videomae_jax.config import VideoMAEConfig
from videomae_jax.errors import InputError

# What transformers uses where its config.json says nothing; ours, written by us, says 1e-6.
_EPS = {"layer_norm_eps": 1e-12, "decoder_norm_eps": 1e-5, "fc_norm_eps": 1e-5}
_NON_COMMERCIAL = ("MCG-NJU/", "OpenGVLab/")


def find_folder(source: str) -> Path:
    """The local folder of a Hugging Face checkpoint; a hub id is downloaded to the hub's own cache.

    Raises InputError when there is neither such a folder nor such a repository.
    """
    if Path(source).is_dir():
        return Path(source)
    if source.count("/") != 1 or source.startswith((".", "/", "~")):
        raise InputError(f"{source} does not exist, and is no hub id (owner/name) either")
    if source.startswith(_NON_COMMERCIAL):
        print(
            f"The weights of {source} are published under CC-BY-NC 4.0: not for commercial use.",
            file=sys.stderr,
        )
    try:
        return Path(huggingface_hub.snapshot_download(source, allow_patterns=["*.json", "*.safetensors"]))
    except (OSError, ValueError, huggingface_hub.errors.HfHubHTTPError) as error:
        raise InputError(
            f"{source} is no local folder and could not be had from the Hugging Face hub: {error}"
        ) from error


def read_config(folder: Path) -> VideoMAEConfig:
    """The configuration in a folder's config.json; raises InputError when it is not VideoMAE's."""
    try:
        values: dict[str, Any] = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{folder / 'config.json'} cannot be read: {error}") from error
    if values.get("model_type") != "videomae":
        raise InputError(f"{folder} holds a {values.get('model_type')!r} model, not 'videomae'")
    if values.get("hidden_act", "gelu") != "gelu":
        raise InputError(f"{folder} uses hidden_act={values['hidden_act']!r}; VideoMAE here has gelu only")
    if "qkv_bias" in values:
        values.setdefault("qv_bias", values["qkv_bias"])
    known = {field.name for field in fields(VideoMAEConfig)} - {"dtype"}
    return VideoMAEConfig(**(_EPS | {name: values[name] for name in known & values.keys()}))


def read_tensors(folder: Path) -> dict[str, np.ndarray]:
    """Every tensor of a folder's safetensors files, by its name there."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        pickles = [path.name for path in (*folder.glob("*.bin"), *folder.glob("*.pth"))]
        why = f"only {', '.join(pickles)}, and pickles can run code" if pickles else "no weights"
        raise InputError(f"{folder} has {why}; a folder with model.safetensors is needed")
    tensors: dict[str, np.ndarray] = {}
    for file in files:
        try:
            tensors |= load_file(file)
        except (OSError, ValueError, SafetensorError) as error:
            raise InputError(f"{file} cannot be read: {error}") from error
    return tensors


def read_pretraining(source: str) -> tuple[VideoMAEConfig, dict[str, Any]]:
    """Configuration and parameters of a pre-training checkpoint in a folder or on the hub."""
    folder = find_folder(source)
    config = read_config(folder)
    params = tree_from_original(original_from_hugging_face(read_tensors(folder)))
    if "decoder" not in params:
        raise InputError(f"{source} has no decoder, so it is not a pre-training checkpoint")
    has_norm = "norm" in params.get("encoder", {})
    return VideoMAEConfig(**{**vars(config), "encoder_norm": has_norm}), params
