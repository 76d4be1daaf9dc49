"""What CI installs is what the package asks for: no bound can rise above Colab's packages unnoticed."""

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def _pinned(file: str) -> list[tuple[str, str]]:
    """Names and versions; a package may have one for each Python."""
    lines = (line for line in (ROOT / file).read_text("utf-8").splitlines() if line and line[0] != "#")
    return [
        (canonicalize_name(pin.name), next(iter(pin.specifier)).version) for pin in map(Requirement, lines)
    ]


@pytest.mark.parametrize(
    ("file", "extras"),
    [
        ("constraints.txt", ["test", "parity", "docs", "cloud", "export"]),
        ("constraints-colab.txt", ["test", "convert", "notebooks"]),
    ],
)
def test_each_dependency_is_pinned_within_its_bounds(file: str, extras: list[str]) -> None:
    pinned, optional = _pinned(file), PROJECT["optional-dependencies"]
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in optional[extra])]
    for asked in map(Requirement, lines):
        versions = [version for name, version in pinned if name == canonicalize_name(asked.name)]
        assert versions, f"{file} has no {asked.name}"
        assert [each for each in versions if each not in asked.specifier] == [], (
            f"{file} has less than {asked}"
        )
