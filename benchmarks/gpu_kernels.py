"""How many kernels a training step that is compiled for a GPU starts, and what they write.

    python benchmarks/gpu_kernels.py k400_base_800e h100:1 32
    python benchmarks/gpu_kernels.py --read step.hlo

32 are the clips of a GPU. Needs no GPU, but the extra gpu-plan (docs/plan.md). Nothing is timed: the counts
compare two states of the code. A loop's kernels count as often as it runs, and of a choice, such as that of
an augmentation, each branch counts as if all were equally likely. What is written into a part of an array, as
what a layer keeps for its gradient, is not among the bytes.
"""

import argparse
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

from videomae_jax.config import load_config
from videomae_jax.plan.compile import ENVIRONMENT
from videomae_jax.plan.compiler import lowered
from videomae_jax.plan.hlo import instructions, shape_bytes
from videomae_jax.plan.program import step_on
from videomae_jax.plan.topology import read_target

_NO_KERNELS = ["parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("recipe", nargs="?")
    parser.add_argument("gpus", nargs="?")
    parser.add_argument("clips_per_gpu", nargs="?", type=int)
    parser.add_argument("--labels", type=int, default=400, help="classes, where the recipe leaves them open")
    parser.add_argument("--keep", type=Path, help="write the compiled program to this file")
    parser.add_argument("--read", type=Path, help="read a program that was kept")
    given = parser.parse_args()
    if given.read:
        show(given.read.read_text("utf-8"))
        return
    os.environ.update(ENVIRONMENT)
    config, target = load_config(given.recipe), read_target(given.gpus)
    model = config.model
    if hasattr(config, "augment") and not model.num_labels:
        model = replace(model, num_labels=given.labels)
    data = replace(config.data, num_sample=1)
    config = replace(config, batch_size=given.clips_per_gpu * target.chips, data=data, model=model)
    with lowered(step_on(config, "train", target)) as (program, _):
        compiled = program.compile(compiler_options={"xla_gpu_enable_triton_gemm": False})
    memory = compiled.memory_analysis()
    print(f"temporaries {memory.temp_size_in_bytes / 1e9:.2f} GB")
    if given.keep:
        given.keep.write_text(compiled.as_text(), "utf-8")
    show(compiled.as_text())


def show(hlo: str) -> None:
    """Print kernels by kind, and the bytes of their results."""
    kernels: Counter[str] = Counter()
    written = 0.0
    for times, instruction in instructions(hlo):
        if instruction.opcode not in _NO_KERNELS:
            kernels[instruction.opcode] += times
            if "update_slice" not in instruction.name and "update-slice" not in instruction.name:
                written += times * shape_bytes(instruction.shape)
    kinds = ", ".join(f"{count:.0f} {kind}" for kind, count in kernels.most_common())
    print(f"{kernels.total():.0f} kernels, which write {written / 1e9:.1f} GB: {kinds}")


if __name__ == "__main__":
    main()
