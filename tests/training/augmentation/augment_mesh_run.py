"""Augmentation on four simulated devices; test_augment.py runs this in its own process.

Prints one JSON line: the largest difference to one device, how many times the compiled program collects what
lies on other devices, and the clips that end on each device.
"""

import json

import jax
import numpy as np

from videomae_jax.config import AugmentConfig
from videomae_jax.training.augmentation.augment import augment
from videomae_jax.training.sharding import batch_sharding, make_mesh, replicated

jax.config.update("jax_num_cpu_devices", 4)
video = np.random.default_rng(0).integers(0, 256, (8, 2, 24, 30, 3), np.uint8)
box = np.tile(np.array([[24, 30, 0]], np.int32), (8, 1))


def each(key: jax.Array, video: jax.Array, box: jax.Array) -> jax.Array:
    return augment(key, video, box, AugmentConfig(), (16, 24))


alone = jax.jit(each)(jax.random.key(1), video, box)
mesh = make_mesh(fsdp=2)
batch = batch_sharding(mesh)
with jax.set_mesh(mesh):
    step = (
        jax.jit(each, in_shardings=(replicated(mesh), batch, batch))
        .lower(jax.random.key(1), video, box)
        .compile()
    )
    shared = step(jax.random.key(1), *jax.device_put((video, box), batch))
print(
    json.dumps(
        {
            "difference": float(np.abs(np.asarray(alone) - np.asarray(shared)).max()),
            "collected": step.as_text().count("all-gather"),
            "clips_per_device": len(shared.addressable_shards[0].data),
        }
    )
)
