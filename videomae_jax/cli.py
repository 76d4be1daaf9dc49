"""The command `videomae-jax`: finds the subcommand, reads its settings, turns failures into exit codes.

0 done, 1 the work failed, 2 wrong usage or input, 128 + n ended by signal n with everything saved (143 for
SIGTERM, 130 for Ctrl-C). Modules are imported only by the command that needs them.
"""

import importlib.util
import io
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

from videomae_jax.allocator import keep_freed_memory
from videomae_jax.command_line import Arguments, parse
from videomae_jax.config import FinetuneConfig, HostSettings, PretrainConfig
from videomae_jax.errors import InputError, RunError, logged_on_stderr, no_devices, printable
from videomae_jax.recipe_commands import SAID, plan, show_batch, train_by
from videomae_jax.sizes import SIZES
from videomae_jax.versions import version_of


def _convert(arguments: Arguments) -> int:
    """Convert checkpoints; the package is beside this one in a checkout and inside it in the wheel."""
    name, folder = "videomae_jax.convert", Path(__file__).parents[1] / "convert"
    if importlib.util.find_spec(name) is None:
        spec = importlib.util.spec_from_file_location(name, folder / "__init__.py")
        assert spec is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
    return import_module(f"{name}.command").run(arguments)


def _command(
    module: str, settings: str, function: str, several_hosts: bool = False
) -> Callable[[Arguments], int]:
    """A command whose settings are a dataclass and whose work is a function of it, giving the exit code."""

    def run(arguments: Arguments) -> int:
        found = import_module(module)
        name = next(name for name, (_, command) in COMMANDS.items() if command is run)
        kind, work = getattr(found, settings), getattr(found, function)
        return _on_hosts(kind, name, arguments, work) if several_hosts else work(parse(kind, name, arguments))

    return run


def _on_hosts(kind: type[Any], name: str, arguments: Arguments, work: Callable[[Any], int]) -> int:
    """Do the work of a command as one of the hosts."""
    import tyro

    from videomae_jax.training.compilation import keep_compiled_programs
    from videomae_jax.training.multihost.hosts import connected

    @dataclass(frozen=True)
    class OnHosts:
        settings: Annotated[kind, tyro.conf.arg(name="", prefix_name=False)]  # type: ignore[valid-type]
        hosts: Annotated[HostSettings, tyro.conf.arg(name="", prefix_name=False)] = field(
            default_factory=HostSettings
        )

    chosen = parse(OnHosts, name, arguments, kind.__doc__)
    with connected(**asdict(chosen.hosts)):
        keep_compiled_programs()
        return work(chosen.settings)


COMMANDS: dict[str, tuple[str, Callable[[Arguments], int]]] = {
    "pretrain": (
        SAID["pretrain"],
        train_by("pretrain", PretrainConfig(SIZES["base"]), "k400_base_1600e or tiny"),
    ),
    "finetune": (
        SAID["finetune"],
        train_by("finetune", FinetuneConfig(SIZES["base"]), "k400_base_75e"),
    ),
    "check-data": (
        "say which videos of a list or folder are good, short, odd or bad",
        _command("videomae_jax.data.check", "CheckData", "check_data"),
    ),
    "evaluate": (
        "measure the accuracy of a classifier over several views of each video",
        _command("videomae_jax.inference.evaluation.command", "Evaluate", "evaluate", several_hosts=True),
    ),
    "classify": (
        "name what a classifier sees in videos",
        _command("videomae_jax.inference.classify", "Classify", "classify"),
    ),
    "watch": (
        "name what a classifier sees in a camera, a stream or a growing file",
        _command("videomae_jax.inference.watch.command", "Watch", "watch"),
    ),
    "features": (
        "turn videos, or windows of a long one, into vectors",
        _command(
            "videomae_jax.inference.features.command",
            "ExtractFeatures",
            "extract_features",
            several_hosts=True,
        ),
    ),
    "probe": (
        "measure what frozen features are worth: linear, attentive or nearest neighbours",
        _command("videomae_jax.inference.probe.command", "Probe", "probe", several_hosts=True),
    ),
    "show-batch": (SAID["show-batch"], show_batch),
    "plan": (SAID["plan"], plan),
    "convert": ("turn a checkpoint into another form, or prove that two compute the same", _convert),
    "export": (
        "write a classifier as one StableHLO, ONNX or LiteRT file that runs without this package",
        _command("videomae_jax.inference.export.command", "Export", "export"),
    ),
    "prepare": (
        "store videos as a data set from which clips are read quickly",
        _command("videomae_jax.data.prepare.command", "Prepare", "prepare"),
    ),
    "reconstruct": (
        "draw how a pre-trained model reconstructs the masked part of a video",
        _command("videomae_jax.inference.reconstruction.command", "ReconstructVideo", "reconstruct_video"),
    ),
    "explain": (
        "draw what a model looks at in a video: attention, what bears on a class, token PCA",
        _command("videomae_jax.inference.explain.command", "Explain", "explain"),
    ),
    "serve": (
        "serve a page in the browser on which to try checkpoints",
        _command("videomae_jax.inference.page.command", "Serve", "serve"),
    ),
    "report": (
        "show runs on one page: curves, where the hours went, samples, settings",
        _command("videomae_jax.inference.report.command", "Report", "report"),
    ),
    "demo": (
        "generate videos, pre-train a tiny model on them, and draw what it reconstructs",
        _command("videomae_jax.demo", "Demo", "demo"),
    ),
}


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {what}" for name, (what, _) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: videomae-jax COMMAND ...",
            "",
            *lines,
            "",
            "videomae-jax COMMAND --help shows every setting of a command with its default.",
            "videomae-jax --version prints versions and devices, --completion a script for bash and zsh.",
            "Exit codes: 0 done, 1 the work failed, 2 wrong usage or input, 128 + n ended by signal n.",
        ]
    )


def _versions() -> str:
    import jax

    packages = ("videomae-jax", "jax", "flax", "orbax-checkpoint", "av")
    devices = ", ".join(f"{device.platform}:{device.id} {device.device_kind}" for device in jax.devices())
    return "\n".join([*(f"{name} {version_of(name)}" for name in packages), f"devices: {devices}"])


def _dispatch(arguments: Arguments) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help(), file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(_versions())
        return 0
    if arguments[0] == "--completion":
        from videomae_jax.completion import completion_script

        print(completion_script(COMMANDS, _dispatch, version_of("videomae-jax")), end="")
        return 0
    if arguments[0] not in COMMANDS:
        raise InputError(f"there is no command {arguments[0]!r}; choose from {', '.join(COMMANDS)}")
    return COMMANDS[arguments[0]][1](arguments[1:])


def main(arguments: Arguments | None = None) -> int:
    """Run one command and return its exit code; what a user can fix is said in one paragraph on stderr."""
    if arguments is None:  # In a process of its own.
        keep_freed_memory()
    try:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # File names need not be text.
        with logged_on_stderr():
            return _dispatch(sys.argv[1:] if arguments is None else arguments)
    except InputError as error:
        code, failure = 2, str(error)
    except BrokenPipeError:  # Whoever read the output, such as head, has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    # OSError: a full disk, a folder without permission.
    except (RuntimeError, AssertionError, OSError) as error:
        code, failure = 1, str(error) if isinstance(error, RunError | OSError) else no_devices(error)
        if not failure:
            raise
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Once more ends it at once.
        code, failure = 128 + signal.SIGINT, "stopped by Ctrl-C"
    print(f"videomae-jax: {printable(failure, keep=chr(10))}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
