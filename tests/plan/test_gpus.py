"""GPUs by name, their memory, and what to do where a part of their compiler is missing."""

import pytest
from plan_cases import make_step

from videomae_jax.errors import InputError
from videomae_jax.hardware import GIB
from videomae_jax.plan import compile
from videomae_jax.plan.compile import compile_elsewhere
from videomae_jax.plan.gpus import GPUS
from videomae_jax.plan.program import Compiled
from videomae_jax.plan.report import describe, verdict
from videomae_jax.plan.search import candidates
from videomae_jax.plan.topology import read_target


@pytest.fixture(autouse=True)
def nothing_said_of_memory(monkeypatch):
    for name in ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("topology", "chips", "hosts"), [("h100:1", 1, 1), ("h100:8", 8, 1), ("a100:2x8", 16, 2), ("t4:1", 1, 1)]
)
def test_gpus_by_name(topology, chips, hosts):
    found = read_target(topology)
    assert (found.chips, found.hosts) == (chips, hosts)


@pytest.mark.parametrize("topology", ["h100", "h100:0", "h100:2x", "h100:2x2x2", "h100:0x8", "h100-8"])
def test_what_names_no_gpus_is_refused(topology):
    with pytest.raises(InputError, match=f"--topology {topology} names no .*GPUs.* as h?1?0?0?"):
        read_target(topology)


@pytest.mark.parametrize("gpu", GPUS.values(), ids=lambda gpu: gpu.name)
def test_every_kind_has_a_peak_and_a_description(gpu):
    assert gpu.peak_flops > 1e13
    assert gpu.hardware.compute_capability == float(".".join(map(str, gpu.capability)))
    text = gpu.description()
    assert text.count("{") == text.count("}")
    assert f"device_memory_size: {gpu.memory_bytes} " in " ".join(text.split())


@pytest.mark.parametrize(("kind", "dtype"), [("t4", "float16"), ("a100", "bfloat16"), ("b200", "bfloat16")])
def test_auto_is_what_the_gpu_has(kind, dtype):
    model = make_step(f"{kind}:8", dtype="auto").config.model
    assert (model.dtype, model.attention) == (dtype, "auto")  # Attention is chosen where it is traced.


def test_jax_takes_three_quarters_of_the_memory_unless_told(monkeypatch):
    whole = GPUS["h100"].memory_bytes
    assert read_target("h100:8").limit_bytes == int(0.75 * whole)
    for name in ("XLA_PYTHON_CLIENT_MEM_FRACTION", "XLA_CLIENT_MEM_FRACTION"):
        monkeypatch.setenv(name, ".92")
        assert read_target("h100:8").limit_bytes == int(0.92 * whole)
        monkeypatch.setenv(name, "all")
        with pytest.raises(InputError, match="MEM_FRACTION=all is no part of a GPU's memory"):
            read_target("h100:8")


def compiled(gib: float) -> Compiled:
    """A step whose peak is so many GiB, a quarter of one for cuDNN."""
    return Compiled(9.0, arguments=GIB, outputs=GIB, aliased=GIB, live=int((gib - 0.25) * GIB),
                    workspace=GIB // 4, code=0, batch=0)  # fmt: skip


def test_the_plan_of_a_step_on_gpus():
    text = describe(make_step("h100:2x8"), compiled(10))
    assert "GPUs  h100:2x8: 16 GPUs, 2 hosts, mesh 16 data x 1 fsdp" in text
    assert "memory a GPU  10.00 of 59.33 GiB that JAX takes of 79.11 (17%)" in text
    assert "temporaries 8.75, cuDNN 0.25, program 0.00" in text
    assert "at 989 TFLOP/s a GPU" in text
    assert text.splitlines()[-1].split() == ["verdict", "fits"]


def test_more_of_the_memory_is_the_first_thing_to_try_where_it_is_enough(monkeypatch):
    step = make_step("h100:8")
    assert "does not fit; try XLA_CLIENT_MEM_FRACTION=0.92 in the environment or --mesh.fsdp 8" in verdict(
        step, compiled(70)
    )
    assert "does not fit; try --mesh.fsdp 8 or" in verdict(step, compiled(75))
    monkeypatch.setenv("XLA_CLIENT_MEM_FRACTION", "0.92")
    assert verdict(make_step("h100:8"), compiled(70)) == "fits"


def test_a_search_on_one_gpu_splits_nothing():
    assert {each.config.mesh.fsdp for each in candidates(make_step("h100:1"))} == {1}


def test_without_the_compiler_for_gpus(monkeypatch):
    monkeypatch.setattr(compile.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r'extra gpu-plan, or pip install "jax\[cuda13-local\]" nvidia-cuda'):
        compile_elsewhere(make_step("h100:1"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("RuntimeError: cuDNN not found.", "pip install --no-deps nvidia-cudnn-cu13, or set --model.att"),
        ("RuntimeError: cuDNN is not detected.", "pip install --no-deps nvidia-cudnn-cu13"),
        ("UNIMPLEMENTED: No PTX compilation provider is available", "extra gpu-plan"),
        ("INTERNAL: libdevice not found at ./libdevice.10.bc", "extra gpu-plan"),
        ("NotImplementedError: topology not implemented for cuda", "version is not that of jax: pip inst"),
    ],
)
def test_a_missing_part_of_it_is_named(monkeypatch, words, said):
    monkeypatch.setattr(compile, "_has_cuda_plugin", lambda: True)
    monkeypatch.setattr(compile, "_run", lambda command, what: (1, f"Traceback ...\n{words}\n"))
    with pytest.raises(InputError, match=said):
        compile_elsewhere(make_step("h100:1"))
