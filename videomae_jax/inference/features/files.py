"""Files of features: .npz, .safetensors, or .npy with a .json beside it; whole or not there at all.

Whatever the form, a file holds `features` (n, ...), float32, arrays with a row for each of them, their names,
and `about`: what the features are and how they were made.
"""

import hashlib
import json
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from jaxtyping import Float32, Shaped
from safetensors import SafetensorError, safe_open

from videomae_jax.checkpoints.hugging_face import write_safetensors
from videomae_jax.errors import InputError
from videomae_jax.files import beside, flush

FORMS = (".npz", ".npy", ".safetensors")

Columns = Mapping[str, Shaped[np.ndarray, "n ..."]]


@dataclass(frozen=True, eq=False)
class FeatureFile:
    """What a file holds."""

    features: Float32[np.ndarray, "n ..."]
    """Of a .npy file only those rows are read that are used."""
    names: tuple[str, ...]
    """Of the videos, where rows are videos."""
    columns: dict[str, Shaped[np.ndarray, "n ..."]]
    """Such as `labels` (-1 where unknown) and `seconds` (begin and end)."""
    about: dict[str, Any]


class FeatureWriter:
    """Takes rows of features, keeps them on disk, and makes a file of them when all are there.

    A context manager: what is half-written is removed at its end, and until `finish` nothing is under the
    file's own name. Whoever writes holds the file's lock.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._shape: tuple[int, ...] | None = None
        self._digest = hashlib.sha256()

    def __enter__(self) -> "FeatureWriter":
        with ExitStack() as held:
            self._folder = held.enter_context(beside(self._path))
            self._folder.mkdir()
            self._rows: IO[bytes] = held.enter_context((self._folder / "rows").open("wb"))
            self._held = held.pop_all()
        self._partial = self._folder / self._path.name
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def append(self, rows: Float32[np.ndarray, "n ..."]) -> None:
        """Add rows, all of one shape."""
        count, *row = rows.shape
        if self._shape is not None and self._shape[1:] != tuple(row):
            raise ValueError(f"rows of shape {row} do not go with those of shape {self._shape[1:]}")
        self._shape = (self._shape[0] + count if self._shape else count, *row)
        content = np.ascontiguousarray(rows).data
        self._digest.update(content)
        self._rows.write(content)

    def finish(self, names: Sequence[str], columns: Columns, about: Mapping[str, Any]) -> None:
        """Write the file, in the form that its suffix says; `about` is given the features' SHA-256 too."""
        assert self._shape is not None, "no rows"
        self._rows.close()
        about = {**about, "sha256": self._digest.hexdigest()}
        # Read from the disk as they are written, however many there are.
        rows, empty = self._folder / "rows", not all(self._shape)
        features = (
            np.zeros(self._shape, np.float32) if empty else np.memmap(rows, np.float32, "r", 0, self._shape)
        )
        match self._path.suffix:
            case ".npz":
                arrays = {"features": features, "names": np.array(names, np.str_), "about": json.dumps(about)}
                np.savez(self._partial, **arrays, **columns)  # type: ignore[arg-type]
            case ".npy":
                np.save(self._partial, features)
                lists = {name: array.tolist() for name, array in columns.items()}
                described = json.dumps({"names": names, "about": about} | lists)
                self._partial.with_suffix(".json").write_text(described + "\n")
            case ".safetensors":
                metadata = {"names": json.dumps(names), "about": json.dumps(about)}
                write_safetensors(self._partial, {"features": features, **columns}, metadata)
        flush(self._partial)
        self._partial.replace(self._path)
        # The description of a .npy after it: that of other features would be refused, by their digest.
        for partial in self._folder.glob("*.json"):
            flush(partial)
            partial.replace(self._path.with_suffix(".json"))


def read_features(path: Path) -> FeatureFile:
    """Read a file written here; raises InputError if it is not one, or its features were changed."""
    found = open_features(path)
    digest = hashlib.sha256()
    for row in found.features:
        digest.update(np.ascontiguousarray(row).data)
    if digest.hexdigest() != found.about.get("sha256"):
        raise InputError(
            f"{path} is damaged: its features are not those that its description gives the SHA-256 of"
        )
    return found


def open_features(path: Path) -> FeatureFile:
    """As `read_features`, for a file whose features are known to be those that were written."""
    try:
        if path.suffix == ".npy":
            described = json.loads(path.with_suffix(".json").read_text())
            names, about = described.pop("names"), described.pop("about")
            columns = {name: np.array(values) for name, values in described.items()}
            return FeatureFile(np.load(path, mmap_mode="r"), tuple(names), columns, about)
        if path.suffix == ".npz":
            with np.load(path) as archive:
                columns = {name: archive[name] for name in archive.files}
            about, names = json.loads(str(columns.pop("about"))), columns.pop("names").tolist()
        else:
            with safe_open(path, "numpy") as file:
                about, names = (json.loads(file.metadata()[name]) for name in ("about", "names"))
                columns = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return FeatureFile(columns.pop("features"), tuple(names), columns, about)
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile, SafetensorError) as error:
        raise InputError(f"{path} is not a file of features written by videomae-jax: {error!r}") from error
