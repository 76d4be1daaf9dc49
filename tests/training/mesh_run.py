"""Three training steps on meshes of 8 simulated devices; test_sharding.py runs this in processes of its own.

`python mesh_run.py` prints one JSON line: per mesh the losses, the largest parameter difference to one
device, and the bytes of parameters and of optimizer state on the first device, of all arrays and of the large
ones; then the all-gathers and the sharding constraints of a step at full size, and what mixing sends.
`python mesh_run.py PORT INDEX` does so as one of two hosts with 4 devices each.
"""

import json
import re
import sys
from dataclasses import replace
from functools import partial

import jax
import numpy as np

from videomae_jax.config import AugmentConfig, OptimConfig, load_config
from videomae_jax.plan.hlo import read_collectives
from videomae_jax.training.augmentation.mixing import mix
from videomae_jax.training.objectives.pretraining import Pretraining
from videomae_jax.training.sharding import batch_sharding, make_mesh, mean_over_devices, replicated
from videomae_jax.training.state import create_state, state_shapes
from videomae_jax.training.step import make_train_step

jax.config.update("jax_disable_most_optimizations", True)  # It halves the time, which is compiling.
hosts = 1
if sys.argv[1:]:
    hosts = 2
    jax.config.update("jax_num_cpu_devices", 4)
    jax.distributed.initialize(f"localhost:{sys.argv[1]}", num_processes=2, process_id=int(sys.argv[2]))
else:
    jax.config.update("jax_num_cpu_devices", 8)
tiny = load_config("tiny")
model = replace(tiny.model, hidden_size=256, intermediate_size=512, decoder_num_hidden_layers=3)
config = replace(tiny, model=model, batch_size=16, optim=OptimConfig(base_lr=1e-3, accumulation_steps=2))


def bytes_on_first(tree) -> list[int]:
    """Bytes of a tree on the first device of this host: of all arrays, and of the large ones."""
    leaves = jax.tree.leaves(tree)
    large = [leaf for leaf in leaves if leaf.size >= 2**16]
    return [sum(leaf.addressable_shards[0].data.nbytes for leaf in some) for some in (leaves, large)]


def sorted_sides(shape) -> tuple[int, ...]:
    """A shape however it is laid out, with or without axes of 1."""
    return tuple(sorted(side for side in shape if side > 1))


def gathers_at_full_size(mesh) -> dict:
    """All-gathers in the compiled step of 160 visible tokens, and those that give no parameter's shape.

    A parameter's shape is also that of one layer of a stack, and of a matrix with its rows parted by heads.
    With the sharding constraints before compiling.
    """
    full = replace(config, mask_ratio=0.9, optim=OptimConfig())
    full = replace(full, model=replace(model, image_size=224, patch_size=16, num_frames=16))
    task = Pretraining(full)
    shape = jax.ShapeDtypeStruct((16, 16, 224, 224, 3), np.uint8, sharding=batch_sharding(mesh))
    state = state_shapes(task)
    with jax.set_mesh(mesh):
        step = make_train_step(task, mesh, lambda step: 5e-4).jitted
        lowered = step.lower(state, {"video": shape}, jax.random.key(1))
    constraints, text = lowered.as_text().count("sharding_constraint"), lowered.compile().as_text()
    gathers = re.findall(r"= ?\(?\w+\[([\d,]*)\]\S* all-gather(?:-start)?\(", text)
    shapes = [leaf.shape for leaf in jax.tree.leaves(state.params)]
    shapes += [shape[1:] for shape in shapes]
    heads = {full.model.num_attention_heads, full.model.decoder_num_attention_heads}
    matrices = [shape for shape in shapes if len(shape) == 2]
    shapes += [(each, rows // each, columns) for rows, columns in matrices for each in heads]
    of_params = {sorted_sides(shape) for shape in shapes}
    others = [each for each in gathers if sorted_sides(map(int, each.split(","))) not in of_params]
    return {"gathers": len(gathers), "others": others, "constraints": constraints}


def sent_by_accumulation(mesh) -> int:
    """Bytes that a device sends in a step of two parts."""
    task = Pretraining(config)
    state = state_shapes(task)
    clips = jax.ShapeDtypeStruct(batches.shape[1:], np.uint8, sharding=batch_sharding(mesh))
    with jax.set_mesh(mesh):
        step = make_train_step(task, mesh, lambda step: 5e-4).jitted
        compiled = step.lower(state, {"video": clips}, jax.random.key(1)).compile()
    return sum(each.bytes for each in read_collectives(compiled.as_text()))


def draws_of_devices(mesh) -> list[float]:
    """What devices draw apart on average, what they would with keys of their own, and with one key."""
    key, each = jax.random.key(3), range(mesh.size)
    clips = jax.device_put(np.zeros(mesh.size), batch_sharding(mesh))
    with jax.set_mesh(mesh):
        mean = mean_over_devices(lambda params, clips, key: jax.random.uniform(key))
        found = jax.jit(lambda clips: mean(None, clips, key))(clips)
    own = np.mean([jax.random.uniform(jax.random.fold_in(key, index)) for index in each])
    return [float(found), float(own), float(jax.random.uniform(key))]


def sent_by_mixing(mesh, group: int) -> int:
    """Bytes that devices send each other where 32 clips are mixed in groups of so many."""
    clips = jax.ShapeDtypeStruct((32, 4, 16, 16, 3), np.float32, sharding=batch_sharding(mesh))
    targets = jax.ShapeDtypeStruct((32, 5), np.float32, sharding=batch_sharding(mesh))
    mixing = jax.jit(partial(mix, config=AugmentConfig(mix_group=group)), out_shardings=batch_sharding(mesh))
    compiled = mixing.lower(jax.random.key(0), clips, targets).compile()
    return sum(each.bytes for each in read_collectives(compiled.as_text()))


batches = np.random.default_rng(0).integers(0, 256, (3, 16, 8, 32, 32, 3), np.uint8)
results = {}
first = None
meshes = [("one", jax.local_devices()[:1], 1), ("data", None, 1), ("fsdp", None, 4)]
for name, devices, fsdp in meshes if hosts == 1 else meshes[::2]:
    mesh = make_mesh(fsdp, devices)
    task = Pretraining(config)
    state = create_state(task, mesh, jax.random.key(0))
    sizes = {"params": bytes_on_first(state.params), "optimizer": bytes_on_first(state.opt_state)}
    step = make_train_step(task, mesh, lambda step: 5e-4)
    key = jax.jit(jax.random.key, static_argnums=0, out_shardings=replicated(mesh))(1)
    whole = name == "one" or hosts == 1
    part = slice(None) if whole else slice(8 * jax.process_index(), 8 * jax.process_index() + 8)
    losses = []
    for batch in batches:
        arrays = {"video": jax.make_array_from_process_local_data(batch_sharding(mesh), batch[part])}
        state, metrics = step(state, arrays, key)
        losses.append(float(metrics["loss"]))
    params = jax.device_get(jax.jit(lambda tree: tree, out_shardings=replicated(mesh))(state.params))
    first = params if first is None else first
    results[name] = {
        "losses": losses,
        "difference": max(
            float(np.abs(a - b).max()) for a, b in zip(*map(jax.tree.leaves, (params, first)), strict=True)
        ),
        "bytes": sizes,
    }
if hosts == 1:
    results["full"] = gathers_at_full_size(make_mesh(4))
    results["full"]["accumulation"] = sent_by_accumulation(make_mesh())
    results["full"]["draws"] = draws_of_devices(make_mesh())
    results["full"]["mixing"] = [sent_by_mixing(make_mesh(), group) for group in (4, 32)]
print(json.dumps(results))
