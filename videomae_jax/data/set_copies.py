"""Copies on this machine of sets at s3://, which array_record does not read in place, as it does at gs://.

A copy belongs to what is in the store: a set that changes there is copied anew. Shards are copied once their
split is read.
"""

import hashlib
from pathlib import Path
from typing import Any

from videomae_jax.data.stores import store_answers
from videomae_jax.files import cache_folder, locked_file, replacing

_SHARD = ".array_record"


def copy_of(folder: str, split: str | None) -> str:
    """The folder of the copy, with the shards of this split."""
    import fsspec

    with store_answers(folder):
        store = fsspec.filesystem("s3")
        root = store._strip_protocol(folder).rstrip("/") + "/"
        files = {name.removeprefix(root): about for name, about in store.find(root, detail=True).items()}
        copy = _place(folder, files)
        wanted = [name for name in files if _SHARD not in name or f"-{split}{_SHARD}" in name]
        if all((copy / name).exists() for name in wanted):
            return str(copy)
        with locked_file(copy, "set", wait=True):
            for name in wanted:
                if not (copy / name).exists():
                    (copy / name).parent.mkdir(parents=True, exist_ok=True)
                    with replacing(copy / name) as partial:
                        store.get_file(root + name, str(partial))
    return str(copy)


def _place(folder: str, files: dict[str, dict[str, Any]]) -> Path:
    """Where the copy is: a name that changes with what is in the store."""
    told = [f"{name}\t{about.get('size')}\t{about.get('ETag')}" for name, about in sorted(files.items())]
    digest = hashlib.sha256("\n".join([folder, *told]).encode("utf-8", "surrogateescape")).hexdigest()
    return cache_folder("sets") / digest[:20]
