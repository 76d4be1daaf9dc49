"""Settings of a command from its command line, where the size of frames is written as 224 or 160x224."""

from collections.abc import Sequence
from typing import Any, get_args

from videomae_jax.files import check_paths
from videomae_jax.model_config import FrameSize, VideoMAEConfig

Arguments = Sequence[str]


def parse(kind: type[Any], command: str, arguments: Arguments, description: str | None = None) -> Any:
    """Read a dataclass from the command line; tyro explains and exits with 2 when that fails."""
    import tyro
    from tyro.conf import Suppress
    from tyro.constructors import ConstructorRegistry

    # Marked here and not where it is defined: tyro is loaded only for commands.
    VideoMAEConfig.__annotations__["num_channels"] = Suppress[int]
    registry = ConstructorRegistry()
    registry.primitive_rule(_frame_size_rule)
    with registry:
        read = tyro.cli(kind, prog=f"videomae-jax {command}", description=description, args=list(arguments))
    check_paths(read)
    return read


def _frame_size_rule(asked: Any) -> Any:
    """One word for a number or a pair: two would take the arguments that follow."""
    from tyro.constructors import PrimitiveConstructorSpec

    kinds = get_args(asked.type)
    if int not in kinds or FrameSize not in kinds:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="INT|HEIGHTxWIDTH",
        instance_from_str=lambda words: _frame_size(words[0]),
        is_instance=lambda value: value is None or isinstance(value, int | tuple),
        str_from_instance=lambda value: [
            "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
        ],
    )


def _frame_size(word: str) -> int | FrameSize:
    """Raises ValueError for what is neither a number nor two with an x between."""
    try:
        sides = [int(side) for side in word.lower().split("x")]
    except ValueError:
        sides = []
    if len(sides) == 1:
        return sides[0]
    if len(sides) == 2:
        return sides[0], sides[1]
    raise ValueError(f"{word!r} is no size in pixels: give one number, or height x width as 160x224")
