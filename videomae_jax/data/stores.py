"""Object stores, gs:// and s3://: what they say, which files are there, and files of theirs at hand."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from videomae_jax.errors import InputError, RunError
from videomae_jax.files import beside

STORES = ("gs://", "s3://")


def in_store(path: str | os.PathLike[str]) -> bool:
    """Whether this is an address at one of the stores."""
    return os.fspath(path).startswith(STORES)


@contextmanager
def store_answers(address: str, deed: str = "read") -> Iterator[None]:
    """Raise InputError for a package that is not there, and RunError for what a store says, in a sentence."""
    try:
        yield
    except ImportError as error:
        raise InputError(f"{address}: {error}; pip install gcsfs s3fs") from error
    except (InputError, RunError):
        raise
    except Exception as error:  # Stores have errors of their own, of any kind.
        if "://" not in address:
            raise
        said = str(error) or type(error).__name__
        raise RunError(
            f"{address} cannot be {deed}: the store says {said!r}. If it may be a matter of time, run the "
            "same command again; else check the address and who may read it"
        ) from error


def open_store(address: str) -> tuple[Any, str]:
    """What reads and writes there, or in a folder, as fsspec has it, and what the address is called there.

    Nothing that was seen there is remembered. Raises what the store does; see `store_answers`.
    """
    import fsspec

    if not in_store(address):  # Signs in it have no meaning.
        return fsspec.filesystem("file"), os.path.abspath(address)
    store, root = fsspec.url_to_fs(address, use_listings_cache=False)
    return store, root.rstrip("/")


def sizes_below(address: str) -> dict[str, int]:
    """The bytes of each file below an address, by its path from there."""
    store, root = open_store(address)
    found = store.find(root, detail=True)
    return {name.removeprefix(f"{root}/"): about["size"] for name, about in found.items()}


@contextmanager
def at_hand(address: str, folder: Path) -> Iterator[str]:
    """The path of a file of a store, copied into a folder of this machine for as long as it is used.

    Raises FileNotFoundError and PermissionError, and RunError for all else that a store says.
    """
    with beside(folder / os.path.basename(address)) as copy:
        refused: OSError | None = None
        with store_answers(address):
            store, place = open_store(address)
            try:
                store.get_file(place, str(copy))
            except (FileNotFoundError, PermissionError) as error:
                refused = error
        if refused:
            raise refused
        yield str(copy)
