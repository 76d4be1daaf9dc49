"""How clips are made for a model, as each form of a checkpoint says it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from videomae_jax.checkpoints.hugging_face import find_folder
from videomae_jax.checkpoints.orbax import find_evaluated_folder, read_description
from videomae_jax.errors import InputError
from videomae_jax.files import read_json
from videomae_jax.processing import FILES, Processing

KEY = "processing"
"""Where a description of converted weights says it; that of a run follows from the run's settings."""


def read_processing(
    source: str | Path, revision: str | None = None, subfolder: str = "", local_files_only: bool = False
) -> Processing | None:
    """That of a Hugging Face folder or hub id, a work folder or a step folder; None where it says nothing.

    Raises InputError for a file that is not understood, and where there is no such repository or folder.
    """
    path = Path(source, subfolder)
    if not path.exists():
        path = find_folder(str(source), revision, FILES, subfolder, local_files_only)
    if file := next((path / name for name in FILES if (path / name).is_file()), None):
        return _read_file(file)
    if (path / "config.json").is_file():
        return None
    try:
        folder = find_evaluated_folder(path)
    except InputError:
        return None
    try:
        return processing_of(read_description(folder))
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder} describes how clips are made in a form that is not understood: {error!r}"
        ) from error


def _read_file(file: Path) -> Processing:
    what = "a processor's configuration"
    values = read_json(file, what)
    try:
        return Processing.from_dict(values)
    except ValueError as error:
        raise InputError(f"{file} is not {what}: {error}") from error


def processing_of(description: Mapping[str, Any]) -> Processing:
    """That of a step folder, from what was saved with it."""
    if isinstance(said := description.get(KEY), dict):
        return Processing.from_dict(said)
    run = description["config"]
    data, test = run.get("data", {}), run.get("test", {})
    known = {name: data.get(name) for name in ("sampling", "sampling_rate")}
    known |= {name: test.get(name) for name in ("num_segments", "num_crops")}
    known |= {name: run.get(name) for name in ("mask_type", "mask_ratio")}
    return Processing.for_size(run["model"]["image_size"], **known)
