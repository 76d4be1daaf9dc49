"""The golden files of this repository are the full ones, thinned and otherwise unchanged."""

from pathlib import Path

from golden_files import make

GOLDEN = Path(__file__).parents[1] / "golden"


def test_they_are_made_of_the_full_ones(reference, tmp_path):
    make(reference, tmp_path)
    names = {path.relative_to(tmp_path) for path in tmp_path.rglob("*.*")}
    assert names == {path.relative_to(GOLDEN) for path in GOLDEN.rglob("*.*")} - {Path("README.md")}
    for name in names:
        assert (tmp_path / name).read_bytes() == (GOLDEN / name).read_bytes(), name
