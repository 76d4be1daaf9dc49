"""What a file of weights holds, whatever wrote it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

OURS = "videomae_jax"
"""Entry under which a .pth written here says its configuration."""


@dataclass(frozen=True)
class Contents:
    """Tensors under the names of the file, and what else it says."""

    tensors: dict[str, np.ndarray]
    args: Mapping[str, Any]
    """The command line of the original's run."""
    note: Any = None
    """What was written here beside the weights."""
    warnings: tuple[str, ...] = ()
    """Of weights that were there too."""
