"""Where the real clips and the golden files are; tests skip without those that are not in the repository.

Ctrl-C reaches what tests start, however they were started themselves.
"""

import os
import signal
from pathlib import Path

import pytest

# A shell's background commands ignore Ctrl-C, and so would all that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

_BESIDE = Path(__file__).resolve().parents[2] / "shared"


def _folder(variable: str, default: Path, what: str) -> Path:
    folder = Path(os.environ.get(variable, default))
    if not folder.is_dir():
        pytest.skip(f"{what} not found: set {variable} to the folder that holds them")
    return folder


@pytest.fixture(scope="session")
def real_videos() -> Path:
    """The folder of real clips with its manifest.csv (action, edge, bad, frames)."""
    return _folder("VIDEOMAE_JAX_TEST_VIDEOS", _BESIDE / "videos", "real video clips")


@pytest.fixture(scope="session")
def reference() -> Path:
    """The folder of all that the original code produced, with its own .pth files."""
    return _folder("VIDEOMAE_JAX_TEST_REFERENCE", _BESIDE / "reference", "full golden files")


@pytest.fixture(scope="session")
def golden_folder() -> Path:
    """What the original code produced, in full if it is there and as in tests/golden otherwise."""
    full = Path(os.environ.get("VIDEOMAE_JAX_TEST_REFERENCE", _BESIDE / "reference"))
    return full if full.is_dir() else Path(__file__).with_name("golden")
