"""Checkpoints of every form, read into one: tensors by the original's names and what is said of them."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np

from videomae_jax.checkpoints import hugging_face, orbax
from videomae_jax.checkpoints.config_json import read_config
from videomae_jax.checkpoints.names import original_from_tree, original_names
from videomae_jax.checkpoints.processing_json import KEY, read_processing
from videomae_jax.errors import InputError
from videomae_jax.model_config import VideoMAEConfig
from videomae_jax.processing import FILES, Processing

PICKLES = (".pth", ".pt", ".bin", ".ckpt")


@dataclass(frozen=True)
class Source:
    """A checkpoint: its tensors with `encoder.` before those of the encoder."""

    name: str
    form: Literal["hf", "orbax", "torch"]
    files: tuple[Path, ...]
    tensors: dict[str, np.ndarray]
    config: VideoMAEConfig | None
    """What its own description says; None where there is none."""
    args: Mapping[str, Any]
    """The command line of the original's run, where the checkpoint has it."""
    processing: Processing | None = None
    """How clips are made for it; None where it does not say."""
    warnings: tuple[str, ...] = ()


def read_source(name: str, key: str | None = None) -> Source:
    """Read a file, a Hugging Face folder or hub id, a work folder or a step folder of Orbax.

    `key` is the entry of a pickle that holds the weights.
    """
    path = Path(name)
    if path.is_file():
        return _read_file(path, key)
    if orbax.is_run(path):
        return _read_orbax(path)
    return _read_hugging_face(name, path)


def _read_orbax(path: Path) -> Source:
    folder = orbax.find_evaluated_folder(path)
    config, params = orbax.read_params(folder)
    files = tuple(sorted(each for each in folder.rglob("*") if each.is_file()))
    tensors, processing = original_from_tree(params, config), read_processing(folder)
    return Source(str(path), "orbax", files, tensors, config, {}, processing)


def _read_file(path: Path, key: str | None) -> Source:
    args: Mapping[str, Any] = {}
    note: Any = None
    warnings: tuple[str, ...] = ()
    if path.suffix == ".safetensors":
        tensors = hugging_face.read_safetensors(path)
    elif path.suffix in PICKLES:
        tensors, args, note, warnings = _read_pickle(path, key)
    else:
        raise InputError(f"{path} is neither .safetensors nor a pickle ({', '.join(PICKLES)})")
    config, processing = None, _processing_of_run(args)
    if isinstance(note, dict):
        config, processing = _our_description(path, note)
    elif _is_hugging_face(tensors) and (path.parent / "config.json").is_file():
        config, processing = read_config(path.parent), read_processing(path.parent)
    return Source(str(path), "torch", (path,), original_names(tensors), config, args, processing, warnings)


def _read_pickle(
    path: Path, key: str | None = None
) -> tuple[dict[str, np.ndarray], Mapping[str, Any], Any, tuple[str, ...]]:
    """See `pickles.Pickle`."""
    need_torch(f"{path} is a pickle of PyTorch")
    from .pickles import read_pickle

    return read_pickle(path, key)


def need_torch(what: str) -> None:
    """Raise InputError unless torch is installed; `what` is a sentence of what it is needed for."""
    if find_spec("torch") is None:
        raise InputError(f"{what}, which needs torch: pip install torch")


def _processing_of_run(args: Mapping[str, Any]) -> Processing | None:
    """That of a run of the original code, by its command line; None where there is none.

    Something-Something is sampled evenly there whatever the rate; pre-training knows no data set.
    """
    if type(args.get("input_size")) is not int:
        return None
    numbers = {"sampling_rate": "sampling_rate"}
    known: dict[str, Any] = {}
    if "data_set" in args:
        even = args["data_set"] == "SSV2" or args.get("sparse_sample") is True
        known["sampling"] = "uniform" if even else "dense"
        numbers |= {"num_segments": "test_num_segment", "num_crops": "test_num_crop"}
    known |= {ours: args[name] for ours, name in numbers.items() if type(args.get(name)) is int}
    if args.get("mask_type") in ("tube", "random"):
        known["mask_type"] = args["mask_type"]
        known |= {"mask_ratio": args["mask_ratio"]} if type(args.get("mask_ratio")) is float else {}
    try:
        return Processing.for_size(args["input_size"], **known)
    except ValueError:  # Numbers that no run can have had.
        return None


def _our_description(path: Path, note: Mapping[str, Any]) -> tuple[VideoMAEConfig, Processing | None]:
    """What was written here beside the weights."""
    try:
        said = note.get(KEY)
        processing = Processing.from_dict(said) if isinstance(said, dict) else None
        return VideoMAEConfig(**note["config"]), processing
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} has a videomae_jax entry that is not a configuration: {error}") from error


def _read_hugging_face(name: str, path: Path) -> Source:
    if path.suffix in (*PICKLES, ".safetensors") and not path.exists():
        raise InputError(f"{name} does not exist")
    folder = hugging_face.find_folder(
        name, patterns=("*.json", "*.safetensors", "pytorch_model*.bin", hugging_face.CARD)
    )
    files = hugging_face.weight_files(folder, name, pickles=True)
    config = read_config(folder)
    tensors: dict[str, np.ndarray] = {}
    for file in files:
        safe = file.suffix == ".safetensors"
        tensors |= hugging_face.read_safetensors(file) if safe else _read_pickle(file)[0]
    said = tuple(folder / name for name in ("config.json", *FILES) if (folder / name).is_file())
    processing = read_processing(folder)
    return Source(name, "hf", (*said, *files), original_names(tensors), config, {}, processing)


def _is_hugging_face(tensors: Mapping[str, np.ndarray]) -> bool:
    return any("embeddings.patch_embeddings." in name or ".layernorm_before." in name for name in tensors)


def select_rows(source: Source, rows: list[int]) -> Source:
    """The classifier whose head has only these rows, in this order: a K710 head made one for K400 to K700."""
    heads = {name: tensor for name, tensor in source.tensors.items() if name.startswith("head.")}
    if not heads:
        raise InputError(f"{source.name} has no head to select rows of")
    count = min(len(head) for head in heads.values())
    if not rows or not all(0 <= row < count for row in rows):
        raise InputError(f"{source.name} has a head of {count} rows, and the label map asks for others")
    tensors = source.tensors | {name: head[rows] for name, head in heads.items()}
    if (config := source.config) is not None:
        names = tuple(config.id2label[row] for row in rows) if len(config.id2label) == count else ()
        config = replace(config, num_labels=len(rows), id2label=names)
    return replace(source, tensors=tensors, config=config)


def digests(files: tuple[Path, ...]) -> list[dict[str, Any]]:
    """Name, size and sha256 of each file."""
    rows = []
    for file in files:
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        rows.append({"file": str(file), "bytes": file.stat().st_size, "sha256": digest})
    return rows
