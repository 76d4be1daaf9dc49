"""A tiny step compiled by the TPU compiler, on a machine without a TPU."""

import importlib.util
from dataclasses import replace

import pytest
from plan_cases import make_step

from videomae_jax.config import MeshConfig
from videomae_jax.plan.compile import compile_elsewhere

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason='needs the TPU compiler, though no TPU: pip install "jax[tpu]"',
)


def test_a_training_step_for_eight_chips():
    step = make_step(batch_size=16)
    compiled = compile_elsewhere(step)
    assert compiled.fits(step.target)
    # Planes on a canvas of 36 x 36, and for each frame and each clip where and of which colours they are.
    assert compiled.batch == 2 * (8 * 36 * 54 + 8 * 6 * 4 + 2 * 4 * 4 + 2 * 4)
    assert compiled.aliased > 0
    assert compiled.arguments > compiled.batch
    # Every gradient is summed over the chips; the parameters are float32.
    assert [each.kind for each in compiled.collectives] == ["all-reduce"]


def test_an_evaluation_sends_nothing():
    step = make_step(stage="evaluate", recipe="tiny_finetune", batch_size=16)
    compiled = compile_elsewhere(step)
    assert compiled.fits(step.target)
    assert compiled.collectives == ()


def test_any_number_of_chips_that_divides_the_slice_can_share_the_parameters():
    step = make_step("v6e:16x16", "evaluate", "tiny_finetune", batch_size=256)
    step = replace(step, config=replace(step.config, mesh=MeshConfig(8)))
    assert compile_elsewhere(step).fits(step.target)


def test_a_step_that_does_not_fit_says_how_much_it_needs():
    step = make_step(batch_size=2**22, hidden_size=768, dtype="float32", attention="xla")
    compiled = compile_elsewhere(step)
    assert not compiled.fits(step.target)
    assert compiled.needed_bytes > step.target.limit_bytes
