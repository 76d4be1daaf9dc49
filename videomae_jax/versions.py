"""Which versions are at work, and which command."""

import shlex
import sys
from importlib import metadata
from pathlib import Path


def version_of(package: str) -> str:
    """The installed version of a package, or "not installed" (as in a checkout that is only on the path)."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def command_line() -> str:
    """The command that this process was started with, as a shell takes it."""
    name = Path(sys.argv[0]).name
    return shlex.join(["videomae-jax" if name == "cli.py" else name, *sys.argv[1:]])
