"""Copies on this machine of sets at s3://, which array_record does not read in place, as it does at gs://.

A copy belongs to what is in the store: a set that changes there is copied anew. Shards are copied once their
split is read.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from videomae_jax.errors import InputError, RunError
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


@contextmanager
def store_answers(folder: str) -> Iterator[None]:
    """Raise InputError for a package that is not there, and RunError for what a store says, in a sentence."""
    try:
        yield
    except ImportError as error:
        raise InputError(f"{folder}: {error}; pip install gcsfs s3fs") from error
    except (InputError, RunError):
        raise
    except Exception as error:  # Stores have errors of their own, of any kind.
        if "://" not in folder:
            raise
        said = str(error) or type(error).__name__
        raise RunError(
            f"{folder} cannot be read: the store says {said!r}. If it may be a matter of time, run the same "
            "command again; else check the address and who may read it"
        ) from error


def _place(folder: str, files: dict[str, dict[str, Any]]) -> Path:
    """Where the copy is: a name that changes with what is in the store."""
    told = [f"{name}\t{about.get('size')}\t{about.get('ETag')}" for name, about in sorted(files.items())]
    digest = hashlib.sha256("\n".join([folder, *told]).encode("utf-8", "surrogateescape")).hexdigest()
    return cache_folder("sets") / digest[:20]
