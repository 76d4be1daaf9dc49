"""The head with which fine-tuning starts: that of the weights, rows of it, or a fresh one."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from videomae_jax.class_names import same_classes
from videomae_jax.model_config import are_numbers

Rows = tuple[int | None, ...]
"""For each class the row of another head; None for a fresh one."""
_SHOWN = 5


def rows_to_start_with(old: Sequence[str], new: Sequence[str]) -> tuple[Rows | None, str]:
    """Which rows of a head for the classes `old` serve in one for `new`, or None for not one, and why."""
    named = [not are_numbers(names) for names in (old, new)]
    if all(named):
        if tuple(old) == tuple(new):
            return tuple(range(len(new))), f"kept: the weights are for the same {len(new)} classes"
        return _by_name(old, new)
    if len(old) != len(new):
        return None, f"drawn anew: the weights are for {len(old)} classes, these are {len(new)}"
    if any(named):
        which = "these have no names: give --data.classes" if named[0] else "the weights know no names"
        return None, f"drawn anew: the weights are for {len(old)} classes too, but {which}"
    return tuple(range(len(new))), (
        f"kept: neither the weights nor these {len(new)} classes have names, and the numbers are taken to "
        "mean the same; if they do not, name the classes"
    )


def _by_name(old: Sequence[str], new: Sequence[str]) -> tuple[Rows | None, str]:
    rows = same_classes(new, old)
    fresh = [name for name, row in zip(new, rows, strict=True) if row is None]
    if len(fresh) == len(new):
        return None, (
            f"drawn anew: none of these {len(new)} classes is among the {len(old)} of the weights, such as "
            f"{old[0]!r}"
        )
    taken = len(new) - len(fresh)
    said = f"taken by name: {taken} of {len(new)} classes are among the {len(old)} of the weights"
    if fresh:
        more = f" and {len(fresh) - _SHOWN} more" if len(fresh) > _SHOWN else ""
        said += f"; {len(fresh)} drawn anew: {', '.join(fresh[:_SHOWN])}{more}"
    return rows, said


def picked_rows(tensors: Mapping[str, np.ndarray], rows: Rows, std: float, key: jax.Array) -> dict[str, Any]:
    """`head.weight` (y, d) and `head.bias` (y) with these rows of what is there; fresh ones are drawn at
    `std`, with a bias of 0."""
    given = np.array([-1 if row is None else row for row in rows])
    parts = {name: tensor[given] for name, tensor in tensors.items() if name.startswith("head.")}
    for name, part in parts.items():
        fresh = part[given < 0]
        drawn = std * jax.random.normal(key, fresh.shape) if name == "head.weight" else np.zeros_like(fresh)
        part[given < 0] = np.asarray(drawn).astype(part.dtype)
    return parts
