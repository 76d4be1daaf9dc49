"""Layers written out for a TPU, beside a loop over them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from videomae_jax.hardware import Hardware
from videomae_jax.model_config import VideoMAEConfig
from videomae_jax.models.attention.choice import LONG
from videomae_jax.models.blocks import Block
from videomae_jax.models.compiled_for import compiling_for
from videomae_jax.models.stack import apply_stack, init_stack

LAYERS, CLIPS, WIDTH = 2, 2, 16


@pytest.mark.parametrize("others", [0, 24])
def test_layers_written_out_have_the_gradient_of_a_loop(others):
    block = Block(VideoMAEConfig(dtype="float32", attention="xla"), num_heads=2, mlp_hidden=32)
    stack = init_stack(jax.random.key(0), block, LAYERS, WIDTH)
    keys = jax.random.split(jax.random.key(1), 3)
    x = jax.random.normal(keys[0], (CLIPS, LONG, WIDTH))
    seen = jax.random.normal(keys[1], (CLIPS, others, WIDTH))
    scales = jax.random.uniform(keys[2], (LAYERS, 2, CLIPS))

    def value(stack, x, scales, seen):
        given = seen if others else None
        return jnp.sum(jnp.sin(apply_stack(block, stack, x, False, scales, seen=given)[0]))

    def gradient():
        """With the number of barriers of a layer, which hold what gradients are given."""
        traced = jax.jit(jax.value_and_grad(value, argnums=(0, 1, 2, 3))).trace(stack, x, scales, seen)
        barriers = str(traced.jaxpr).count("optimization_barrier")
        return traced.lower().compile()(stack, x, scales, seen), barriers

    in_a_loop, none = gradient()
    with compiling_for(Hardware("tpu", "TPU v5 lite")):
        written_out, one = gradient()
    assert (none, one) == (0, 1)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, atol=2e-4), in_a_loop, written_out)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(written_out[1][:3]))
    assert bool(others) == bool(np.any(written_out[1][3]))


@pytest.mark.parametrize(("remat", "written_out"), [(False, LAYERS), (True, 1)])
def test_blocks_that_are_computed_again_stay_a_loop(remat, written_out):
    block = Block(VideoMAEConfig(dtype="float32", attention="xla"), num_heads=2, mlp_hidden=32)
    stack = init_stack(jax.random.key(0), block, LAYERS, WIDTH)
    with compiling_for(Hardware("tpu", "TPU v5 lite")):
        traced = jax.make_jaxpr(lambda x: apply_stack(block, stack, x, remat)[0])(jnp.zeros((1, 8, WIDTH)))
    (scan,) = (equation for equation in traced.eqns if equation.primitive.name == "scan")
    assert scan.params["unroll"] == written_out
