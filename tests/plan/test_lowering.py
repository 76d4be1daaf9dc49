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

from videomae_jax.model_config import SIZES
from videomae_jax.models.attention.choice import LONG
from videomae_jax.models.compiled_for import compiling_for
from videomae_jax.plan import compiler
from videomae_jax.training.sharding import make_mesh

STAGES = ("tube", "random", "frame", "fine-tuning", "evaluation", "validation")
WAYS = (
    # The GPU, dtype and attention that are asked for, and what these become.
    ("h100:1", "auto", "auto", "bf16", "cudnn"),
    ("a100:1", "float16", "cudnn", "f16", "cudnn"),
    ("h100:1", "float32", "auto", "f32", "blockwise"),
    ("t4:1", "auto", "auto", "f16", "blockwise"),
    ("t4:1", "float32", "xla", "f32", "xla"),
)


def pairs(case):
    """Every two values of a case, with the axes that they are of."""
    return set(combinations(enumerate(case), 2))


def cases():
    """So few of all combinations that every two values of different axes still meet."""
    everything = list(product(SIZES, STAGES, WAYS, (False, True), (1, 2)))
    left = set().union(*map(pairs, everything))
    while left:
        case = max(everything, key=lambda each: len(pairs(each) & left))
        left -= pairs(case)
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


def step_of(size, stage, way, remat, parts):
    target, dtype, attention, *_ = way
    model = vars(replace(SIZES[size], dtype=dtype, attention=attention, remat=remat))
    if stage in ("fine-tuning", "evaluation"):
        what = "train" if stage == "fine-tuning" else "evaluate"
        return make_step(target, what, "tiny_finetune", 2, parts, **model | {"num_labels": 3, "id2label": ()})
    what = "evaluate" if stage == "validation" else "train"
    step = make_step(target, what, "k400_base_1600e", 2, parts, **model)
    mask = stage if what == "train" else "tube"
    return replace(
        step, config=replace(step.config, mask_type=mask, mask_ratio=0.9 if mask != "frame" else 0.5)
    )


@pytest.mark.parametrize(("size", "stage", "way", "remat", "parts"), list(cases()))
def test_every_step_lowers_for_cuda(size, stage, way, remat, parts, nothing_asks_which_devices_are_here):
    mesh, step = nothing_asks_which_devices_are_here, step_of(size, stage, way, remat, parts)
    with compiling_for(step.target.hardware), jax.set_mesh(mesh):
        make = compiler._train if step.stage == "train" else compiler._evaluate
        function, arguments, _ = make(step, mesh)
        text = function.jitted.trace(*arguments).lower(lowering_platforms=("cuda",)).as_text()
    *_, dtype, attention = way
    kernels = text.count("stablehlo.custom_call @CustomSPMDPartitioning") + text.count("__cudnn$fmha")
    assert (kernels > 0) == (attention == "cudnn")
    width = step.config.model.hidden_size
    assert re.search(rf"stablehlo.dot_general .*x{width}x{dtype}>", text)
    # All scores of a clip at once are there where plain XLA attends over so many tokens, and nowhere else.
    tokens = step.config.model.num_tokens
    queries = [int(each) for each in re.findall(rf"tensor<\d+x\d+x(\d+)x{tokens}xf32>", text)]
    assert any(each >= LONG for each in queries) == (attention == "xla")
