"""Slices of TPU chips and hosts of GPUs, by name."""

import os
import re
from dataclasses import dataclass
from math import prod
from typing import ClassVar

from videomae_jax.errors import InputError
from videomae_jax.hardware import CHIPS, Chip, Hardware
from videomae_jax.plan.gpus import GPUS, Gpu

FRACTION = "XLA_CLIENT_MEM_FRACTION"
"""The variable that says how much of a GPU's memory JAX takes; it is 0.75 where nothing is said."""
_OLD_FRACTION = "XLA_PYTHON_CLIENT_MEM_FRACTION"


@dataclass(frozen=True)
class Slice:
    """A slice by the name that the compiler knows it by, such as v5e:16x16."""

    topology: str
    chip: Chip
    shape: tuple[int, ...]

    noun: ClassVar[str] = "slice"
    unit: ClassVar[str] = "chip"

    @property
    def chips(self) -> int:
        return prod(self.shape)

    @property
    def host_bounds(self) -> tuple[int, int, int]:
        """Chips of one host along each axis of the slice."""
        if self.chips > self.chip.largest_host:
            return (2, 2, 1)
        x, y, z = (*self.shape, 1, 1)[:3]
        return (x, y, z)

    @property
    def hosts(self) -> int:
        return self.chips // prod(self.host_bounds)

    @property
    def hardware(self) -> Hardware:
        return Hardware("tpu", self.topology)

    @property
    def limit_bytes(self) -> int:
        """Memory that a program can use of one chip."""
        return self.chip.hbm_bytes


@dataclass(frozen=True)
class Gpus:
    """Hosts with as many GPUs each, by a name such as h100:8 or h100:2x8."""

    topology: str
    chip: Gpu
    hosts: int
    per_host: int
    fraction: float
    """Of the memory: what JAX takes."""

    noun: ClassVar[str] = "GPUs"
    unit: ClassVar[str] = "GPU"

    @property
    def chips(self) -> int:
        return self.hosts * self.per_host

    @property
    def hardware(self) -> Hardware:
        return self.chip.hardware

    @property
    def limit_bytes(self) -> int:
        """Memory that a program can use of one GPU."""
        return int(self.fraction * self.chip.memory_bytes)


Target = Slice | Gpus
"""What a step is compiled for."""


def read_target(topology: str) -> Target:
    """The slice or GPUs of a name; raises InputError where there are none of it."""
    kind = topology.split(":")[0]
    return _read_gpus(topology) if kind in GPUS else _read_slice(topology)


def _read_gpus(topology: str) -> Gpus:
    kind, _, sizes = topology.partition(":")
    found = re.fullmatch(r"(?:([1-9]\d*)x)?([1-9]\d*)", sizes)
    if not found:
        raise InputError(
            f"--topology {topology} names no GPUs: write how many, as {kind}:8, or how many hosts with how "
            f"many GPUs each, as {kind}:2x8"
        )
    return Gpus(topology, GPUS[kind], int(found[1] or 1), int(found[2]), _memory_fraction())


def _memory_fraction() -> float:
    said = os.environ.get(FRACTION) or os.environ.get(_OLD_FRACTION) or "0.75"
    try:
        fraction = float(said)
    except ValueError:
        fraction = 0
    if not 0 < fraction <= 1:
        raise InputError(f"{FRACTION}={said} is no part of a GPU's memory: set a number over 0, at most 1")
    return fraction


def _read_slice(topology: str) -> Slice:
    found = re.fullmatch(r"([a-z0-9]+):(\d+(?:x\d+){1,2})", topology)
    kind, sizes = (found[1], tuple(map(int, found[2].split("x")))) if found else ("", ())
    axes = 3 if kind in ("v4", "v5p") else 2
    if kind not in CHIPS or len(sizes) != axes or 0 in sizes:
        raise InputError(
            f"--topology {topology} names no slice and no GPUs: write the kind of chip and the chips along "
            "each axis of a slice, such as v5e:2x4, v5e:16x16, v6e:2x4, v4:2x2x1 or v5p:4x4x8, or the kind "
            f"and number of GPUs, such as h100:8. Kinds are {', '.join((*CHIPS, *GPUS))}; v4 and v5p have "
            "three axes, the other TPUs two"
        )
    found_slice = Slice(topology, CHIPS[kind], sizes)
    if any(size % bound for size, bound in zip(sizes, found_slice.host_bounds, strict=False)):
        raise InputError(
            f"--topology {topology}: a host has 2x2 chips, so in larger slices the first two numbers are even"
        )
    return found_slice
