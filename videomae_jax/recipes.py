"""Recipes: Python files that end in `config = ...`, found by path or bare name, run, and checked.

What is wrong with one is told in a line that names the file and the place in it: these files are written by
hand.
"""

import dataclasses
import difflib
import importlib.util
import os
import re
import traceback
import types
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from videomae_jax.errors import InputError

_KINDS = {int: "a whole number", float: "a number", str: "text", bool: "True or False"}


def recipe_files() -> dict[str, Path]:
    """The recipes that come with the package, by bare name."""
    package = Path(__file__).parent
    folder = package / "configs" if (package / "configs").is_dir() else package.parent / "configs"
    return {path.stem: path for path in sorted(folder.rglob("*.py"))}


def find_recipe(name: str) -> Path:
    """The file of a recipe given by path or by bare name, such as `k400_base_1600e`; raises InputError."""
    if name.endswith(".py"):
        if Path(name).is_file():
            return Path(name)
        raise InputError(f"there is no file {name}; give the path of a recipe, or the bare name of one")
    files = recipe_files()
    if name in files:
        return files[name]
    if Path(f"{name}.py").is_file():
        raise InputError(
            f"there is no recipe {name!r}; for the file in this folder, give its path, {name}.py"
        )
    near = difflib.get_close_matches(name, files, n=4, cutoff=0.5)
    hint = f"; did you mean {' or '.join(near)}?" if near else "."
    raise InputError(
        f"there is no recipe {name!r}{hint} Give a file of your own by its path, such as ./mine.py; "
        "videomae-jax pretrain --help lists the recipes"
    )


def run_recipe(path: Path, kinds: Iterable[type]) -> Any:
    """The value of `config` in a recipe; raises InputError that names the line where it goes wrong.

    `kinds` are the dataclasses that recipes are made of, whose fields are suggested for misspelt ones.
    """
    spec = importlib.util.spec_from_file_location(f"videomae_jax_recipe_{path.stem}", path)
    assert spec
    assert spec.loader, "the name ends in .py"
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise InputError(_explain(path, error, kinds)) from error
    if not hasattr(module, "config"):
        raise InputError(
            f"{path} defines no `config`; end it with config = PretrainConfig(...) or FinetuneConfig(...)"
        )
    return module.config


def _explain(path: Path, error: Exception, kinds: Iterable[type]) -> str:
    """Where a recipe goes wrong and why, in one line."""
    here = os.path.abspath(path)
    if isinstance(error, SyntaxError) and error.filename == here:
        return f"{path}, line {error.lineno}: {error.msg}"
    if isinstance(error, InputError):  # Of another recipe that it builds upon.
        return f"{path}: {error}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == here]
    where = f"{path}, line {frames[-1].lineno}" if frames else str(path)
    if isinstance(error, TypeError) and (said := _unknown_field(str(error), kinds)):
        return f"{where}: {said}"
    kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
    return f"{where}: {kind}{' '.join(str(error).split())}"


def _unknown_field(message: str, kinds: Iterable[type]) -> str | None:
    """What Python says of a field that a class does not have, with the nearest that it has."""
    found = re.match(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", message)
    kind = next((kind for kind in kinds if found and kind.__name__ == found[1]), None)
    if not found or not kind:
        return None
    wrong, known = found[2], [field.name for field in dataclasses.fields(kind)]
    near = difflib.get_close_matches(wrong, known, n=1, cutoff=0.5)
    return f"{kind.__name__} has no field {wrong!r}; " + (
        f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known)}"
    )


def check_types(path: Path, config: Any, prefix: str = "") -> None:
    """Raise InputError for the first field whose value is not of the type that it is annotated with."""
    for name, hint in get_type_hints(type(config)).items():
        value, field = getattr(config, name), f"{prefix}{name}"
        if not _fits(value, hint):
            raise InputError(f"{path}: {field} is {_shown(value)}; it must be {_described(hint)}")
        if dataclasses.is_dataclass(value):
            check_types(path, value, f"{field}.")


def _fits(value: Any, hint: Any) -> bool:
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, each) for each in inner)
    if origin is Literal:
        return value in inner
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        hints = (inner[0],) * len(value) if inner[-1] is ... else inner
        return len(hints) == len(value) and all(map(_fits, value, hints))
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return not isinstance(hint, type) or isinstance(value, hint)


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return f"the text {value!r}"
    return f"the {type(value).__name__} {value!r}" if isinstance(value, list | dict | set) else repr(value)


def _described(hint: Any) -> str:
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(map(_described, inner))
    if origin is Literal:
        return " or ".join(map(repr, inner))
    if origin is tuple:
        what = {int: "whole numbers", float: "numbers", str: "texts"}.get(inner[0], "values")
        if inner[-1] is not ...:
            return f"{len(inner)} {what} in round brackets"
        example = "('a', 'b'), or ('a',) for one" if inner[0] is str else "(1, 2), or (1,) for one"
        return f"{what} in round brackets, such as {example}"
    if hint is type(None):
        return "None"
    return _KINDS.get(hint, f"a {getattr(hint, '__name__', hint)}")
