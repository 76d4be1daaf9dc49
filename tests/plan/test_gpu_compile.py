"""Steps compiled for NVIDIA GPUs, on a machine without one."""

from dataclasses import replace

import pytest
from plan_cases import make_step

from videomae_jax.config import MeshConfig
from videomae_jax.plan.compile import _has_cuda_plugin, compile_elsewhere

pytestmark = pytest.mark.skipif(
    not _has_cuda_plugin(),
    reason="needs XLA's compiler for GPUs, though no GPU: the extra gpu-plan",
)


def test_a_training_step_for_eight_gpus():
    step = make_step("h100:8", batch_size=16)
    compiled = compile_elsewhere(step)
    assert compiled.fits(step.target)
    # Planes on a canvas of 36 x 36, and for each frame and each clip where and of which colours they are.
    assert compiled.batch == 2 * (8 * 36 * 54 + 8 * 6 * 4 + 2 * 4 * 4 + 2 * 4)
    assert compiled.aliased > 0
    # Every gradient is summed over the chips; the parameters are float32.
    assert [each.kind for each in compiled.collectives] == ["all-reduce"]


def test_parameters_split_over_the_gpus_of_two_hosts():
    """The shapes of scatters hold their operands and results: taken as one, they seem nine times as large."""
    step = make_step("h100:2x4", batch_size=16, hidden_size=256, intermediate_size=1024)
    step = replace(step, config=replace(step.config, mesh=MeshConfig(8)))
    compiled = compile_elsewhere(step)
    assert compiled.fits(step.target)
    sent = {each.kind: each.bytes for each in compiled.collectives}
    # Gradients; the state has two moments beside each parameter.
    assert 0 < sent["reduce-scatter"] <= 8 * compiled.arguments / 3


def test_products_for_which_triton_has_no_tiles():
    model = {"num_hidden_layers": 1, "decoder_num_hidden_layers": 2}
    step = make_step("h100:1", recipe="k400_base_1600e", batch_size=1024, **model)
    compiled = compile_elsewhere(step)
    assert compiled.live > 2**33
    # cuDNN's, for 1,568 queries of 6 heads with 64 values.
    assert compiled.workspace == 4 * 1024 * 6 * 1568 * (64 + 1)


@pytest.mark.parametrize("kind", ["t4", "l4", "a100", "h200", "b200"])
def test_an_evaluation_on_every_kind(kind):
    step = make_step(f"{kind}:1", "evaluate", "tiny_finetune", batch_size=2)
    compiled = compile_elsewhere(step)
    assert compiled.fits(step.target)
    assert compiled.collectives == ()
