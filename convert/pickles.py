"""Reading PyTorch's pickles without running what is in them."""

import argparse
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import torch

from videomae_jax.errors import InputError

CONTAINERS = ("model", "module", "state_dict")
"""Keys under which the original, DeepSpeed and Lightning-like trainers put the tensors."""
OURS = "videomae_jax"
"""Key under which a .pth written here says its configuration."""


def read_pickle(file: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Tensors of a pickle by name, and what else it says: the trainer's `args` and our own note.

    Only tensors, containers and argparse.Namespace are allowed in. Raises InputError for anything else.
    """
    content = _load(file)
    if not isinstance(content, Mapping):
        raise InputError(f"{file} holds a {type(content).__name__}, not a dict of tensors")
    container = next((key for key in CONTAINERS if isinstance(content.get(key), Mapping)), None)
    tensors = content[container] if container else content
    if strange := [str(name) for name, value in tensors.items() if not isinstance(value, torch.Tensor)]:
        raise InputError(
            f"{file} has no dict of tensors under {', '.join(CONTAINERS)} or at its top: "
            f"{', '.join(strange[:8])} {'are' if len(strange) > 1 else 'is'} no tensor"
        )
    args = content.get("args") if container else None
    said = dict(vars(args)) if isinstance(args, argparse.Namespace) else {}
    if isinstance(content.get(OURS), dict):
        said[OURS] = content[OURS]
    return {str(name): _to_numpy(file, str(name), tensor) for name, tensor in tensors.items()}, said


def _load(file: Path) -> Any:
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(file, "cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{file} was not read. A pickle can run code while it is read, so only tensors and plain values "
            f"are let in, and this one asks for more or is damaged: {_reason(error)}"
        ) from error
    except Exception as error:  # Damaged files fail inside torch in as many ways as there are bytes.
        raise InputError(f"{file} is no PyTorch checkpoint or is damaged: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """What torch complains of, without its advice to switch the protection off."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    line = next((line for line in lines if "Unsupported" in line or "GLOBAL" in line), (lines or [""])[0])
    return f"{type(error).__name__}: {line[:300]}"


def _to_numpy(file: Path, name: str, tensor: torch.Tensor) -> np.ndarray:
    tensor = tensor.detach()
    try:
        if tensor.dtype is torch.bfloat16:
            return tensor.contiguous().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
        return tensor.numpy()
    except (TypeError, RuntimeError, NotImplementedError) as error:
        raise InputError(f"{file}: {name} is no dense tensor that can be converted: {error}") from error


def to_torch(array: np.ndarray) -> torch.Tensor:
    """The same bits as a tensor of its own memory."""
    array = np.ascontiguousarray(array)
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(array.copy() if not array.flags.writeable else array)
