"""The commands whose first argument is a recipe, which sets the defaults of all others."""

import textwrap
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from videomae_jax.command_line import Arguments, parse
from videomae_jax.config import FinetuneConfig, HostSettings, PretrainConfig, RunConfig, load_config
from videomae_jax.errors import InputError, RunError
from videomae_jax.model_config import are_numbers
from videomae_jax.recipes import recipe_files
from videomae_jax.sizes import SIZES

SAID = {
    "pretrain": "pre-train a model on videos",
    "finetune": "train a classifier on labelled videos, from pre-trained weights or from scratch",
    "show-batch": "draw what a run would train on, augmented and mixed or masked",
    "plan": "say what a run would need on a TPU slice or on GPUs, without having them",
}
"""What each does."""


def train_by(command: str, default: RunConfig, example: str) -> Callable[[Arguments], int]:
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

        chosen = parse(Train, f"{command} CONFIG", arguments, about)

        from videomae_jax.training.multihost.hosts import connected

        with connected(**asdict(chosen.hosts)):
            return _train_here(chosen.config, chosen.workdir, chosen.dry_run, chosen.profile_steps)

    return run


def _train_here(config: RunConfig, workdir: Path, dry_run: bool, profile_steps: str | None) -> int:
    """Train as one of the hosts, draw what came of it, test a finished classifier, and report."""
    from videomae_jax.data.loading.workers import Workers
    from videomae_jax.inference.report.command import report_end
    from videomae_jax.training.compilation import keep_compiled_programs
    from videomae_jax.training.loop import train
    from videomae_jax.training.multihost.hosts import Hosts
    from videomae_jax.training.reporting.curve import draw_curves

    keep_compiled_programs()
    with closing(Workers(config.data.num_workers)) as workers:
        hosts = Hosts()
        try:
            outcome = train(config, workdir, dry_run, profile_steps, workers)
        except RunError:
            if hosts.first:
                report_end(workdir, with_samples=False)
            raise
        if dry_run:
            return 0
        code = outcome.exit_code
        if hosts.first:
            draw_curves(workdir)
        if not code and isinstance(config, FinetuneConfig) and config.data.test:
            from videomae_jax.inference.evaluation.final_test import final_test

            code = final_test(config, workdir, workers)
        if hosts.first:  # Of several hosts one cannot read weights alone, and a signal asks for haste.
            report_end(workdir, with_samples=outcome.signal is None and hosts.count == 1)
        return code


def show_batch(arguments: Arguments) -> int:
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

    chosen = parse(ShowBatch, "show-batch CONFIG", arguments, about)

    from videomae_jax.inference import batch_sheet

    return batch_sheet.show_batch(chosen.config, chosen.out, chosen.steps)


def plan(arguments: Arguments) -> int:
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

    chosen = parse(Plan, "plan CONFIG", arguments, about)

    from videomae_jax.plan import command

    return command.plan(chosen.config, chosen.topology, chosen.stage, chosen.search)


def _take_recipe(
    arguments: Arguments, command: str, default: RunConfig, example: str
) -> tuple[RunConfig, Arguments, str]:
    """The recipe that the first argument names, the other arguments, and what --help says of the recipe.

    `default` stands in where --help comes first.
    """
    kind = RunConfig if command in ("show-batch", "plan") else type(default)
    said = SAID[command]
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


def _load_config(name: str, kind: Any, command: str) -> RunConfig:
    config = load_config(name)
    if not isinstance(config, kind):
        raise InputError(
            f"{name} is a recipe of another kind, a {type(config).__name__}: {command} needs a "
            f"{kind.__name__}"
        )
    return config
