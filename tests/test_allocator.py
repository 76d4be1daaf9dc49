"""Memory that is freed is kept for the next step where a command computes on a CPU."""

import os
import subprocess
import sys

import pytest

from videomae_jax import cli
from videomae_jax.allocator import keep_freed_memory

# A step with a result of 64 MB, and a worker process beside it.
STEPS = """
import resource, sys
from videomae_jax.allocator import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def faults_of_worker(item):
    for _ in range(3):
        before = faults()
        b"1" * (item << 26)
    return faults() - before

if __name__ == "__main__":
    print(keep_freed_memory() if sys.argv[1] == "kept" else False)
    import jax, jax.numpy as jnp
    from videomae_jax.data.loading.map_processes import map_in_processes
    import steps
    step = jax.jit(lambda x: x @ x.T)
    matrix = jnp.ones((4096, 64))
    each = []
    for _ in range(30):  # The heap has settled after some.
        before = faults()
        step(matrix).block_until_ready()
        each.append(faults() - before)
    print(min(each))
    print(next(map_in_processes(steps.faults_of_worker, [1], 1, print)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux with glibc")
def test_steps_find_the_memory_of_the_last(tmp_path):
    (tmp_path / "steps.py").write_text(STEPS)
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("MALLOC_", "GLIBC_"))
    }

    def run(how):
        command = [sys.executable, str(tmp_path / "steps.py"), how]
        environment["JAX_PLATFORMS"] = "cpu"
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True
        ).stdout.split()

    kept, faults, of_worker = run("kept")
    assert kept == "True"
    assert int(faults) < 1600 < 16_000 < int(run("plain")[1])
    assert int(of_worker) > 16_000


@pytest.mark.parametrize("variable", ["MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"])
def test_what_the_user_has_set_stays(monkeypatch, variable):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv(variable, "glibc.malloc.arena_max=2")
    assert not keep_freed_memory()


def test_nothing_changes_beside_an_accelerator(monkeypatch):
    for variable in [name for name in os.environ if name.startswith(("MALLOC_", "GLIBC_", "JAX_PLATFORMS"))]:
        monkeypatch.delenv(variable)
    monkeypatch.setattr("videomae_jax.allocator.glob", lambda pattern: ["/dev/nvidia0"])
    assert not keep_freed_memory()
    monkeypatch.setenv("JAX_PLATFORMS", "cuda,cpu")
    assert not keep_freed_memory()


def test_commands_keep_memory_in_processes_of_their_own_only(monkeypatch, capsys):
    kept = []
    monkeypatch.setattr(cli, "keep_freed_memory", lambda: kept.append(True))
    cli.main(["--help"])
    assert not kept
    monkeypatch.setattr(sys, "argv", ["videomae-jax", "--help"])
    cli.main()
    assert kept == [True]
    assert capsys.readouterr().out.count("usage: videomae-jax") == 2
