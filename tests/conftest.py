"""Where the real clips and the golden files are; tests skip without those that are not in the repository.

Ctrl-C reaches what tests start, however they were started themselves. What one of them compiles, all others
find, in other processes too; most compile without XLA's optimizations, which take longer than what is tested.
"""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

# A shell's background commands ignore Ctrl-C, and so would all that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

_CACHE = {
    "jax_persistent_cache_min_compile_time_secs": 0.1,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}
_OPTIMIZED = ("models/attention", "parity", "plan", "training/test_golden_losses.py")
"""Tests that compile as users do: they compare numbers with those of others, or look at what was compiled."""

_BESIDE = Path(__file__).resolve().parents[2] / "shared"


def pytest_configure(config: pytest.Config) -> None:
    folder = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if not folder:
        folder = os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="compiled")
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    jax.config.update("jax_compilation_cache_dir", folder)
    for name, value in _CACHE.items():
        jax.config.update(name, value)
        os.environ[name.upper()] = str(value)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Modules are dealt out in this order: long ones first, so that no worker is left with one at the end.
    items.sort(key=lambda item: "training" not in item.path.parts)
    for item in items:
        if _is_optimized(item.path):
            item.add_marker("optimized")


@pytest.fixture(scope="module", autouse=True)
def compilation(request: pytest.FixtureRequest) -> Iterator[None]:
    """With XLA's optimizations for tests of numbers, and without for all others, in what they start too."""
    name, quickly = "jax_disable_most_optimizations", not _is_optimized(request.path)
    before = jax.config.values[name]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(name.upper(), str(int(quickly)))
        jax.config.update(name, quickly)
        yield
    jax.config.update(name, before)


def _is_optimized(path: Path) -> bool:
    return path.relative_to(Path(__file__).parent).as_posix().startswith(_OPTIMIZED)


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
