"""Let the C library keep memory that was freed, so that on a CPU each step finds that of the last one.

XLA asks malloc for the temporaries of a step anew each time. glibc maps pieces that large from the system and
gives them back when they are freed, so every step begins with a page fault for each 4 KB, which the kernel
fills with zeros first.
"""

import ctypes
import os
import sys
from glob import glob

_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
"""Parameters of glibc's mallopt (malloc.h)."""
_ACCELERATORS = ("/dev/nvidia[0-9]*", "/dev/accel*", "/dev/vfio/[0-9]*", "/dev/kfd")
"""What NVIDIA GPUs, TPUs and AMD GPUs are to Linux."""
_OWN = (
    "MALLOC_ARENA_MAX",
    "MALLOC_MMAP_MAX_",
    "MALLOC_MMAP_THRESHOLD_",
    "MALLOC_TRIM_THRESHOLD_",
    "GLIBC_TUNABLES",
)
"""Variables by which a user has chosen already."""


def keep_freed_memory() -> bool:
    """Make malloc keep what is freed in this process, if it will compute on a CPU; returns whether it does.

    To be called before there are threads, which get an arena each, where large pieces are mapped anew
    whatever the settings. Does nothing beside accelerators, without glibc, and where the user has set one of
    malloc's variables. Worker processes are not affected.
    """
    if not _computes_on_cpu() or any(name in os.environ for name in _OWN) or sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl
        return False
    settings = ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1))
    return all(mallopt(parameter, value) for parameter, value in settings)


def _computes_on_cpu() -> bool:
    """Whether JAX will find nothing but the CPU, without starting it."""
    chosen = os.environ.get("JAX_PLATFORMS")
    return chosen.startswith("cpu") if chosen else not any(glob(pattern) for pattern in _ACCELERATORS)
