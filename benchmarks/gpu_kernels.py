"""How many kernels a training step that is compiled for a GPU starts, and what they write.

    python benchmarks/gpu_kernels.py k400_base_800e h100:1 32
    python benchmarks/gpu_kernels.py --read step.hlo

32 are the clips of a GPU. Needs no GPU, but the extra gpu-plan (docs/plan.md). Nothing is timed: the counts
compare two states of the code. A loop's kernels count as often as it runs, and of a choice, such as that of
an augmentation, each branch counts as if all were equally likely. What is written into a part of an array, as
what a layer keeps for its gradient, is not among the bytes.
"""

from collections import Counter

from compiled_step import show_step

from videomae_jax.plan.hlo import instructions, shape_bytes

_NO_KERNELS = ["parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id"]


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
    show_step(__doc__ or "", show)
