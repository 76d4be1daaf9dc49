"""Hugging Face folders and hub ids: config.json and safetensors, read and written. Needs no torch."""

import json
import logging
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import huggingface_hub
import numpy as np
from huggingface_hub import constants, errors
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from videomae_jax.checkpoints.config_json import config_json, read_config
from videomae_jax.checkpoints.names import original_from_hugging_face, strip_prefixes
from videomae_jax.config import VideoMAEConfig
from videomae_jax.errors import InputError
from videomae_jax.processing import FILES, Processing

log = logging.getLogger(__name__)

WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_NON_COMMERCIAL = ("MCG-NJU/", "OpenGVLab/")


def find_folder(
    source: str,
    revision: str | None = None,
    patterns: Sequence[str] = ("*.json", "*.safetensors"),
    subfolder: str = "",
    local_files_only: bool = False,
) -> Path:
    """The local folder of a Hugging Face checkpoint; a hub id is downloaded to the hub's own cache.

    Args:
      patterns: which files are needed; of a repository, those of its top folder or of `subfolder`.
      local_files_only: take a repository from the cache, and ask no hub.

    Raises InputError, with the way out, when there is neither such a folder nor such a repository.
    """
    if Path(source).is_dir():
        folder = Path(source, subfolder)
        if not folder.is_dir():
            raise InputError(f"{source} has no folder {subfolder}")
        return folder
    if source.count("/") != 1 or source.startswith((".", "/", "~")):
        raise InputError(f"{source} does not exist, and is no hub id (owner/name) either")
    if source.startswith(_NON_COMMERCIAL):
        log.warning("The weights of %s are published under CC-BY-NC 4.0: not for commercial use.", source)
    try:
        folder = Path(
            huggingface_hub.snapshot_download(
                source,
                revision=revision,
                allow_patterns=[f"{subfolder}/{each}" if subfolder else each for each in patterns],
                local_files_only=local_files_only,
            )
        )
    except (OSError, ValueError, errors.HfHubHTTPError) as error:
        raise InputError(f"{source} is no local folder, and {_why(source, revision, error)}") from error
    if not (folder / subfolder).is_dir():
        raise InputError(f"{source} has no folder {subfolder} with {' or '.join(patterns)}")
    return folder / subfolder


def _why(source: str, revision: str | None, error: Exception) -> str:
    """What the hub's refusal means and what to do about it."""
    hub = constants.ENDPOINT
    if isinstance(error, errors.GatedRepoError):
        return (
            f"its repository on the hub is gated: accept its conditions at {hub}/{source}, then log in with "
            f"`hf auth login` or set HF_TOKEN. The hub says: {error}"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            f"{hub} has no such repository, or keeps it private: check the spelling, or log in with "
            f"`hf auth login` or HF_TOKEN. The hub says: {error}"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"its repository on the hub has no revision {revision!r}: name a branch, a tag or a commit"
    if isinstance(error, errors.LocalEntryNotFoundError):
        return (
            f"it is not in the cache ({constants.HF_HUB_CACHE}) while {hub} cannot be asked (HF_HUB_OFFLINE "
            "or local_files_only is set, or there is no connection): download it once with a connection. "
            f"The reason: {error}"
        )
    return f"could not be had from {hub}: {error}"


def read_tensors(folder: Path) -> dict[str, np.ndarray]:
    """Every tensor of a folder's safetensors, in one file or in the shards of an index, by its name there."""
    tensors: dict[str, np.ndarray] = {}
    for file in _files(folder):
        try:
            tensors |= load_file(file)
        except (OSError, ValueError, SafetensorError) as error:
            raise InputError(
                f"{file} cannot be read: {error}. It is damaged or cut short: download or copy it again"
            ) from error
    return tensors


def _files(folder: Path) -> list[Path]:
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    index = folder / _INDEX
    if index.is_file():
        try:
            files = sorted({folder / name for name in json.loads(index.read_text())["weight_map"].values()})
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{index} is no index of shards: {error!r}") from error
        if missing := [file.name for file in files if not file.is_file()]:
            raise InputError(f"{index} names {', '.join(missing)}, which {folder} lacks: download them too")
        return files
    pickles = [path.name for pattern in ("*.bin", "*.pth", "*.pt") for path in sorted(folder.glob(pattern))]
    found = f"{folder} has no {WEIGHTS}" + (f", only {', '.join(pickles)}" if pickles else "")
    raise InputError(f"{found}. {refusal(pickles[0] if pickles else 'pytorch_model.bin')}")


def refusal(pickle: str) -> str:
    """Why a pickle is not read, and what to do instead."""
    return (
        f"Pickles (.bin, .pth, .pt) can run code and are not read here: download {pickle} and turn it into "
        f"safetensors once, with `python -m convert {pickle} FOLDER --to hf`, then give FOLDER"
    )


def read_folder(folder: Path) -> tuple[VideoMAEConfig, dict[str, np.ndarray]]:
    """Configuration and tensors, under their original names and in their own dtype, of a folder."""
    return read_config(folder), strip_prefixes(original_from_hugging_face(read_tensors(folder)))


def write_folder(
    folder: Path,
    config: VideoMAEConfig,
    architecture: str,
    tensors: dict[str, np.ndarray],
    processing: Processing | None = None,
) -> None:
    """Write config.json, preprocessor_config.json and model.safetensors, tensors under Hugging Face's names.

    All are written beside the folder first and then moved, so that a failure leaves nothing behind. Raises
    InputError when they cannot be written.
    """
    whole = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    processing = (processing or Processing.for_size(config.image_size)).fitted(config.image_size)
    texts = {"config.json": config_json(config, architecture), FILES[0]: processing.to_dict()}
    folder = folder.absolute()
    partial = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.partial-", dir=folder.parent))
        partial.chmod(0o755)
        save_file(whole, partial / WEIGHTS, metadata={"format": "pt"})
        (partial / WEIGHTS).chmod(0o644)  # safetensors leaves it to the owner alone
        for name, content in texts.items():
            (partial / name).write_text(json.dumps(content, indent=2) + "\n")
        if folder.exists():
            for file in partial.iterdir():
                file.replace(folder / file.name)
        else:
            partial.rename(folder)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{folder} could not be written, and nothing was left there: {error}") from error
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)
