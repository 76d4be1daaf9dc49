"""Where the real clips and the reference tensors are; tests that need them skip without them."""

import os
from pathlib import Path

import pytest

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
    """The folder of tensors that the original code produced (golden_v1, golden_v2, sampling.json)."""
    return _folder("VIDEOMAE_JAX_TEST_REFERENCE", _BESIDE / "reference", "reference tensors")
