"""Every command and snippet of the README and the pages under docs/ is run as it is written there.

Commands run in this process, snippets as scripts of their own, all in one folder with small videos in which
the README is followed from its first line; the other pages find what it left. Stated here is what makes them
small: recipes keep everything but the size of their model, their canvas and how long they train (`smaller`,
`SHORTER`). What needs a machine or a hub that a test has not is marked so on its page (tests/documents.py),
and still has to parse.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import jax
import pytest
from documents import LOOKED_UP, PAGES, ROOT, Block, list_commands, read_blocks

from videomae_jax import VideoMAEForPreTraining, cli, recipe_commands
from videomae_jax.config import SIZES, FinetuneConfig, VideoMAEConfig, load_config
from videomae_jax.data.synthetic import MOTIONS, write_synthetic_videos
from videomae_jax.inference.export.formats import FORMS

README = read_blocks(ROOT / "README.md")
BLOCKS = README + [block for page in PAGES if page != ROOT / "README.md" for block in read_blocks(page)]
SHORTER = {
    "pretrain": {"--epochs": "1", "--batch-size": "4"},
    "finetune": {"--epochs": "1", "--batch-size": "4"},
    "show-batch": {"--batch-size": "4"},
    "probe": {"--epochs": "2"},
}
"""Values that commands are given, where they give others, and for the probe in any case."""
STAND_INS = {"CONFIG": "k400_base_75e", "CLASSIFIER": "runs/actions", "$i": "0"}
"""What stands for words that a reader replaces; other such words are files of this name."""
_REASON = re.compile(r"(needs|takes|writes) .+")


def smaller(config, command):
    """A recipe of the same kind with a tiny model that trains for one epoch of small batches."""
    tiny = load_config("tiny_finetune" if isinstance(config, FinetuneConfig) else "tiny").model
    names = ("image_size", "patch_size", "num_frames", "hidden_size", "num_hidden_layers")
    names += ("num_attention_heads", "intermediate_size", "decoder_hidden_size", "decoder_num_hidden_layers")
    names += ("decoder_num_attention_heads", "decoder_intermediate_size")
    config = replace(config, model=replace(config.model, **{name: getattr(tiny, name) for name in names}))
    if command == "plan":  # Its batch is for a slice, and nothing of it is computed.
        return config
    data = replace(config.data, num_workers=0)
    if isinstance(config, FinetuneConfig):
        data = replace(data, canvas=(32, 48))
    optim = replace(config.optim, warmup_epochs=0)
    return replace(config, data=data, optim=optim, epochs=1, batch_size=4)


class World:
    """The folder in which commands run, and what became of each block."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.done: set[Block] = set()

    def follow_readme(self) -> None:
        """Run what other pages build upon; a failure is told by the test of its own block."""
        for block in README:
            if not block.not_run and block not in self.done:
                try:
                    self.run(block)
                except (AssertionError, pytest.skip.Exception):
                    continue

    def run(self, block: Block) -> None:
        """Run a block once, in the world's folder."""
        self.done.add(block)
        if block.file:
            (self.folder / block.file).write_text(block.text + "\n")
        elif block.language == "python":
            self._script(block)
        else:
            for words in block.commands:
                self._command(block, words)

    def _script(self, block: Block) -> None:
        script = self.folder / f"{block.page.replace('/', '_')}_{block.line}.py"
        script.write_text(block.text + "\n")
        environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "HF_HUB_OFFLINE": "1"}
        ended = subprocess.run(
            [sys.executable, script.name],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert ended.returncode == 0, f"{block}: {ended.stdout}{ended.stderr}"

    def _command(self, block: Block, words: list[str]) -> None:
        program, *arguments = words
        if program in LOOKED_UP:
            CHECKED[program](arguments)
            return
        assert program == "videomae-jax", f"{block}: {' '.join(words)} cannot be run here: mark the block"
        _needs(arguments)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.folder)
            try:
                code = cli.main(shortened(arguments))
            except SystemExit as ended:  # Of --help, or where arguments are wrong.
                code = ended.code
            assert code == 0, f"{block}: {' '.join(words)}"


def shortened(arguments: list[str]) -> list[str]:
    """The arguments with stand-ins for words, and with `SHORTER`'s values."""
    command, *rest = (STAND_INS.get(word, word) for word in arguments)
    values = SHORTER.get(command, {})
    for name, value in values.items():
        if name in rest:
            rest[rest.index(name) + 1] = value
        elif command == "probe":
            rest += [name, value]
    return [command, *rest]


def _needs(arguments: list[str]) -> None:
    for_gpus = any(re.match(r"(?!v\d)\w+:", word) for word in arguments)
    planner = ("plan", "jax_plugins", "gpu-plan") if for_gpus else ("plan", "libtpu", "tpu")
    for name, module, extra in (planner, ("convert", "torch", "convert"), *_exporters(arguments)):
        if arguments[0] == name and find_spec(module) is None:
            pytest.skip(f"{module} is not installed (the extra {extra})")


def _exporters(arguments: list[str]) -> list[tuple[str, str, str]]:
    form = arguments[arguments.index("--to") + 1] if "--to" in arguments else ""
    needs = FORMS[form].needs if arguments[0] == "export" else ()
    return [("export", module, "export") for module in needs]


def check_pip(arguments: list[str]) -> None:
    """What is installed is this checkout, with extras that there are."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for found in re.findall(r"\[(.+?)\]", " ".join(arguments)):
        assert set(found.split(",")) <= set(extras)
    assert "videomae-jax" not in " ".join(arguments), "there is no such package on an index"


def check_make(arguments: list[str]) -> None:
    assert re.search(rf"^{arguments[0]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def check_script(arguments: list[str]) -> None:
    """It is there."""
    assert (ROOT / arguments[0]).is_file()


def check_export(arguments: list[str]) -> None:
    assert all(re.fullmatch(r"[A-Z_]+=\w+", each) for each in arguments)


CHECKED = {"pip": check_pip, "make": check_make, "python": check_script, "export": check_export}
"""Programs that are not started by a test, and what is looked at instead."""


class Parsed(Exception):
    """A command's arguments were understood."""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Videos, lists and weights under the names that the pages use."""
    folder = tmp_path_factory.mktemp("world")
    write_synthetic_videos(folder, 2, 1, 1, side=32, num_frames=40)
    shutil.copy(folder / "val.csv", folder / "test.csv")
    shutil.copy(folder / "train.csv", folder / "other.txt")
    one = folder / "val" / f"{next(iter(MOTIONS))}_000.mp4"
    for name in ("CLIP.mp4", "clip.mp4", "LONG.mp4", "long.mp4", "a.mp4", "b.mp4"):
        shutil.copy(one, folder / name)
    for name in ("VIDEOS", "FOLDER", "folder", "THUMOS", "FINEACTION", "videos/train", "videos/val"):
        for motion in MOTIONS:
            (folder / name / motion).mkdir(parents=True)
            copy = f"{Path(name).name}_{motion}.mp4"
            shutil.copy(folder / f"val/{motion}_000.mp4", folder / name / motion / copy)
    shutil.copy(folder / "train.csv", folder / "LIST")
    narrow = VideoMAEConfig(hidden_size=48, num_hidden_layers=1, num_attention_heads=4, intermediate_size=96)
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    narrow = replace(narrow, **{f"decoder_{name}": getattr(narrow, name) for name in names})
    _published(narrow, folder)
    with pytest.MonkeyPatch.context() as patch:
        load = recipe_commands._load_config

        def load_smaller(name, kind, command):
            return smaller(load(name, kind, command), command)

        patch.setitem(SIZES, "base", narrow)  # What the weights above are.
        patch.setattr(recipe_commands, "_load_config", load_smaller)
        yield World(folder)


def _published(config: VideoMAEConfig, folder: Path) -> None:
    """Weights in the place of published ones: of their shape of clips, and one narrow layer."""
    params = jax.jit(VideoMAEForPreTraining(config).init_params)(jax.random.key(0))
    published = folder / "MCG-NJU" / "videomae-base"
    VideoMAEForPreTraining(config).save_pretrained(published, params)
    sizes = {"size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224}}
    (published / "preprocessor_config.json").write_text(json.dumps(sizes))
    if find_spec("torch"):
        assert cli.main(["convert", str(published), str(folder / "checkpoint.pth"), "--to", "torch"]) == 0


@pytest.mark.parametrize("block", [block for block in BLOCKS if not block.not_run], ids=str)
def test_what_a_page_shows_runs_as_it_stands(world, block):
    assert block.language in ("shell", "python"), f"{block}: fence it as python, or mark it"
    if block not in README:
        world.follow_readme()
    if block not in world.done:
        world.run(block)


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.not_run], ids=str)
def test_what_is_not_run_says_why_and_parses(block, monkeypatch):
    assert _REASON.fullmatch(block.not_run), f"{block}: say what it needs or takes"

    parse = cli.parse

    def parse_only(*arguments):
        parse(*arguments)
        raise Parsed

    for module in (cli, recipe_commands):
        monkeypatch.setattr(module, "parse", parse_only)
    for arguments in block.calls:
        with pytest.raises(Parsed):
            cli.main(shortened(arguments))
    for words in block.commands if block.language == "shell" else []:
        if words[0] in CHECKED:
            CHECKED[words[0]](words[1:])


def test_a_page_that_shows_nothing_would_be_noticed():
    assert len(README) > 8
    assert {block.page for block in BLOCKS} > {"README.md", "docs/evaluation.md", "docs/prepare.md"}


def test_the_list_of_commands_says_of_each_what_becomes_of_it(capsys):
    list_commands()
    *lines, total = capsys.readouterr().out.splitlines()
    assert any(re.match(r"run +README\.md:\d+ +videomae-jax check-data VIDEOS", line) for line in lines)
    assert any(re.match(r"parsed +docs/watch\.md:\d+ .*\(needs a camera", line) for line in lines)
    assert sum(map(int, re.findall(r"\d+", total))) == len(lines)
    assert set(LOOKED_UP) == set(CHECKED)
