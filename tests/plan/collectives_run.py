"""Programs of known collectives on 8 simulated devices; test_collectives.py runs this in its own process.

Prints one JSON line: per program the collectives read from what XLA compiled, as kind: [count, bytes].
"""

import json
from functools import partial

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from videomae_jax.plan.hlo import read_collectives
from videomae_jax.training.sharding import make_mesh

jax.config.update("jax_num_cpu_devices", 8)
MESH = make_mesh(4)
ROWS = jax.ShapeDtypeStruct((64, 16), jnp.float32)  # 8 x 16 on each device.


def gathered(x):
    return jax.lax.all_gather(x, "fsdp", tiled=True)  # 32 x 16


def scattered(x):
    return jax.lax.psum_scatter(gathered(x), "fsdp", tiled=True)


def repeated(body, times):
    return lambda x: jax.lax.scan(lambda carry, _: (jnp.sin(body(carry)), None), x, length=times)[0]


PROGRAMS = {
    "none": jnp.sin,
    "all-reduce": lambda x: jax.lax.psum(x, ("data", "fsdp")),
    "scan of 5": repeated(lambda x: jax.lax.psum(x, "fsdp"), 5),
    "scan of 3 in a scan of 2": repeated(repeated(lambda x: jax.lax.psum(x, "fsdp"), 3), 2),
    "gather and scatter": scattered,
    "shift": lambda x: jax.lax.ppermute(x, "fsdp", [(n, (n + 1) % 4) for n in range(4)]),
}


def read(function):
    spec = PartitionSpec(("data", "fsdp"))
    split = partial(jax.shard_map, mesh=MESH, in_specs=spec, out_specs=spec, check_vma=False)
    text = jax.jit(split(function)).lower(ROWS).compile().as_text()
    return {each.kind: [each.count, each.bytes] for each in read_collectives(text)}


print(json.dumps({name: read(function) for name, function in PROGRAMS.items()}))
