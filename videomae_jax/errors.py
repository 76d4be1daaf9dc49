"""The two kinds of failure that a user can fix, and how they are shown; all else keeps its stack trace."""

import logging
import os
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


class InputError(ValueError):
    """What was asked for makes no sense or does not exist (exit code 2)."""


class RunError(RuntimeError):
    """The work was started and had to stop (exit code 1)."""


def no_devices(error: Exception) -> str:
    """What to say where JAX could not start the devices that it is to use; nothing for other errors."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames or Path(frames[-1].filename).name != "xla_bridge.py":
        return ""
    reason = str(error).partition(": ")[2].partition(" (set JAX_PLATFORMS")[0].rstrip(".") or "there are none"
    if "ABORTED" in reason:
        return (
            f"another process has the TPU, which serves one at a time ({reason}); end that process: "
            "if it is a notebook that has used JAX, restart its kernel"
        )
    asked = os.environ.get("JAX_PLATFORMS", "")
    way_out = f"; install JAX for JAX_PLATFORMS={asked}, or unset that variable" if asked else ""
    return f"JAX could not start its devices: {reason}{way_out}"


def printable(text: str, keep: str = "") -> str:
    """Text that is safe to print: control characters, and bytes that are not text, are escaped."""
    return "".join(
        each if each.isprintable() or each in keep else each.encode("unicode_escape").decode()
        for each in in_utf8(text)
    )


def some(names: Iterable[str], most: int = 20) -> str:
    """The first of many names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def in_utf8(text: str) -> str:
    """The text with an escape for each byte of a file name that is none."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


@contextmanager
def logged_on_stderr() -> Iterator[None]:
    """What the package logs, such as weights that it draws anew, is a line like any other of a command."""
    log, handler = logging.getLogger("videomae_jax"), logging.StreamHandler()
    handler.setFormatter(logging.Formatter("videomae-jax: %(message)s"))
    log.addHandler(handler)
    log.propagate, level = False, log.level
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.setLevel(level)
        log.propagate = True
        log.removeHandler(handler)
