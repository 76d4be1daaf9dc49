"""Where a training step that is compiled for a TPU spends the cycles that its compiler estimates.

    python benchmarks/tpu_cycles.py k400_base_800e v5e:2x2 32
    python benchmarks/tpu_cycles.py k400_base_finetune v6e:2x2 16 --pixels rgb --keep step.hlo
    python benchmarks/tpu_cycles.py --read step.hlo

32 are the clips of a chip. Needs no TPU, but the extra tpu. The estimate leaves out Pallas kernels, gathers
and scatters, and knows nothing of what overlaps: it ranks what stands in one step and compares two states of
the code, and it is no time. Of a choice, such as that of an augmentation, each branch counts as if all were
equally likely.
"""

import re
from collections import Counter

from compiled_step import show_step

from videomae_jax.plan.hlo import instructions

_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_NAME = re.compile(r'op_name="([^"]*)"')
_PLAIN_ATTENTION = ("bmke", "bkmn", "attn/sub", "attn/exp", "attn/reduce_", "attn/max", "attn/div")
_RESIDUALS = ("dynamic_index_in_dim", "dynamic_update_index", "dynamic_slice", "dynamic_update_slice")


def share_of(name: str) -> str:
    """The part of a step that an instruction belongs to, by the names of the functions that made it."""
    stack = next((each for each in ("encoder", "decoder", "teacher") if each in name), None)
    if "train_step)/cond/branch" in name:
        return "optimizer"
    if stack is None:
        return "pixels, augmentation, targets and loss"
    if "splash" in name or "shard_map" in name:
        return "around the attention kernel"
    if "attn/proj" not in name and any(part in name for part in _PLAIN_ATTENTION):
        return "plain attention"
    if name.endswith("dot_general"):
        return f"products with weights, {stack}"
    if any(part in name for part in _RESIDUALS):
        return "into and out of the loop over layers"
    return "norms and other element-wise work and moves"


def show(hlo: str) -> None:
    """Print the estimate, its shares, and how many instructions of which kind it leaves out."""
    shares: Counter[str] = Counter()
    left_out: Counter[str] = Counter()
    for times, instruction in instructions(hlo):
        if cycles := _CYCLES.search(instruction.rest):
            name = _NAME.search(instruction.rest)
            shares[share_of(name[1] if name else "")] += times * int(cycles[1])
        elif instruction.opcode in ("custom-call", "fusion", "gather", "scatter", "sort"):
            left_out[instruction.opcode] += times
    total = shares.total()
    print(f"{total / 1e6:.1f} million estimated cycles; without an estimate: {dict(left_out)}")
    for share, cycles in shares.most_common():
        print(f"{cycles / total:6.1%} {cycles / 1e6:7.1f}  {share}")


if __name__ == "__main__":
    show_step(__doc__ or "", show)
