"""The comparisons in this folder ask for full float32 products, in a program's text too."""

import jax
import jax.numpy as jnp
import pytest


@pytest.fixture(scope="module")
def of_a_module():
    return jax.config.jax_default_matmul_precision


def test_products_are_in_full_float32(of_a_module):
    assert of_a_module == jax.config.jax_default_matmul_precision == "highest"
    text = jax.jit(jnp.matmul).lower(jnp.ones((2, 2)), jnp.ones((2, 2))).as_text()
    assert text.count("HIGHEST") == 2
