"""Collectives are counted as often as their loops run, with the bytes of the whole arrays."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from videomae_jax.plan.gpus import attention_workspace
from videomae_jax.plan.hlo import Collective, instructions, read_collectives

OWN = 8 * 16 * 4  # Bytes of one device's rows.


@pytest.fixture(scope="module")
def read():
    script = Path(__file__).with_name("collectives_run.py")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("none", {}),
        ("all-reduce", {"all-reduce": [1, OWN]}),
        ("scan of 5", {"all-reduce": [5, 5 * OWN]}),
        ("scan of 3 in a scan of 2", {"all-reduce": [6, 6 * OWN]}),
        ("gather and scatter", {"all-gather": [1, 4 * OWN], "reduce-scatter": [1, 4 * OWN]}),
        ("shift", {"collective-permute": [1, OWN]}),
    ],
)
def test_programs_compiled_for_eight_devices(read, program, expected):
    assert read[program] == expected


# The forms that only the TPU compiler writes: loops without a noted count, whose counter may rise by more
# than 1; a reduce-scatter as a fusion around an all-reduce; one gather in several fusions, some in inner
# loops.
TPU = Path(__file__).with_name("tpu_forms.hlo").read_text()


def test_the_forms_of_the_tpu_compiler():
    assert set(read_collectives(TPU)) == {
        Collective("all-gather", 12, 12 * 32 * 32 * 2),
        Collective("collective-permute", 12 * 2, 12 * 2 * 8 * 32 * 2),
        Collective("reduce-scatter", 1, 64 * 32 * 2),
    }


def test_the_one_with_most_bytes_comes_first():
    sizes = [each.bytes for each in read_collectives(TPU)]
    assert sizes == sorted(sizes, reverse=True)


def test_all_branches_count_and_a_loop_of_unknown_length_once():
    unknown = TPU.replace("direction=LT", "direction=NE")
    assert {each.kind: each.count for each in read_collectives(unknown)}["collective-permute"] == 1


# Those of the compiler for GPUs: a collective is begun by an instruction whose shape holds the operands, then
# the results, each a tuple where there are several.
GPU = Path(__file__).with_name("gpu_forms.hlo").read_text()


CHOICE = """HloModule choice

%double (x: f32[4]) -> f32[4] {
  %x = f32[4]{0} parameter(0)
  ROOT %twice = f32[4]{0} add(%x, %x)
}

%square (y: f32[4]) -> f32[4] {
  %y = f32[4]{0} parameter(0)
  ROOT %squared = f32[4]{0} multiply(%y, %y)
}

ENTRY %main (n: s32[], z: f32[4]) -> f32[4] {
  %n = s32[] parameter(0)
  %z = f32[4]{0} parameter(1)
  %more = f32[4]{0} negate(%z)
  ROOT %one = f32[4]{0} conditional(%n, %more, %z), branch_computations={%double, %square}
}
"""


def test_of_a_choice_each_instruction_is_run_by_its_share():
    times = {each.opcode: times for times, each in instructions(CHOICE) if each.opcode != "parameter"}
    assert times == {"negate": 1, "add": 0.5, "multiply": 0.5}


def test_the_forms_of_the_compiler_for_gpus():
    layer = 32 * 32 * 2
    assert set(read_collectives(GPU)) == {
        Collective("all-gather", 12, 12 * (layer + 64 * 4)),
        Collective("reduce-scatter", 13, 12 * layer + (8 * 32 + 4) * 2),
        Collective("all-reduce", 1, 8 * 32 * 2 + 4),
        Collective("all-to-all", 1, 8 * 32 * 2),
        Collective("collective-permute", 1, 8 * 32 * 2),
    }


def test_the_largest_backward_pass_of_cudnn_counts():
    assert attention_workspace(GPU) == 4 * 2 * 6 * 1408 * (64 + 1)
    assert attention_workspace(TPU) == 0
