"""What devices can do: dtypes and kernels, operations per second, and the memory and hosts of TPU chips."""

import re
from dataclasses import dataclass

GIB = 2**30
PEAK_FLOPS = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
    "NVIDIA A100": 312e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
    "NVIDIA B200": 2250e12,
    "NVIDIA L4": 121e12,
    "Tesla T4": 65e12,
}
"""Dense operations per second in bfloat16, or float16 where there is none, from the makers' data sheets.

By how JAX's names of devices begin.
"""


def peak_flops(device_kind: str) -> float | None:
    """What a device could do at best, by JAX's name of it; None where that is not known, as of CPUs."""
    begins = [name for name in PEAK_FLOPS if re.match(rf"{name}(?![0-9A-Z])", device_kind)]
    return PEAK_FLOPS[max(begins, key=len)] if begins else None


@dataclass(frozen=True)
class Hardware:
    """What a program is compiled for, as far as that decides how it computes."""

    platform: str
    """As JAX calls it: "cpu", "gpu" or "tpu"."""
    kind: str
    """JAX's name of the device, such as "NVIDIA A100-SXM4-80GB"."""
    compute_capability: float | None = None
    """Of NVIDIA GPUs, such as 7.5 of a T4; None of all else."""

    @property
    def dtype(self) -> str:
        """The dtype that "auto" stands for: one that matrix units multiply, and float32 on a CPU."""
        return "float32" if self.platform == "cpu" else self.half_precision

    @property
    def half_precision(self) -> str:
        """The dtype of 16 bits to compute in: NVIDIA GPUs before Ampere multiply float16 alone quickly."""
        before_ampere = self.compute_capability is not None and self.compute_capability < 8
        return "float16" if before_ampere else "bfloat16"

    @property
    def widest_cudnn_head(self) -> int:
        """The widest head that cuDNN's flash attention takes; 0 where there is no such attention."""
        capability = self.compute_capability or 0
        return 256 if capability >= 9 else 128 if capability >= 8 else 0


@dataclass(frozen=True)
class Chip:
    """One kind of TPU chip, each of which is one device to JAX."""

    name: str
    peak_flops: float
    """Dense bfloat16 operations per second."""
    hbm_bytes: int
    """Memory that the compiler lets a program use: what it names when one asks for too much."""
    chip_config: str
    """The compiler's word for how the cores of a chip work together; "megacore" makes two one device."""
    largest_host: int
    """Chips of the largest slice that is one host; larger slices have four a host."""


CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v4", PEAK_FLOPS["TPU v4"], int(30.75 * GIB), "megacore", 4),
        Chip("v5e", PEAK_FLOPS["TPU v5 lite"], int(15.75 * GIB), "default", 8),
        Chip("v5p", PEAK_FLOPS["TPU v5"], int(95.74 * GIB), "megacore", 4),
        Chip("v6e", PEAK_FLOPS["TPU v6 lite"], int(31.25 * GIB), "default", 8),
    )
}
