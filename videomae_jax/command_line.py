"""Settings of a command from its command line."""

from collections.abc import Sequence
from typing import Any

from videomae_jax.files import check_paths

Arguments = Sequence[str]


def parse(kind: type[Any], command: str, arguments: Arguments, description: str | None = None) -> Any:
    """Read a dataclass from the command line; tyro explains and exits with 2 when that fails."""
    import tyro

    read = tyro.cli(kind, prog=f"videomae-jax {command}", description=description, args=list(arguments))
    check_paths(read)
    return read
