"""Every step, traced for devices that are not there and lowered for CUDA.

The lowering needs neither a GPU nor its compiler. Of cuDNN JAX asks only which version is installed.
"""

import re
from dataclasses import replace
from itertools import combinations, product

import jax
import pytest
from jax._src.cudnn import fused_attention_stablehlo
from plan_cases import make_step

from videomae_jax.models.attention.choice import LONG
from videomae_jax.models.compiled_for import compiling_for
from videomae_jax.plan import compiler
from videomae_jax.sizes import SIZES
from videomae_jax.training.sharding import make_mesh

STAGES = ("tube", "random", "frame", "dual masking", "fine-tuning", "evaluation", "validation")
GPUS = ("h100:1", "a100:1", "t4:1")
DTYPES = {"auto": "bf16", "bfloat16": "bf16", "float16": "f16", "float32": "f32"}
BACKENDS = ("auto", "cudnn", "blockwise", "xla")


def has_kernel(gpu, dtype):
    return gpu != "t4:1" and dtype != "float32"


def cases():
    """So few of all combinations that every two values of different axes still meet, where they may."""
    axes = SIZES, STAGES, GPUS, DTYPES, BACKENDS, (False, True), (1, 2)
    everything = {
        case: set(combinations(enumerate(case), 2))
        for case in product(*axes)
        if case[4] != "cudnn" or has_kernel(*case[2:4])
    }
    left = set().union(*everything.values())
    while left:
        case = max(everything, key=lambda each: len(everything[each] & left))
        left -= everything[case]
        yield case


@pytest.fixture(autouse=True)
def nothing_asks_which_devices_are_here(monkeypatch):
    mesh = make_mesh(devices=jax.devices()[:1])

    def asked(*arguments):
        raise AssertionError("the devices here are none that are compiled for")

    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91000)
    monkeypatch.setattr(jax, "devices", asked)
    monkeypatch.setattr(jax, "default_backend", asked)
    return mesh


def step_of(size, stage, target, dtype, attention, remat, parts):
    model = vars(replace(SIZES[size], dtype=dtype, attention=attention, remat=remat))
    if stage in ("fine-tuning", "evaluation"):
        what = "train" if stage == "fine-tuning" else "evaluate"
        return make_step(target, what, "tiny_finetune", 2, parts, **model | {"num_labels": 3, "id2label": ()})
    what = "evaluate" if stage == "validation" else "train"
    step = make_step(target, what, "k400_base_1600e", 2, parts, **model)
    masks = {
        "random": {"mask_type": "random", "mask_ratio": 0.9},
        "frame": {"mask_type": "frame", "mask_ratio": 0.5},
        "dual masking": {"mask_type": "tube", "mask_ratio": 0.9, "decoder_mask_ratio": 0.5},
    }
    mask = masks.get(stage, {"mask_type": "tube", "mask_ratio": 0.9})
    return replace(step, config=replace(step.config, **mask))


@pytest.mark.parametrize(("size", "stage", "gpu", "dtype", "attention", "remat", "parts"), list(cases()))
def test_every_step_lowers_for_cuda(
    size, stage, gpu, dtype, attention, remat, parts, nothing_asks_which_devices_are_here
):
    mesh = nothing_asks_which_devices_are_here
    step = step_of(size, stage, gpu, dtype, attention, remat, parts)
    with compiling_for(step.target.hardware), jax.set_mesh(mesh):
        make = compiler._train if step.stage == "train" else compiler._evaluate
        function, arguments, _ = make(step, mesh)
        text = function.jitted.trace(*arguments).lower(lowering_platforms=("cuda",)).as_text()
    if attention == "auto":
        attention = "cudnn" if has_kernel(gpu, dtype) else "blockwise"
    kernels = text.count("stablehlo.custom_call @CustomSPMDPartitioning") + text.count("__cudnn$fmha")
    assert (kernels > 0) == (attention == "cudnn")
    width, written = (
        step.config.model.hidden_size,
        "f16" if (gpu, dtype) == ("t4:1", "auto") else DTYPES[dtype],
    )
    assert re.search(rf"stablehlo.dot_general .*x{width}x{written}>", text)
    # All scores of a clip at once are there where plain XLA attends over so many tokens, and nowhere else.
    # A dual mask shows 160 tokens to the encoder and has half of all decoded.
    tokens = 160 + 784 if stage == "dual masking" else step.config.model.num_tokens
    queries = [int(each) for each in re.findall(rf"tensor<\d+x\d+x(\d+)x{tokens}xf32>", text)]
    assert any(each >= LONG for each in queries) == (attention == "xla")
