"""PyTorch's pickles: reading them without running what is in them, and writing them."""

import argparse
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import torch

from videomae_jax.errors import InputError

OURS = "videomae_jax"
"""Entry under which a .pth written here says its configuration."""
CONTAINERS = ("model", "module", "state_dict")
"""Entries under which the original, DeepSpeed and Lightning put the weights."""


class Pickle(NamedTuple):
    """Tensors under the names of the file, and what else it says."""

    tensors: dict[str, np.ndarray]
    args: Mapping[str, Any]
    """The command line of the original's run."""
    note: Any
    """What was written here beside the weights."""
    warnings: tuple[str, ...]
    """Of weights that were there too."""


def read_pickle(file: Path, key: str | None = None) -> Pickle:
    """The weights of a pickle, those under `key` where it has several, and what else it says.

    Only tensors, containers and argparse.Namespace are allowed in. Raises InputError for anything else.
    """
    content = _load(file)
    if not isinstance(content, Mapping):
        raise InputError(f"{file} holds a {type(content).__name__}, not a dict of tensors")
    container, warnings = _choose(file, content, key)
    tensors = content if container is None else content[container]
    if strange := [str(name) for name, value in tensors.items() if not isinstance(value, torch.Tensor)]:
        raise InputError(
            f"{file} has no dict of tensors under {container or ', '.join(CONTAINERS) + ' or at its top'}: "
            f"{', '.join(strange[:8])} {'are' if len(strange) > 1 else 'is'} no tensor"
        )
    args = content.get("args") if container else None
    return Pickle(
        {str(name): _to_numpy(file, str(name), tensor) for name, tensor in tensors.items()},
        dict(vars(args)) if isinstance(args, argparse.Namespace) else {},
        content.get(OURS),
        warnings,
    )


def _choose(file: Path, content: Mapping[str, Any], key: str | None) -> tuple[str | None, tuple[str, ...]]:
    """The entry that holds the weights, None for the top, and what to say of the choice."""
    weights = [str(name) for name, value in content.items() if _is_model(value)]
    if key is not None:
        if isinstance(content.get(key), Mapping):
            return key, ()
        there = f"weights are under {', '.join(weights)}" if weights else "no entry of it holds weights"
        raise InputError(f"{file} has nothing under --key {key}: {there}")
    usual = [name for name in CONTAINERS if isinstance(content.get(name), Mapping)]
    chosen = next((name for name in usual if name in weights), None) or next(iter(usual or weights), None)
    others = [name for name in weights if name != chosen]
    if chosen in usual:
        if not others:
            return chosen, ()
        return chosen, (
            f"{file} holds weights under {', '.join(others)} beside those under {chosen}, which are taken: "
            f"--key {others[0]} takes the others, such as an average that the run was evaluated by.",
        )
    if others:
        raise InputError(f"{file} holds weights under {', '.join(weights)}: choose with --key {others[0]}")
    if chosen is None:
        return None, ()
    return chosen, (f"{file} holds weights under {chosen} only, and they are taken.",)


def _is_model(value: Any) -> bool:
    """Whether an entry holds a model's weights, and not an optimizer's state."""
    return isinstance(value, Mapping) and any(
        isinstance(tensor, torch.Tensor) and "patch_embed" in str(name) for name, tensor in value.items()
    )


def _load(file: Path) -> Any:
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(file, "cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except pickle.UnpicklingError as error:
        raise InputError(_refused(file, str(error))) from error
    except Exception as error:  # Damaged files fail inside torch in as many ways as there are bytes.
        reason = (str(error).strip() or "no reason given").splitlines()[0][:200]
        raise InputError(
            f"{file} is not a PyTorch checkpoint, or is damaged: {type(error).__name__}: {reason}"
        ) from error


def _refused(file: Path, said: str) -> str:
    """What to tell of a pickle that torch does not take for tensors and plain values."""
    asked = re.search(r"GLOBAL ([\w.]+)|class ([\w.]+)|type ([\w.]+)", said)
    what = next(name for name in asked.groups() if name) if asked else "something else, or is damaged"
    read = f"x = torch.load({str(file)!r}, 'cpu', weights_only=False)"
    pick = "x = x if isinstance(x, dict) else x.state_dict()"
    save = "torch.save(x.get('model', x.get('state_dict', x)), 'weights.pth')"
    return (
        f"{file} was not read. A pickle can run code while it is read, so only tensors and plain values are "
        f"let in, and this one holds {what}. If you trust whom it is from, save its weights alone, where all "
        f'that it needs is installed, and convert those:\n  python -c "import torch; {read}; {pick}; {save}"'
    )


def _to_numpy(file: Path, name: str, tensor: torch.Tensor) -> np.ndarray:
    tensor = tensor.detach()
    try:
        if tensor.dtype is torch.bfloat16:
            return tensor.contiguous().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
        return tensor.numpy()
    except (TypeError, RuntimeError, NotImplementedError) as error:
        raise InputError(f"{file}: {name} is not a dense tensor that can be converted: {error}") from error


def write_pickle(file: Path, tensors: Mapping[str, np.ndarray], note: Mapping[str, Any]) -> None:
    """A pickle as the original saves it, with `note` beside the weights; raises OSError."""
    weights = {name: to_torch(tensor) for name, tensor in tensors.items()}
    try:
        torch.save({"model": weights, "epoch": 0, OURS: note}, file)
    except RuntimeError as error:  # What torch makes of a failed write.
        raise OSError(str(error)) from error


def to_torch(array: np.ndarray) -> torch.Tensor:
    """The same bits as a tensor of its own memory."""
    array = np.ascontiguousarray(array)
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(array.copy() if not array.flags.writeable else array)
