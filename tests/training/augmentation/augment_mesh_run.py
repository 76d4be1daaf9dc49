"""What clips go through on four simulated devices; test_augment.py runs this in its own process.

Prints a JSON line for augmentation and one for clips made of planes: how far one device is from that, how
often the compiled program collects what lies elsewhere, and the clips that end on each device.
"""

import json
from collections.abc import Callable

import jax
import numpy as np

from videomae_jax.config import AugmentConfig
from videomae_jax.hardware import Hardware
from videomae_jax.models.compiled_for import compiling_for
from videomae_jax.training.augmentation.augment import augment
from videomae_jax.training.augmentation.planes import crops_of_planes
from videomae_jax.training.sharding import batch_sharding, make_mesh, replicated

jax.config.update("jax_num_cpu_devices", 4)
rng = np.random.default_rng(0)
mesh = make_mesh(fsdp=2)


def compare(function: Callable[..., jax.Array], key: jax.Array, *arrays: np.ndarray) -> None:
    alone = jax.jit(function)(key, *arrays)
    batch = batch_sharding(mesh)
    with jax.set_mesh(mesh):
        shardings = (replicated(mesh), *(batch for _ in arrays))
        step = jax.jit(function, in_shardings=shardings).lower(key, *arrays).compile()
        with compiling_for(Hardware("tpu", "TPU v5 lite")):  # What only a TPU does can be split too.
            jax.jit(lambda *given: function(*given), in_shardings=shardings).lower(key, *arrays)
    shared = step(key, *jax.device_put(arrays, batch))
    found = {
        "difference": float(np.abs(np.asarray(alone, float) - np.asarray(shared, float)).max()),
        "collected": step.as_text().count("all-gather"),
        "clips_per_device": len(shared.addressable_shards[0].data),
    }
    print(json.dumps(found))


def augmented(key: jax.Array, video: jax.Array, box: jax.Array) -> jax.Array:
    return augment(key, video, box, AugmentConfig(), (16, 24))


def cropped(key: jax.Array, *arrays: jax.Array) -> jax.Array:
    return crops_of_planes(*arrays, (16, 24))


video = rng.integers(0, 256, (8, 2, 24, 30, 3), np.uint8)
compare(augmented, jax.random.key(1), video, np.tile(np.array([[24, 30, 0]], np.int32), (8, 1)))
planes = rng.integers(0, 256, (4, 2, 36, 30), np.uint8)
colour = np.tile(np.array([16, 1.2, 1.6, -0.8, -0.4, 2.0], np.float32), (4, 2, 1))
box = np.tile(np.array([[0, 2, 20, 18], [0, 1, 10, 9]], np.float32), (8, 1, 1))
compare(cropped, jax.random.key(1), planes, colour, box, np.zeros((8, 2), np.int32))
