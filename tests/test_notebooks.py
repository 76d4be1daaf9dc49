"""The notebooks as they lie in the repository; `make test-notebooks` runs them."""

import ast
import io
import json
import re
from base64 import b64decode
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from videomae_jax import VideoMAEForPreTraining, read_clip, write_synthetic_videos
from videomae_jax.config import load_config
from videomae_jax.processing import Processing

ROOT = Path(__file__).parents[1]
NAMES = ["convert", "features", "finetune", "pretrain", "quickstart", "sharding"]
Cell = dict[str, Any]
each_notebook = pytest.mark.parametrize("name", NAMES)


def _notebook(name: str) -> dict[str, Any]:
    return json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text("utf-8"))


def _cells(name: str) -> list[Cell]:
    return [cell | {"source": "".join(cell["source"])} for cell in _notebook(name)["cells"]]


def _code(name: str) -> list[Cell]:
    return [cell for cell in _cells(name) if cell["cell_type"] == "code"]


def _statements(cell: Cell) -> list[ast.AST]:
    """All of a cell but its commands and magics, which are no Python."""
    return list(ast.walk(ast.parse(re.sub(r"(?m)^(\s*)[!%](.*\\\n)*.*", r"\1pass", cell["source"]))))


def test_these_are_all() -> None:
    assert sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb")) == NAMES


@each_notebook
def test_short_with_a_title_and_a_badge(name: str) -> None:
    cells = _cells(name)
    assert len(cells) < 20
    assert cells[0]["source"].startswith("# ")
    assert re.search(
        rf"\[!\[.*colab-badge\.svg\)\]\(https://colab\.[^)]*/notebooks/{name}\.ipynb\)", cells[0]["source"]
    )


def _installing(name: str) -> tuple[str, Cell]:
    """The cell that installs the package, and the code cell after it."""
    cells = _code(name)
    at = next(number for number, cell in enumerate(cells) if '"videomae-jax @' in cell["source"])
    return cells[at]["source"], cells[at + 1]


@each_notebook
def test_the_first_code_installs_and_the_second_has_the_switch(name: str) -> None:
    first, second = _installing(name)
    assert first == _installing("quickstart")[0]
    assert "%pip install --quiet" in first
    assert re.search(r"(?m)^TINY = True$", second["source"])


@pytest.mark.parametrize(
    ("listed", "chips", "devices", "said"),
    [
        ("GPU 0: Tesla T4", [], "cpu:0 cpu", f'%pip install "jax[cuda12]=={jax.__version__}" and restart'),
        ("GPU 0: Tesla T4", [], "gpu:0 Tesla T4", ""),
        ("/bin/sh: 1: nvidia-smi: not found", [], "cpu:0 cpu", ""),
        ("", ["/dev/vfio/0"], "cpu:0 cpu", f'%pip install "jax[tpu]=={jax.__version__}" and restart'),
        ("", ["/dev/vfio/0"], "tpu:0 TPU v5 lite", ""),
    ],
)
def test_the_first_code_says_what_to_do_where_jax_does_not_see_the_chip(
    listed: str, chips: list[str], devices: str, said: str, monkeypatch, capsys
) -> None:
    answers = {
        "nvidia-smi -L": listed,
        "videomae-jax --version": f"jax {jax.__version__}\ndevices: {devices}",
    }
    monkeypatch.setattr("subprocess.getoutput", answers.get)
    monkeypatch.setattr("glob.glob", lambda pattern: chips if "vfio" in pattern else [])
    monkeypatch.setattr(jax, "devices", lambda: pytest.fail("a TPU would be taken from the commands"))
    platforms = []
    monkeypatch.setattr(jax.config, "update", lambda *setting: platforms.append(setting))
    for name in ("JAX_PLATFORMS", "XLA_PYTHON_CLIENT_PREALLOCATE"):
        monkeypatch.setenv(name, "")
    exec(re.sub(r"(?m)^    %pip.*", "    pass", _installing("quickstart")[0]), {})
    printed = capsys.readouterr().out
    assert f"devices: {devices}\n" in printed
    assert said in printed
    assert ("does not see" in printed) == bool(said)
    assert platforms == [("jax_platforms", "cpu")] * len(chips)


@each_notebook
def test_nothing_is_installed_that_no_index_has(name: str) -> None:
    for cell in _cells(name):
        for asked in re.findall(r"pip install (.*)", cell["source"]):
            assert "videomae-jax" not in asked or "@ git+" in asked


@each_notebook
def test_only_public_names_are_imported(name: str) -> None:
    nodes = [node for cell in _code(name) for node in _statements(cell)]
    modules = {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    modules |= {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    assert {each for each in modules if each and each.startswith("videomae_jax")} <= {"videomae_jax"}


@each_notebook
def test_one_picture_is_kept_and_nothing_else(name: str) -> None:
    outputs = [output for cell in _code(name) for output in cell["outputs"]]
    assert [list(output["data"]) for output in outputs] == [["image/png"]]
    assert not any(cell["execution_count"] for cell in _code(name))
    assert "widgets" not in _notebook(name)["metadata"]
    kept = Image.open(io.BytesIO(b64decode("".join(outputs[0]["data"]["image/png"]))))
    small = ROOT / "docs" / "pictures" / "notebooks" / f"{name}.png"
    shape = Image.open(small).size
    assert small.stat().st_size < 60_000
    assert shape[0] / shape[1] == pytest.approx(kept.width / kept.height, rel=0.02), (
        "of another run: save both"
    )


def test_without_tiny_a_published_recipe_learns_the_classes_of_the_folders(tmp_path, monkeypatch) -> None:
    """The settings and commands of finetune.ipynb with TINY = False, up to the plan of the run."""
    from videomae_jax import cli, recipe_commands
    from videomae_jax.training.resolve import resolve_run

    monkeypatch.chdir(tmp_path)
    for name in ("run/a.mp4", "walk/b.mp4", "jump/c.mp4"):
        for split in ("train", "val"):
            (tmp_path / "my_videos" / split / name).parent.mkdir(parents=True)
            (tmp_path / "my_videos" / split / name).touch()
    code = [cell["source"] for cell in _code("finetune")]
    settings: dict[str, Any] = {}
    exec(code[1].replace("TINY = True", "TINY = False"), settings)
    lines = "\n".join(code).replace("\\\n", " ").splitlines()
    (command,) = (line for line in lines if line.startswith("!videomae-jax finetune"))
    arguments = command.removeprefix("!videomae-jax ").format(**settings).split()
    started = []
    monkeypatch.setattr(recipe_commands, "_train_here", lambda config, *_: started.append(config) or 0)
    assert cli.main(arguments) == 0
    plan = resolve_run(started[0])
    assert plan.classes
    assert plan.classes.names == ("jump", "run", "walk")
    assert plan.classes.origin == "named by the folders of my_videos/train"
    assert plan.config.model.id2label == plan.classes.names
    assert [video.label for video in plan.val_videos] == [0, 1, 2]
    assert plan.config.init_from == settings["PRETRAINED"]


@each_notebook
def test_processors_are_those_of_the_weights(name: str) -> None:
    """One made of defaults may normalise otherwise than the weights that `TINY = False` loads ask for."""
    for node in (node for cell in _code(name) for node in _statements(cell)):
        assert not (isinstance(node, ast.Call) and ast.unparse(node.func) == "VideoMAEImageProcessor")


@pytest.mark.parametrize("rate", [2, None], ids=["of a run", "of the hub"])
def test_the_last_cell_of_quickstart_normalises_as_in_training(tmp_path: Path, rate: int | None) -> None:
    write_synthetic_videos(tmp_path, train_per_class=0, val_per_class=1, side=32)
    config = load_config("tiny").model
    said = Processing.for_size(32, image_mean=(0.1, 0.2, 0.3), image_std=(0.5, 0.6, 0.7), sampling_rate=rate)
    model = VideoMAEForPreTraining(config, said)
    model.save_pretrained(tmp_path / "weights", model.init_params(jax.random.key(0)))
    video = tmp_path / "val/up_000.mp4"
    names: dict[str, Any] = {"PRETRAINED": str(tmp_path / "weights"), "VIDEO": str(video), "jax": jax}
    exec(_code("quickstart")[-1]["source"], names)
    pixels = (read_clip(video, config, rate or 4) / 255 - said.image_mean) / said.image_std
    np.testing.assert_allclose(names["pixels"][0], pixels, atol=1e-5)
