"""The command `videomae-jax`: finds the subcommand, reads its settings, turns failures into exit codes.

0 done, 1 the work failed, 2 wrong usage or input, 128 + n ended by signal n with everything saved (143 for
SIGTERM, 130 for Ctrl-C). Modules are imported only by the command that needs them.
"""

import importlib.util
import io
import os
import signal
import sys
import textwrap
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal

from videomae_jax.config import FinetuneConfig, HostSettings, PretrainConfig, RunConfig, load_config
from videomae_jax.errors import InputError, RunError, logged_on_stderr, no_devices, printable
from videomae_jax.files import check_paths
from videomae_jax.model_config import SIZES, are_numbers
from videomae_jax.recipes import recipe_files
from videomae_jax.versions import version_of

Arguments = Sequence[str]


def _parse(kind: type[Any], command: str, arguments: Arguments, description: str | None = None) -> Any:
    """Read a dataclass from the command line; tyro explains and exits with 2 when that fails."""
    import tyro

    read = tyro.cli(kind, prog=f"videomae-jax {command}", description=description, args=list(arguments))
    check_paths(read)
    return read


def _train(command: str, default: RunConfig, example: str) -> Callable[[Arguments], int]:
    """A command that trains by a recipe: COMMAND CONFIG --data.train LIST [LIST ...] --workdir DIR."""

    def run(arguments: Arguments) -> int:
        import tyro

        recipe, arguments, about = _take_recipe(arguments, command, default, example)

        @dataclass(frozen=True)
        class Train:
            workdir: Path
            """Folder of the run: checkpoints, metrics, skipped videos. A run found there is continued."""
            config: Annotated[type(recipe), tyro.conf.arg(name="", prefix_name=False)] = recipe  # type: ignore[valid-type]
            dry_run: bool = False
            """Build everything, read one batch, print the overview of the run; train and write nothing."""
            profile_steps: str | None = None
            """FIRST:LAST, such as 10:15: trace these steps into WORKDIR/profile, for TensorBoard, xprof and
            Perfetto."""
            hosts: Annotated[HostSettings, tyro.conf.arg(name="", prefix_name=False)] = field(
                default_factory=HostSettings
            )

        chosen = _parse(Train, f"{command} CONFIG", arguments, about)

        from videomae_jax.training.multihost.hosts import connected

        with connected(**asdict(chosen.hosts)):
            return _train_here(chosen.config, chosen.workdir, chosen.dry_run, chosen.profile_steps)

    return run


def _train_here(config: RunConfig, workdir: Path, dry_run: bool, profile_steps: str | None) -> int:
    """Train as one of the hosts, draw what came of it, and test a finished classifier."""
    from videomae_jax.data.loading.workers import Workers
    from videomae_jax.training.compilation import keep_compiled_programs
    from videomae_jax.training.loop import train
    from videomae_jax.training.multihost.hosts import Hosts
    from videomae_jax.training.reporting.curve import draw_curves

    keep_compiled_programs()
    with closing(Workers(config.data.num_workers)) as workers:
        outcome = train(config, workdir, dry_run, profile_steps, workers)
        if dry_run:
            return 0
        if Hosts().first:
            draw_curves(workdir)
        if outcome.exit_code or not isinstance(config, FinetuneConfig) or not config.data.test:
            return outcome.exit_code

        from videomae_jax.inference.evaluation.final_test import final_test

        return final_test(config, workdir, workers)


def _show_batch(arguments: Arguments) -> int:
    """Draw what a run would train on: show-batch CONFIG --data.train LIST [LIST ...] --out PICTURE."""
    import tyro

    recipe, arguments, about = _take_recipe(
        arguments, "show-batch", FinetuneConfig(SIZES["base"]), "k400_base_75e"
    )

    @dataclass(frozen=True)
    class ShowBatch:
        config: Annotated[type(recipe), tyro.conf.arg(name="", prefix_name=False)] = recipe  # type: ignore[valid-type]
        out: Path = Path("batch.png")
        """The picture to write."""
        steps: int = 1
        """How many steps of the run are shown."""

    chosen = _parse(ShowBatch, "show-batch CONFIG", arguments, about)

    from videomae_jax.inference.batch_sheet import show_batch

    return show_batch(chosen.config, chosen.out, chosen.steps)


def _plan(arguments: Arguments) -> int:
    """Say what a run would need on a TPU slice: plan CONFIG --topology v5e:16x16."""
    import tyro

    default = PretrainConfig(SIZES["base"])
    recipe, arguments, about = _take_recipe(arguments, "plan", default, "k400_base_1600e")

    @dataclass(frozen=True)
    class Plan:
        topology: str
        """The slice: the kind of TPU chip and the chips along each axis, such as v5e:2x4 or v5p:4x4x8. Or the
        kind of GPU and how many, such as h100:8, and h100:2x8 on two hosts."""
        config: Annotated[type(recipe), tyro.conf.arg(name="", prefix_name=False)] = recipe  # type: ignore[valid-type]
        stage: Literal["train", "evaluate"] = "train"
        """The training step, or the evaluation's: of views, --batch-size of them at a time, for a fine-tuned
        model, else the masked loss of validation videos."""
        search: bool = False
        """Find the cheapest settings that fit, and the largest batch with them; takes some minutes."""

    chosen = _parse(Plan, "plan CONFIG", arguments, about)

    from videomae_jax.plan.command import plan

    return plan(chosen.config, chosen.topology, chosen.stage, chosen.search)


def _take_recipe(
    arguments: Arguments, command: str, default: RunConfig, example: str
) -> tuple[RunConfig, Arguments, str]:
    """The recipe that the first argument names, the other arguments, and what --help says of the recipe.

    `default` stands in where --help comes first.
    """
    kind = RunConfig if command in ("show-batch", "plan") else type(default)
    said = COMMANDS[command][0]
    what = f"{said[0].upper()}{said[1:]}."
    if arguments and arguments[0] in ("-h", "--help"):
        return default, arguments, f"{what}\n\n{_recipes_in_words(kind)}"
    if not arguments or arguments[0].startswith("-"):
        raise InputError(
            f"the recipe comes first: videomae-jax {command} CONFIG --data.train LIST ..., where CONFIG is "
            f"the path or the bare name of a recipe, such as {example}"
        )
    recipe = _load_config(arguments[0], kind, command)
    about = f"{what} Defaults are those of the recipe {arguments[0]}."
    if command != "plan" and are_numbers(recipe.model.id2label):  # A run has the classes of its data.
        recipe = replace(recipe, model=recipe.model.changed(num_labels=0))
    return recipe, arguments[1:], about


def _recipes_in_words(kind: Any) -> str:
    """What CONFIG is, and the recipes of a kind that come with the package."""
    names = [name for name in recipe_files() if isinstance(load_config(name), kind)]
    return textwrap.fill(
        "CONFIG is a recipe, a Python file of settings: the bare name of one that comes with the package, or "
        "the path of one of your own, such as ./mine.py. What it sets is the default of the options below. "
        f"The recipes: {', '.join(names)}.",
        width=100,
        break_on_hyphens=False,
    )


def _convert(arguments: Arguments) -> int:
    """Convert checkpoints; the package is beside this one in a checkout and inside it in the wheel."""
    name, folder = "videomae_jax.convert", Path(__file__).parents[1] / "convert"
    if importlib.util.find_spec(name) is None:
        spec = importlib.util.spec_from_file_location(name, folder / "__init__.py")
        assert spec is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
    return import_module(f"{name}.command").run(arguments)


def _load_config(name: str, kind: Any, command: str) -> RunConfig:
    config = load_config(name)
    if not isinstance(config, kind):
        raise InputError(
            f"{name} is a recipe of another kind, a {type(config).__name__}: {command} needs a "
            f"{kind.__name__}"
        )
    return config


def _command(
    module: str, settings: str, function: str, several_hosts: bool = False
) -> Callable[[Arguments], int]:
    """A command whose settings are a dataclass and whose work is a function of it, giving the exit code."""

    def run(arguments: Arguments) -> int:
        found = import_module(module)
        name = next(name for name, (_, command) in COMMANDS.items() if command is run)
        kind, work = getattr(found, settings), getattr(found, function)
        return (
            _on_hosts(kind, name, arguments, work) if several_hosts else work(_parse(kind, name, arguments))
        )

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

    chosen = _parse(OnHosts, name, arguments, kind.__doc__)
    with connected(**asdict(chosen.hosts)):
        keep_compiled_programs()
        return work(chosen.settings)


COMMANDS: dict[str, tuple[str, Callable[[Arguments], int]]] = {
    "pretrain": (
        "pre-train a model on videos",
        _train("pretrain", PretrainConfig(SIZES["base"]), "k400_base_1600e or tiny"),
    ),
    "finetune": (
        "train a classifier on labelled videos, from pre-trained weights or from scratch",
        _train("finetune", FinetuneConfig(SIZES["base"]), "k400_base_75e"),
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
    "show-batch": ("draw what a run would train on, augmented and mixed or masked", _show_batch),
    "plan": ("say what a run would need on a TPU slice or on GPUs, without having them", _plan),
    "convert": ("turn a checkpoint into another form, or prove that two compute the same", _convert),
    "prepare": (
        "store videos as a data set from which clips are read quickly",
        _command("videomae_jax.data.prepare.command", "Prepare", "prepare"),
    ),
    "reconstruct": (
        "draw how a pre-trained model reconstructs the masked part of a video",
        _command("videomae_jax.inference.reconstruction.command", "ReconstructVideo", "reconstruct_video"),
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
            "videomae-jax --version prints versions and devices.",
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
    if arguments[0] not in COMMANDS:
        raise InputError(f"there is no command {arguments[0]!r}; choose from {', '.join(COMMANDS)}")
    return COMMANDS[arguments[0]][1](arguments[1:])


def main(arguments: Arguments | None = None) -> int:
    """Run one command and return its exit code; what a user can fix is said in one paragraph on stderr."""
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
