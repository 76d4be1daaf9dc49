"""How long the schedules of splash attention's kernels are, as the compiler writes them for a TPU.

    python benchmarks/tpu_kernel.py v5e:2x2 1568 64

1568 are the tokens, 64 the width of a head. The estimate of `tpu_cycles.py` leaves kernels out; this counts
what they issue for one head of one clip, one instruction in a cycle at best. Waiting for memory is not among
that, so it ranks block sizes and layouts, and it is no time. Needs no TPU, but the extra tpu.
"""

import argparse
import os
import re
import tempfile
from pathlib import Path
from typing import cast

import jax
import jax.numpy as jnp

from videomae_jax.models.attention.splash import block_sizes, filled_length, splash_attention
from videomae_jax.plan.compile import ENVIRONMENT

_COUNT = re.compile(r"total scheduled bundles:\s+(\d+)")


def compile_kernels(topology: str, tokens: int, width: int, dtype: str, dump: Path) -> None:
    """Compile attention and its gradient for one chip; the compiler writes its schedules to the folder."""
    os.environ.update(ENVIRONMENT | {"LIBTPU_INIT_ARGS": f"--xla_jf_dump_to={dump} --xla_jf_dump_llo_text"})
    from jax.experimental import topologies
    from jax.sharding import SingleDeviceSharding

    chip = topologies.get_topology_desc(topology, platform="tpu").devices[0]
    filled = filled_length(tokens, jnp.dtype(dtype))
    array = jax.ShapeDtypeStruct((2, filled, 2, width), dtype, sharding=SingleDeviceSharding(chip))

    def both(q: jax.Array, k: jax.Array, v: jax.Array, gradient: jax.Array) -> object:
        mixed, pull_back = jax.vjp(lambda q, k, v: splash_attention(q, k, v, tokens), q, k, v)
        return mixed, pull_back(gradient)

    jax.jit(both).lower(array, array, array, array).compile()


def instructions(dump: Path, kernel: str) -> int:
    """The scheduled instructions of one step of a kernel's grid."""
    (schedule,) = dump.glob(f"*splash_mha_{kernel}*schedule-analysis_final_bundles.txt")
    found = _COUNT.search(schedule.read_text("utf-8"))
    assert found, f"{schedule} counts no instructions"
    return int(found[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("topology", help="such as v5e:2x2")
    parser.add_argument("tokens", type=int)
    parser.add_argument("width", type=int, help="of a head")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    given = parser.parse_args()
    filled = filled_length(given.tokens, jnp.dtype(given.dtype))
    sizes = block_sizes(filled, filled, jnp.dtype(given.dtype))
    with tempfile.TemporaryDirectory() as folder:
        compile_kernels(given.topology, given.tokens, given.width, given.dtype, Path(folder))
        for said, kernel, (queries, keys) in (
            ("forward", "fwd", (sizes.block_q, sizes.block_kv)),
            ("backward", "dkv", (sizes.block_q_dkv, sizes.block_kv_dkv)),
        ):
            steps = (filled // cast(int, queries)) * (filled // cast(int, keys))
            each = instructions(Path(folder), kernel)
            print(f"{said}: {steps * each} instructions, {each} for {queries} queries and {keys} keys")


if __name__ == "__main__":
    main()
