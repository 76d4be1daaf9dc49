"""Slices of TPU chips."""

import re
from dataclasses import dataclass
from math import prod

from videomae_jax.errors import InputError
from videomae_jax.hardware import CHIPS, Chip


@dataclass(frozen=True)
class Slice:
    """A slice by the name that the compiler knows it by, such as v5e:16x16."""

    topology: str
    chip: Chip
    shape: tuple[int, ...]

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
    def peak_flops(self) -> float:
        return self.chips * self.chip.peak_flops


def read_slice(topology: str) -> Slice:
    """The slice of a name, KIND:AxB or KIND:AxBxC in chips; raises InputError where there is none."""
    found = re.fullmatch(r"([a-z0-9]+):(\d+(?:x\d+){1,2})", topology)
    kind, sizes = (found[1], tuple(map(int, found[2].split("x")))) if found else ("", ())
    axes = 3 if kind in ("v4", "v5p") else 2
    if kind not in CHIPS or len(sizes) != axes or 0 in sizes:
        raise InputError(
            f"--topology {topology} names no slice: write the kind of chip and the chips along each axis, "
            "such as v5e:2x4, v5e:16x16, v6e:2x4, v4:2x2x1 or v5p:4x4x8. Kinds are "
            f"{', '.join(CHIPS)}; v4 and v5p have three axes, the others two"
        )
    found_slice = Slice(topology, CHIPS[kind], sizes)
    if any(size % bound for size, bound in zip(sizes, found_slice.host_bounds, strict=False)):
        raise InputError(
            f"--topology {topology}: a host has 2x2 chips, so in larger slices the first two numbers are even"
        )
    return found_slice
