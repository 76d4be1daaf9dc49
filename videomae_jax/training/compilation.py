"""Compiled programs are kept for the next run, and compiling, which can take minutes, is announced."""

import sys
import time
from collections.abc import Callable
from typing import Any

import jax

from videomae_jax.files import cache_folder


def keep_compiled_programs() -> None:
    """Let JAX keep what it compiles for a GPU or TPU in a cache folder of this user alone.

    A folder that is chosen already (JAX_COMPILATION_CACHE_DIR) stays. For a CPU nothing is kept: compiling
    takes seconds there, and a home folder can be shared by machines whose processors do not understand each
    other's programs.
    """
    if _chosen_folder() or jax.default_backend() == "cpu":
        return
    folder = cache_folder("compiled")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        print(f"videomae-jax: compiled programs are not kept for the next run: {error}", file=sys.stderr)
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))


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
