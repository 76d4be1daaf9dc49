"""Trees of parameters, as Flax has them: their leaves by path, a comparison, and a fingerprint."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jax.tree_util import keystr, tree_leaves_with_path

from videomae_jax.errors import InputError


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Leaves of a nested dict by dotted path."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat


def nest(flat: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The inverse of `flatten`."""
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *parents, last = path.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return tree


def compare_trees(place: Path | str, saved: Any, wanted: Any) -> None:
    """Raise InputError unless two trees of things with shape and dtype agree in every path."""
    have, want = (
        {
            keystr(path, simple=True, separator="/"): f"{leaf.dtype}{tuple(leaf.shape)}"
            for path, leaf in tree_leaves_with_path(tree)
        }
        for tree in (saved, wanted)
    )
    problems = [f"missing {path} {want[path]}" for path in want.keys() - have.keys()]
    problems += [f"unexpected {path} {have[path]}" for path in have.keys() - want.keys()]
    shared = have.keys() & want.keys()
    problems += [f"{path} is {have[path]}, not {want[path]}" for path in shared if have[path] != want[path]]
    if problems:
        raise InputError(f"{place} does not fit this model:\n  " + "\n  ".join(sorted(problems)))


def params_digest(params: Any) -> str:
    """SHA-256 of their paths and float32 values."""
    digest = hashlib.sha256()
    for path, leaf in tree_leaves_with_path(params):
        digest.update(keystr(path).encode())
        digest.update(np.asarray(leaf, np.float32).tobytes())
    return digest.hexdigest()
