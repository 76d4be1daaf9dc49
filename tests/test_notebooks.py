"""The notebooks as they lie in the repository; `make test-notebooks` runs them."""

import ast
import io
import json
import re
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

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


@each_notebook
def test_the_first_code_installs_and_the_second_has_the_switch(name: str) -> None:
    first, second = _code(name)[:2]
    assert '%pip install --quiet "videomae-jax[' in first["source"]
    assert re.search(r"(?m)^TINY = True$", second["source"])


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
