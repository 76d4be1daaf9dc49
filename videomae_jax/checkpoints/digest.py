"""A fingerprint of weights, by which they are told apart wherever they are stored."""

import hashlib
from typing import Any

import jax
import numpy as np


def params_digest(params: Any) -> str:
    """SHA-256 of their paths and float32 values."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.asarray(leaf, np.float32).tobytes())
    return digest.hexdigest()
