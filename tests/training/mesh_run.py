"""Four training steps on three meshes of 8 simulated devices; test_sharding.py runs this in its own process.

Prints one JSON line: per mesh the losses, the largest parameter difference to one device, the sharding
constraints in the lowered step, and the bytes of state on the first device.
"""

import json
from dataclasses import replace

import jax
import numpy as np

from videomae_jax.config import OptimConfig, load_config
from videomae_jax.training.pretraining import Pretraining
from videomae_jax.training.sharding import batch_sharding, make_mesh
from videomae_jax.training.tasks import create_state, make_train_step

jax.config.update("jax_num_cpu_devices", 8)
tiny = load_config("tiny")
model = replace(tiny.model, hidden_size=256, intermediate_size=512, decoder_num_hidden_layers=3)
config = replace(tiny, model=model, batch_size=16, optim=OptimConfig(base_lr=1e-3, accumulation_steps=2))
batches = np.random.default_rng(0).integers(0, 256, (4, 16, 8, 32, 32, 3), np.uint8)
results = {}
for name, devices, fsdp in (("one", jax.devices()[:1], 1), ("data", None, 1), ("fsdp", None, 4)):
    mesh = make_mesh(fsdp, devices)
    task = Pretraining(config)
    state = create_state(task, mesh, jax.random.key(0))
    on_first = sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(state))
    step = make_train_step(task, mesh, lambda step: 5e-4)
    arrays = {"video": jax.device_put(batches[0], batch_sharding(mesh))}
    with jax.set_mesh(mesh):
        lowered = step.jitted.lower(state, arrays, jax.random.key(1)).as_text()
    losses = []
    for batch in batches:
        arrays = {"video": jax.device_put(batch, batch_sharding(mesh))}
        state, metrics = step(state, arrays, jax.random.key(1))
        losses.append(float(metrics["loss"]))
    params = jax.device_get(state.params)
    first = results.setdefault("params", params)
    results[name] = {
        "losses": losses,
        "difference": max(
            float(np.abs(a - b).max()) for a, b in zip(*map(jax.tree.leaves, (params, first)), strict=True)
        ),
        "constraints": lowered.count("sharding_constraint"),
        "state_bytes": on_first,
    }
del results["params"]
print(json.dumps(results))
