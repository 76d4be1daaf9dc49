"""One device and eight (simulated) ones compute the same, however the state is split."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, PartitionSpec

from videomae_jax.training.sharding import (
    AXES,
    OnMesh,
    hosts_in_order,
    make_mesh,
    replicated,
    state_shardings,
)


def start(*arguments: str) -> "subprocess.Popen[str]":
    script = str(Path(__file__).with_name("mesh_run.py"))
    line = [sys.executable, script, *arguments]
    # As many threads whatever the number of devices: they decide in what parts sums are taken.
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "NPROC": "8"}
    return subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def result(process: "subprocess.Popen[str]") -> dict:
    said, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    return json.loads(said.splitlines()[-1])


@pytest.fixture(scope="module")
def results() -> list[dict]:
    """What one host with eight devices found, and the first of two with four."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    started = [start(), start(port, "0"), start(port, "1")]
    try:
        one, first, second = map(result, started)
    finally:
        for process in started:
            process.kill()
    assert first == second
    return [one, first]


@pytest.mark.parametrize(("hosts", "mesh"), [(1, "data"), (1, "fsdp"), (2, "fsdp")])
def test_eight_devices_train_like_one(results, hosts, mesh):
    found = results[hosts - 1]
    assert found["one"]["losses"] == results[0]["one"]["losses"]
    assert found[mesh]["losses"] == pytest.approx(found["one"]["losses"], rel=1e-5)
    assert found[mesh]["difference"] <= 1e-5
    assert found["one"]["losses"][2] < found["one"]["losses"][0]


@pytest.mark.parametrize("what", ["params", "optimizer"])
@pytest.mark.parametrize("hosts", [1, 2])
def test_fsdp_splits_the_state(results, hosts, what):
    found = {mesh: each["bytes"][what] for mesh, each in results[hosts - 1].items() if mesh != "full"}
    assert found.get("data", found["one"]) == found["one"]
    (all_one, large_one), (all_split, large_split) = found["one"], found["fsdp"]
    assert large_split * 4 == large_one > 0.9 * all_one
    assert all_split - large_split == all_one - large_one


def test_only_parameters_are_gathered(results):
    assert results[0]["full"]["gathers"] > 0
    assert results[0]["full"]["others"] == []


def test_activations_are_pinned_at_every_block_boundary(results):
    # The encoder's scan, the decoder's scan and its last block: forward, backward, and where recomputed.
    assert results[0]["full"]["constraints"] == 9


@dataclass(frozen=True)
class Chip:
    """A device as far as the order of a mesh depends on it."""

    id: int
    process_index: int


def test_the_devices_of_a_host_follow_each_other():
    across = np.array([Chip(id, host) for id, host in ((0, 0), (2, 1), (1, 0), (3, 1))]).reshape(2, 2)
    assert [[chip.id for chip in row] for row in hosts_in_order(across)] == [[0, 1], [2, 3]]
    by_links = across[:, ::-1].T  # Hosts 1, 1, 0, 0.
    assert [[chip.id for chip in row] for row in hosts_in_order(by_links)] == [[0, 1], [2, 3]]
    in_order = by_links[::-1]
    assert hosts_in_order(in_order) is in_order


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


def test_groups_that_a_device_has_whole_are_mixed_there(results):
    inside, across = results[0]["full"]["mixing"]
    assert inside == 0 < across


def test_gradients_of_parts_are_sent_once(results):
    assert results[0]["full"]["accumulation"] < 1.1 * results[0]["data"]["bytes"]["params"][0]


def test_devices_that_compute_apart_draw_apart(results):
    found, own, one = results[0]["full"]["draws"]
    assert found == pytest.approx(own, rel=1e-6)
    assert found != pytest.approx(one, rel=1e-2)


def test_a_step_moves_nothing_to_the_devices():
    mesh = make_mesh(devices=jax.devices()[:1])
    everywhere = replicated(mesh)
    step = OnMesh(lambda x: x + 1, mesh, everywhere, everywhere)
    assert step(jax.device_put(np.float32(1), everywhere)) == 2
    with pytest.raises(jax.errors.JaxRuntimeError, match="Disallowed host-to-device transfer"):
        step(np.float32(1))
