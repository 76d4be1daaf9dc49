"""How steps are compiled: in what order, announced, as it can take minutes, and kept for the next run."""

import hashlib
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import jax

from videomae_jax.files import cache_folder

_PROCESSORS = Path("/proc/cpuinfo")
_OF_A_KIND = (
    *("vendor_id", "cpu family", "model", "model name", "stepping", "flags", "Features"),
    *("CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision"),
)
"""What processors that understand each other's programs have in common, as Linux names it."""
_LITTLE_MEMORY: tuple[dict[str, str | bool | int], ...] = (
    {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"},
    {"xla_cpu_enable_concurrency_optimized_scheduler": False},
)
"""XLA's options of one meaning: that of JAX 0.9.1 and later, which take the older one here and ignore it."""


@cache
def compiler_options(platform: str, called_once: bool = False) -> dict[str, str | bool | int]:
    """What XLA is told for a platform beside its defaults.

    On a CPU, to choose an order that needs little memory, as by default it computes first what depends on
    nothing, such as the zeros that a loop over layers replaces with their gradients one by one, and keeps
    them for the whole step; and not to optimise for long what is called once.
    """
    once = {"xla_backend_optimization_level": 1} if called_once else {}
    for options in (*_LITTLE_MEMORY, {}) if platform == "cpu" else ():
        with suppress(jax.errors.JaxRuntimeError):  # Where XLA has no such option.
            jax.jit(lambda: 0, compiler_options=options | once).lower().compile()
            return options | once
    return {}


def keep_compiled_programs() -> None:
    """Let JAX keep what it compiles in a cache folder of this user alone.

    A folder that is chosen already (JAX_COMPILATION_CACHE_DIR) stays. A home folder can be shared by machines
    whose processors do not understand each other's programs: for a CPU there is a folder for each kind of
    processor, and none where the kind is not known.
    """
    use = "compiled" if jax.default_backend() != "cpu" else _use_of_this_processor()
    if _chosen_folder() or not use:
        return
    folder = cache_folder(use)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        print(f"videomae-jax: compiled programs are not kept for the next run: {error}", file=sys.stderr)
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))


def _use_of_this_processor() -> str | None:
    try:
        first, *_ = _PROCESSORS.read_text("utf-8", "replace").split("\n\n")
    except OSError:
        return None
    pairs = (line.partition(":") for line in first.splitlines())
    kind = [f"{name.strip()}:{value.strip()}" for name, _, value in pairs if name.strip() in _OF_A_KIND]
    return f"compiled-{hashlib.sha256(chr(0).join(kind).encode()).hexdigest()[:16]}" if kind else None


def _chosen_folder() -> str | None:
    return jax.config.values["jax_compilation_cache_dir"]


def announced(
    step: Callable[..., Any], say: Callable[[str], None], note: Callable[[float], None]
) -> Callable[..., Any]:
    """`step`, which says when its first call begins and how long it took: nearly all is compiling.

    `note` is told the seconds.
    """
    called = False

    def call(*args: Any) -> Any:
        nonlocal called
        if called:
            return step(*args)
        called, began = True, time.perf_counter()
        say(f"{'compiling':>13}  the training step")
        result = step(*args)
        seconds, kept = time.perf_counter() - began, _chosen_folder()
        note(seconds)
        say(f"{'compiled':>13}  in {seconds:.1f} s" + (f", kept in {kept}" if kept else ""))
        return result

    return call
