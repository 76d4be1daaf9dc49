"""Hugging Face folders and hub ids: config.json and safetensors, read and written. Needs no torch."""

import json
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import huggingface_hub
import numpy as np
from huggingface_hub import constants, errors
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from videomae_jax.checkpoints.architecture import Kind
from videomae_jax.checkpoints.config_json import config_json
from videomae_jax.errors import InputError
from videomae_jax.files import beside, check_path, flush, locked_file, write_json, write_text
from videomae_jax.model_config import VideoMAEConfig
from videomae_jax.processing import FILES, Processing

log = logging.getLogger(__name__)

WEIGHTS = "model.safetensors"
CARD = "README.md"
_PICKLED = "pytorch_model.bin"
_ADDRESS = re.compile(r"\w[\w.+-]*:/(?:/huggingface\.co/(?P<id>[\w.-]+/[\w.-]+))?")
_NON_COMMERCIAL = ("MCG-NJU/", "OpenGVLab/")


def find_folder(
    source: str,
    revision: str | None = None,
    patterns: Sequence[str] = ("*.json", "*.safetensors", CARD),
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
    if address := _ADDRESS.match(source):
        raise InputError(
            f"{source} is an address, and weights are read from a folder or a hub id (owner/name): "
            + (f"give {address['id']}" if address["id"] else "copy them to a folder of this machine first")
        )
    if source.count("/") != 1 or source.startswith((".", "/", "~")):
        raise InputError(f"{source} does not exist, and is not a hub id (owner/name) either")
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
        raise InputError(f"{source} is not a local folder, and {_why(source, revision, error)}") from error
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
    return f"could not be downloaded from {hub}: {error}"


def read_safetensors(file: Path) -> dict[str, np.ndarray]:
    """The tensors of a file; raises InputError when it is damaged, or of a dtype that NumPy lacks."""
    try:
        return load_file(file)
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(
            f"{file} cannot be read: {error}. It is damaged or cut short: download or copy it again"
        ) from error
    except (KeyError, TypeError, AttributeError) as error:  # What the library does with other dtypes.
        with safe_open(file, "np") as tensors:
            dtypes = {tensors.get_slice(name).get_dtype() for name in tensors.keys()}  # noqa: SIM118
        raise InputError(
            f"{file} cannot be read, as it holds numbers in {' and '.join(sorted(dtypes))}: those of fewer "
            "than 16 bits are not read here; save it in float32 or bfloat16"
        ) from error


def write_safetensors(file: Path, tensors: Mapping[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Write tensors, laid out in memory in any way; raises OSError or SafetensorError."""
    save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, file, metadata)
    file.chmod(0o644)  # The library leaves it to the owner alone.


def weight_files(folder: Path, source: str, pickles: bool = False) -> list[Path]:
    """The files of a folder that hold its weights, as transformers chooses them.

    That is model.safetensors, else the shards that model.safetensors.index.json names and, with `pickles`,
    else pytorch_model.bin, else its shards. All others are left alone: other variants, the shards of earlier
    saves, optimizers. Raises InputError, with what there is and the way out, where none of them is there;
    `source` is what the user calls the folder.
    """
    for name in (WEIGHTS, _PICKLED) if pickles else (WEIGHTS,):
        if (folder / name).is_file():
            return [folder / name]
        if (index := _index(folder, name)).is_file():
            files = [folder / file for file in _shards(index)]
            if missing := [file.name for file in files if not file.is_file()]:
                raise InputError(f"{index} names {', '.join(missing)}, which {folder} lacks: get them too")
            return files
    raise InputError(_without_weights(folder, source))


def _index(folder: Path, weights: str) -> Path:
    """Where it is said which shards hold what would be in a file of weights."""
    return folder / f"{weights}.index.json"


def _shards(index: Path) -> list[str]:
    try:
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        if bad := [name for name in names if Path(name).name != name]:
            raise ValueError(f"{bad[0]!r} is not in its folder")
        return names
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{index} is not an index of shards: {error!r}") from error


def _without_weights(folder: Path, source: str) -> str:
    """What to tell of a folder that has no file of weights under the names that are looked for."""
    if runs := sorted(folder.glob("checkpoint-*/config.json"), key=_trainer_step):
        return (
            f"{source} holds the checkpoints of a run of Hugging Face's Trainer, and no weights of its own: "
            f"name one of them, such as {runs[-1].parent}"
        )
    if (folder / _PICKLED).is_file() or _index(folder, _PICKLED).is_file():
        return f"{source} has no {WEIGHTS}, only {_PICKLED}. {refusal(source)}"
    if pickles := sorted(path for end in ("bin", "pth", "pt", "ckpt") for path in folder.glob(f"*.{end}")):
        return f"{source} has no {WEIGHTS}, only {pickles[0].name}. {refusal(str(pickles[0]))}"
    if others := [path.name for path in sorted(folder.glob("*.safetensors"))]:
        return (
            f"{source} has no {WEIGHTS}, only {', '.join(others[:8])}: rename the file that holds the whole "
            f"model to {WEIGHTS}, or turn it into a folder with `videomae-jax convert {folder / others[0]} "
            "NEW --to hf`"
        )
    if (folder / "config.json").is_file():
        return (
            f"{source} has a config.json and no {WEIGHTS}: get that too or, where its repository has pickles "
            f"only, turn them into a folder with `videomae-jax convert {source} NEW --to hf`"
        )
    return (
        f"{source} has no checkpoint in it: neither the config.json and {WEIGHTS} of a Hugging Face folder "
        "nor the checkpoints/<step> of a work folder"
    )


def _trainer_step(config: Path) -> int:
    number = config.parent.name.removeprefix("checkpoint-")
    return int(number) if number.isdecimal() else -1


def refusal(pickled: str) -> str:
    """Why what is pickled, a file or a folder, is not read, and what to do instead."""
    return (
        "Pickles (.bin, .pth, .pt, .ckpt) can run code and are not read here: turn it into a folder with "
        f"safetensors once, with `videomae-jax convert {pickled} NEW --to hf`, then give NEW"
    )


def write_folder(
    folder: Path,
    config: VideoMAEConfig,
    kind: Kind,
    tensors: dict[str, np.ndarray],
    processing: Processing | None,
    card: str | None,
) -> None:
    """Write config.json, preprocessor_config.json and model.safetensors, tensors under Hugging Face's names.

    `card` is for README.md; None leaves the one that is there. All are written beside the folder first and
    then moved, so that a failure leaves nothing behind. Raises InputError when they cannot be written.
    """
    check_path(folder, "the folder")
    processing = (processing or Processing.for_size(config.image_size)).fitted(config.image_size)
    texts = {"config.json": config_json(config, kind), FILES[0]: processing.to_dict()}
    folder = folder.absolute()
    try:
        with locked_file(folder, "folder"), beside(folder) as partial:
            partial.mkdir()
            write_safetensors(partial / WEIGHTS, tensors, {"format": "pt"})
            flush(partial / WEIGHTS)
            for name, content in texts.items():
                write_json(partial / name, content)
            if card is not None:
                write_text(partial / CARD, card, "surrogateescape")
            if folder.exists():
                for file in partial.iterdir():
                    file.replace(folder / file.name)
                _remove_replaced(folder)
            else:
                partial.rename(folder)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{folder} could not be written, and nothing was left there: {error}") from error


def _remove_replaced(folder: Path) -> None:
    """Remove the weights of earlier saves that the new model.safetensors stands in for."""
    for name in (WEIGHTS, _PICKLED):
        stem, _, end = name.partition(".")
        for shard in folder.glob(f"{stem}-*-of-*.{end}"):
            shard.unlink()
        _index(folder, name).unlink(missing_ok=True)
    (folder / _PICKLED).unlink(missing_ok=True)
