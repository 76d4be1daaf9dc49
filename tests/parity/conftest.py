"""Numbers are compared in full float32: GPUs and TPUs round the factors of products unless asked not to."""

import jax
import pytest


@pytest.fixture(scope="module", autouse=True)
def full_precision():
    with jax.default_matmul_precision("highest"):
        yield
