"""Splash attention compiled for a TPU slice that is not there, in a process of its own."""

import importlib.util
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed (the tpu extra)"
)

RUN = """
import jax, jax.numpy as jnp, numpy as np
from jax.experimental import topologies
from jax.sharding import NamedSharding, PartitionSpec
from videomae_jax.hardware import Hardware
from videomae_jax.model_config import VideoMAEConfig
from videomae_jax.models.axes import axis_rules
from videomae_jax.models.blocks import Block
from videomae_jax.models.compiled_for import compiling_for
from videomae_jax.models.stack import UNROLLED, apply_stack, init_stack

slice = topologies.get_topology_desc(topology_name="v5e:2x2", platform="tpu")
mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=slice.devices)
block = Block(VideoMAEConfig(dtype="bfloat16", attention="splash"), 6, 1536)

def step(stack, x):
    with axis_rules((("batch", "data"), ("tokens", None), ("embed", None))):
        return jax.grad(lambda *each: apply_stack(block, *each, False)[0].astype(jnp.float32).sum())(stack, x)

def placed(leaf, *axes):
    sharding = NamedSharding(mesh, PartitionSpec(*axes))
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

tokens = placed(jax.ShapeDtypeStruct((8, 1568, 384), jnp.bfloat16), "data")
for layers in (2, UNROLLED + 1):
    stack = jax.eval_shape(lambda key: init_stack(key, block, layers, 384), jax.random.key(0))
    with jax.set_mesh(mesh), compiling_for(Hardware("tpu", "TPU v5 lite")):
        text = jax.jit(step).lower(jax.tree.map(placed, stack), tokens).compile().as_text()
    print("kernels", text.count('custom_call_target="tpu_custom_call"'), "gathers", text.count(" all-gather"))
"""


def test_compiles_for_a_slice_and_stays_on_its_device():
    environment = os.environ | {
        "TPU_SKIP_MDS_QUERY": "1",
        "JAX_PLATFORMS": "cpu",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # Others compile at the same time.
    }
    run = subprocess.run([sys.executable, "-c", RUN], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    # One kernel forward and one backward, for each of two layers and in loops over more of them: the forward
    # one is not run again.
    assert run.stdout.splitlines() == ["kernels 4 gathers 0", "kernels 2 gathers 0"]
