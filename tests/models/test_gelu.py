"""The GELU of the blocks: exact, in float32 whatever it is given, and of few operations."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from videomae_jax.models.blocks import gelu


@pytest.mark.parametrize(("dtype", "rounding"), [("float32", 1e-6), ("bfloat16", 2**-8), ("float16", 2**-11)])
def test_it_is_exact(dtype, rounding):
    x = jnp.linspace(-12, 12, 4001, dtype=dtype)
    exact = [0.5 * each * math.erfc(-each / math.sqrt(2)) for each in map(float, x)]
    ours = gelu(x)
    assert ours.dtype == dtype
    np.testing.assert_allclose(np.asarray(ours, np.float64), exact, rtol=rounding, atol=1e-6)


def test_it_is_computed_by_erf_in_float32():
    """Its complement takes a kernel of its own on GPUs, and the trip through memory that goes with it."""
    equations = jax.make_jaxpr(gelu)(jnp.ones(3, "bfloat16")).jaxpr.eqns
    of_erf = [each for each in equations if each.primitive.name in ("erf", "erfc")]
    assert [(each.primitive.name, each.invars[0].aval.dtype) for each in of_erf] == [("erf", jnp.float32)]
