"""Only downward imports, and each outside library where it belongs (docs/decisions/0001-layout.md)."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "videomae_jax"
FLOORS = {
    "allocator": 0,
    "class_names": 0,
    "config": 0,
    "errors": 0,
    "files": 0,
    "hardware": 0,
    "model_config": 0,
    "recipes": 0,
    "sizes": 0,
    "processing": 0,
    "transformers_names": 0,
    "versions": 0,
    "checkpoints": 1,
    "data": 1,
    "models": 2,
    "training": 3,
    "inference": 4,
    "demo": 5,
    "plan": 5,
    "command_line": 6,
    "completion": 6,
    "recipe_commands": 6,
    "cli": 6,
}
ONLY_IN = {
    "flax": "models/",
    "orbax": "checkpoints/",
    "av": "data/video/",
    "torchcodec": "data/video/torchcodec.py",
    "tensorflow_datasets": "data/",
    "array_record": "data/",
    "apache_beam": "data/prepare/",
    "torch": None,
    "tensorflow": None,
    "transformers": None,
}
DRAWERS = {"util", "utils", "helper", "helpers", "common", "misc", "base", "manager"}
MODULES = sorted(PACKAGE.rglob("*.py"))


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: write imports in full"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_downward(path):
    relative = path.relative_to(PACKAGE)
    here = relative.parts[0].removesuffix(".py")
    for name in imports(path):
        top, _, rest = name.partition(".")
        if top in ONLY_IN:
            where = ONLY_IN[top]
            assert where, f"{relative} imports {top}, which the package must not"
            assert str(relative).startswith(where), f"{relative} imports {top}, which belongs in {where}"
        if top != "videomae_jax" or not rest or here == "__init__":
            continue
        there = rest.partition(".")[0]
        if there in FLOORS and there != here:
            assert FLOORS[there] <= FLOORS[here], f"{relative} (floor {FLOORS[here]}) imports {there}"


def test_parts_of_one_floor_do_not_import_each_other_in_circles():
    graph: dict[str, set[str]] = {part: set() for part in FLOORS}
    for path in MODULES:
        here = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for name in imports(path):
            there = name.split(".")[1] if name.startswith("videomae_jax.") else ""
            if here in FLOORS and there in FLOORS and there != here:
                graph[here].add(there)
    TopologicalSorter(graph).prepare()  # Raises CycleError.


def folder_of(path):
    """A module on the floor itself, or the folder of it that the module is in."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:2])


@pytest.mark.parametrize("level", [folder_of, lambda path: path], ids=["folders", "modules"])
def test_nothing_within_a_floor_imports_in_circles(level):
    modules = [path for path in MODULES if path.stem != "__init__"]
    paths = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in modules}
    graph = {level(path): set() for path in modules}
    for path in modules:
        there = {level(paths[name]) for name in imports(path) if name in paths}
        graph[level(path)] |= there - {level(path)}
    TopologicalSorter(graph).prepare()  # Raises CycleError.


def test_every_part_has_a_floor():
    parts = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert parts - {"__init__", "__main__", "__pycache__", "configs"} <= FLOORS.keys()


def test_no_drawer_files():
    assert not [path for path in MODULES if path.stem in DRAWERS]


def defined(path):
    """The names that a module makes itself, and does not import."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                yield from (name.id for name in ast.walk(target) if isinstance(name, ast.Name))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_names_are_imported_from_the_module_that_makes_them(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("videomae_jax."):
            there = PACKAGE.parent / f"{node.module.replace('.', '/')}.py"
            if there.exists():
                assert {alias.name for alias in node.names} <= set(defined(there)), f"from {node.module}"


@pytest.mark.parametrize(
    "path",
    [*MODULES, *sorted((PACKAGE.parent / "convert").rglob("*.py"))],
    ids=lambda path: str(path.relative_to(PACKAGE.parent)),
)
def test_modules_and_functions_are_short(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 350
    functions = (each for each in ast.walk(ast.parse(text)) if isinstance(each, ast.FunctionDef))
    assert {each.name for each in functions if each.end_lineno - each.lineno + 1 > 50} == set()
