"""One device and eight (simulated) ones compute the same, however the state is split."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractMesh, PartitionSpec

from videomae_jax.training.sharding import AXES, make_mesh, state_shardings


@pytest.fixture(scope="module")
def results():
    script = Path(__file__).with_name("mesh_run.py")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("mesh", ["data", "fsdp"])
def test_eight_devices_train_like_one(results, mesh):
    assert results[mesh]["losses"] == pytest.approx(results["one"]["losses"], rel=1e-5)
    assert results[mesh]["difference"] <= 1e-5
    assert results["one"]["losses"][3] < results["one"]["losses"][0]


def test_fsdp_splits_the_state(results):
    assert results["data"]["state_bytes"] == results["one"]["state_bytes"]
    assert results["fsdp"]["state_bytes"] < 0.3 * results["one"]["state_bytes"]


def test_activations_are_pinned_at_every_block_boundary(results):
    # The encoder's scan, the decoder's scan and its last block, each forward and backward.
    assert {results[mesh]["constraints"] for mesh in results} == {6}


def test_the_axis_of_stacked_layers_is_never_split():
    shapes = {
        "blocks": {"fc1": jax.ShapeDtypeStruct((512, 96, 384), jnp.float32)},
        "head": jax.ShapeDtypeStruct((1024, 128), jnp.float32),
        "bias": jax.ShapeDtypeStruct((1024,), jnp.float32),
    }
    specs = jax.tree.map(lambda sharding: sharding.spec, state_shardings(AbstractMesh((1, 4), AXES), shapes))
    assert specs["blocks"]["fc1"] == PartitionSpec(None, None, "fsdp")
    assert specs["head"] == PartitionSpec("fsdp", None)
    assert specs["bias"] == PartitionSpec()


def test_a_mesh_that_does_not_fit_the_devices_is_refused():
    with pytest.raises(ValueError, match=r"mesh\.fsdp=3 does not divide the 1 devices"):
        make_mesh(3, jax.devices()[:1])
    assert state_shardings(make_mesh(1, jax.devices()[:1]), {"a": jnp.zeros(3)})["a"].is_fully_replicated
