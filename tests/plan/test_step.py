"""Slices by name, steps on them, and what is said of them."""

import fcntl
import json
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, replace

import pytest
from plan_cases import make_step

from videomae_jax.config import SIZES, MeshConfig, PretrainConfig
from videomae_jax.errors import InputError, RunError
from videomae_jax.hardware import GIB
from videomae_jax.plan import compile
from videomae_jax.plan.compile import compile_elsewhere
from videomae_jax.plan.compiler import needed_bytes
from videomae_jax.plan.hlo import Collective
from videomae_jax.plan.program import Compiled, step_on
from videomae_jax.plan.report import describe, verdict
from videomae_jax.plan.topology import read_target


@pytest.mark.parametrize(
    ("topology", "chips", "hosts"),
    [("v5e:1x1", 1, 1), ("v5e:2x4", 8, 1), ("v5e:4x4", 16, 4), ("v5e:16x16", 256, 64), ("v6e:2x2", 4, 1),
     ("v4:2x2x1", 4, 1), ("v4:4x4x8", 128, 32), ("v5p:2x2x2", 8, 2)],
)  # fmt: skip
def test_slices(topology, chips, hosts):
    found = read_target(topology)
    assert (found.chips, found.hosts) == (chips, hosts)


@pytest.mark.parametrize(
    "topology", ["v5e-256", "v5e:256", "v5e:2x2x2", "v4:2x2", "v9:2x2", "v5e:0x4", "v5e:3x6"]
)
def test_what_names_no_slice_is_refused(topology):
    with pytest.raises(InputError, match=f"--topology {topology}"):
        read_target(topology)


def test_nothing_depends_on_the_machine_that_compiles():
    config = PretrainConfig(replace(SIZES["base"], dtype="auto"), batch_size=8)
    model = step_on(config, "train", read_target("v5e:2x4")).config.model
    assert (model.dtype, model.attention) == ("bfloat16", "splash")
    given = replace(
        config,
        model=replace(config.model, dtype="float32", attention="xla"),
        data=replace(config.data, pixels="rgb"),
    )
    assert step_on(given, "train", read_target("v5e:2x4")).config == given


def test_the_batch_is_what_runs_on_accelerators_read():
    config = PretrainConfig(replace(SIZES["base"], dtype="float32", attention="xla"), batch_size=8)
    assert step_on(config, "train", read_target("v5e:2x4")).config.data.pixels == "planes"
    given = replace(config, data=replace(config.data, pixels="rgb"))
    assert step_on(given, "train", read_target("v5e:2x4")).config == given


def test_numbers_of_a_step():
    config = PretrainConfig(SIZES["base"], batch_size=1024)
    step = step_on(config, "train", read_target("v5e:16x16"))
    assert step.flops_per_clip / 1e9 == pytest.approx(199.7, rel=0.005)
    # 1.014 ms a clip on one chip at its peak, four clips a chip, four chips a host.
    assert 1000 * step.floor_seconds == pytest.approx(4 * 1.014, rel=0.005)
    assert step.clips_per_second_and_host == pytest.approx(4 / 1.014e-3, rel=0.005)


def test_every_mask_of_a_clip_costs_a_pass_and_nothing_to_read():
    config, where = PretrainConfig(SIZES["base"], batch_size=1024), read_target("v5e:16x16")
    one, four = (step_on(replace(config, num_masks=n), "train", where) for n in (1, 4))
    assert four.floor_seconds == pytest.approx(4 * one.floor_seconds)
    assert four.clips == one.clips


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"batch_size": 12}, "batch_size=12 is not a multiple of 8 .* change --batch-size$"),
     ({"batch_size": 8, "parts": 2}, "not a multiple of 16 .* or --optim.accumulation-steps$"),
     ({"recipe": "tiny_finetune", "num_labels": 0}, "--model.num-labels")],
)  # fmt: skip
def test_settings_that_do_not_go_together(changes, said):
    with pytest.raises(InputError, match=said):
        make_step(**changes)


def test_a_mesh_must_divide_the_slice():
    config = replace(make_step().config, mesh=MeshConfig(3))
    with pytest.raises(InputError, match=r"mesh\.fsdp=3 does not divide the 8 chips"):
        step_on(config, "train", read_target("v5e:2x4"))


def compiled(gib: float) -> Compiled:
    """A step whose peak is so many GiB, one of them for arguments."""
    return Compiled(
        12.0, arguments=GIB, outputs=GIB, aliased=GIB, live=int((gib - 0.5) * GIB), code=GIB // 4,
        batch=GIB // 4, collectives=(Collective("all-reduce", 29, 100 * 2**20),),
    )  # fmt: skip


def test_the_plan_of_a_step_that_fits():
    text = describe(make_step(), compiled(10))
    assert "10.00 of 15.75 GiB (63%): arguments 1.00, outputs 0.00, temporaries 8.50" in text
    assert "29 all-reduce 100.0 MiB" in text
    assert "v5e:2x4: 8 chips, 1 host, mesh" in text
    assert text.splitlines()[-1].split() == ["verdict", "fits"]


def test_what_to_try_where_it_does_not_fit():
    assert verdict(make_step(), compiled(16)).startswith(
        "does not fit; try --mesh.fsdp 8 or --model.remat or --optim.accumulation-steps 2 or --batch-size 32"
    )
    short = Compiled(3.0, "RESOURCE_EXHAUSTED: ...", 20 * GIB)
    thrifty = make_step(batch_size=8, remat=True)
    assert "at least 20.00 of 15.75 GiB" in describe(thrifty, short)
    assert "try --mesh.fsdp 8, or" in verdict(thrifty, short)
    views = make_step(stage="evaluate", recipe="tiny_finetune")
    assert "try a smaller --batch-size" in verdict(views, short)


@pytest.mark.parametrize(
    ("said", "gib"),
    [("the total memory required for HLO temporaries (56.93G) exceeds available HBM (15.75G).", 56.93),
     ("Ran out of memory in memory space hbm. Used 48.2G of 15.75G hbm.", 48.2),
     ("no number", None)],
)  # fmt: skip
def test_how_much_the_compiler_says_is_needed(said, gib):
    found = needed_bytes(said)
    assert found == (None if gib is None else pytest.approx(gib * GIB, rel=1e-6))


def test_compiled_survives_json():
    one = compiled(3)
    assert Compiled.from_json(json.loads(json.dumps(asdict(one)))) == one


def test_without_the_tpu_compiler(monkeypatch):
    monkeypatch.setattr(compile.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r'pip install "jax\[tpu\]"'):
        compile_elsewhere(make_step())


def test_a_compiler_that_fails_is_quoted(monkeypatch):
    monkeypatch.setattr(compile.importlib.util, "find_spec", lambda name: True)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RunError, match="pre-training step for v5e:2x4 ended with exit code 1"):
        compile_elsewhere(make_step())


COMPILER = """
import fcntl, pathlib, sys, time
from videomae_jax.plan.compiler import end_with_input
end_with_input()
held = open(sys.argv[1], "w")
fcntl.flock(held, fcntl.LOCK_EX)
pathlib.Path(sys.argv[2]).touch()
time.sleep(600)
"""
ITS_PARENT = "import sys; from videomae_jax.plan.compile import _run; _run(sys.argv[1:], 'compiling')"


def test_the_compiler_ends_with_who_started_it(tmp_path):
    """However that ended; compiling can take minutes."""
    held, started = tmp_path / "held", tmp_path / "started"
    compiler = [sys.executable, "-c", COMPILER, held, started]
    parent = subprocess.Popen([sys.executable, "-c", ITS_PARENT, *compiler], stderr=subprocess.DEVNULL)
    while not started.exists():
        assert parent.poll() is None
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    with held.open() as file:
        for _ in range(1200):
            with suppress(BlockingIOError):  # The lock is given when the compiler has ended.
                return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            time.sleep(0.05)
    pytest.fail("the compiler is still there after a minute")
