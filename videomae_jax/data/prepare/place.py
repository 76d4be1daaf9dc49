"""Where a set is written: a folder of this machine, or an address at an object store.

A file gets its name there when it is whole: by a rename in a folder, and in a store because stores show a
file once all of it has come.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from videomae_jax.data.stores import in_store, open_store, sizes_below, store_answers
from videomae_jax.files import address_of, beside, cache_folder, check_path, flush, remove

WORK_FOLDER = ".prepare"
"""Holds what is known of an unfinished set."""
_AT_ONCE = 32
"""Small files that are asked of a store at a time."""


@dataclass(frozen=True)
class Place:
    """The folder or the address of a set; paths of files are those below it."""

    address: str
    remote: bool

    @classmethod
    def of(cls, out: Path) -> "Place":
        """That of a path, in which an address has lost a slash; raises InputError for other addresses."""
        address = address_of(out)
        if not in_store(address):
            check_path(out, "--out")
        return cls(address or str(out), in_store(address))

    def __str__(self) -> str:
        return self.address

    @property
    def scratch(self) -> Path:
        """The folder of this machine in which files are made."""
        if not self.remote:
            return Path(self.address) / WORK_FOLDER
        return (
            cache_folder("prepare") / hashlib.sha256(self.address.encode("utf-8", "replace")).hexdigest()[:20]
        )

    def sizes(self) -> dict[str, int]:
        """The bytes of each file that is there."""
        with store_answers(self.address):
            return sizes_below(self.address)

    def is_free(self) -> bool:
        """Whether nothing is there, but perhaps the work folder."""
        with store_answers(self.address):
            store, root = open_store(self.address)
            if not store.exists(root):
                return True
            names = (name.rstrip("/").rpartition("/")[2] for name in store.ls(root, detail=False))
            return all(name == WORK_FOLDER for name in names)

    def read(self, files: Sequence[str]) -> list[bytes]:
        """What these files hold, which are read side by side."""
        with store_answers(self.address):
            store, root = open_store(self.address)
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                return list(pool.map(store.cat_file, [f"{root}/{file}" for file in files]))

    def read_json(self, file: str) -> Any:
        """What a JSON file holds; None where there is none."""
        with store_answers(self.address):
            store, root = open_store(self.address)
            return json.loads(store.cat_file(f"{root}/{file}")) if store.exists(f"{root}/{file}") else None

    @contextmanager
    def making(self, file: str) -> Iterator[Path]:
        """Give a new path of this machine; what is written there becomes the file."""
        with beside(self.scratch / PurePosixPath(file).name) as partial:
            yield partial
            self.put(partial, file)

    def put(self, made: Path, file: str) -> None:
        """Let what was made in `scratch` become the file."""
        if not self.remote:
            flush(made)
            made.replace(Path(self.address) / file)
            return
        with store_answers(self.address, "written"):
            store, root = open_store(self.address)
            store.put_file(str(made), f"{root}/{file}")

    def clear(self) -> None:
        """Remove what is of no use once the set is complete."""
        if self.remote:
            with store_answers(self.address, "written"):
                store, root = open_store(self.address)
                with ThreadPoolExecutor(_AT_ONCE) as pool:
                    list(pool.map(store.rm_file, store.find(f"{root}/{WORK_FOLDER}")))
        shutil.rmtree(self.scratch, ignore_errors=True)

    def remove_left_over(self) -> None:
        """Remove what killed processes of this machine have left half-made."""
        for path in self.scratch.glob(".partial-*"):
            remove(path)
