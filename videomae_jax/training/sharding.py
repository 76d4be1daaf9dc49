"""One mesh, and one rule that places parameters, optimizer state and batches on it."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.experimental.mesh_utils import create_device_mesh
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from videomae_jax.models.axes import axis_rules, on_one_device
from videomae_jax.training.compilation import compiler_options

AXES = ("data", "fsdp")
RULES = (("batch", AXES), ("tokens", None), ("embed", None))
"""Mesh axes of the activations' named axes, for `models.axes.axis_rules`."""


def make_mesh(fsdp: int = 1, devices: list[jax.Device] | None = None) -> Mesh:
    """A (data, fsdp) mesh over all devices, or those given, in which those of one host follow each other.

    So the part of a batch that a host reads is the one that its devices hold, for any number of hosts.
    """
    devices = jax.devices() if devices is None else devices
    if len(devices) % fsdp:
        raise ValueError(
            f"mesh.fsdp={fsdp} does not divide the {len(devices)} devices found; choose a divisor"
        )
    types = (AxisType.Auto,) * len(AXES)
    # An axis of chips is split where nothing else will do, as for 8 of a 16 x 16 slice of v6e.
    found = create_device_mesh((len(devices) // fsdp, fsdp), devices, allow_split_physical_axes=True)
    return Mesh(hosts_in_order(found), AXES, axis_types=types)


def hosts_in_order(devices: np.ndarray) -> np.ndarray:
    """The devices of a mesh with those of each host next to each other, in the order of the hosts.

    On some TPU slices JAX lays the axes along the links between chips instead, across the hosts.
    """
    hosts = [device.process_index for device in devices.flat]
    if hosts == sorted(hosts):
        return devices
    in_order = sorted(devices.flat, key=lambda device: (device.process_index, device.id))
    return np.array(in_order).reshape(devices.shape)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Batches are split along their first axis over all devices."""
    return NamedSharding(mesh, PartitionSpec(AXES))


def map_clips(
    function: Callable[[Any], jax.Array],
    arrays: tuple[jax.Array, ...],
    at_once: int | None = None,
) -> jax.Array:
    """`function` of each clip of arrays with a leading axis of clips, one or so many after the other.

    Such a loop over clips on several devices would run whole on each of them: hence each loops over its own.
    """
    each = partial(jax.lax.map, function, batch_size=at_once)
    mesh, clips = jax.sharding.get_abstract_mesh(), len(arrays[0])
    if on_one_device(mesh) or mesh.size == 1 or clips % mesh.size:
        return each(arrays)
    spec = PartitionSpec(AXES)
    return jax.shard_map(each, in_specs=((spec,) * len(arrays),), out_specs=spec)(arrays)


def mean_over_devices(
    function: Callable[[Any, Any, jax.Array], Any],
) -> Callable[[Any, Any, jax.Array], Any]:
    """`function` (parameters, clips, key) of each device's own clips, with a key of its own; the mean of all.

    So devices tell each other nothing before the mean. Where parameters are split over devices, `function` is
    of all clips at once, as XLA has to gather parameters for it anyway.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if on_one_device(mesh) or mesh.size == 1 or mesh.shape["fsdp"] > 1:
        return function

    def here(params: Any, clips: Any, key: jax.Array) -> Any:
        with axis_rules(()):
            found = function(params, clips, jax.random.fold_in(key, jax.lax.axis_index(AXES)))
        return jax.lax.pmean(found, AXES)

    whole, split = PartitionSpec(), PartitionSpec(AXES)
    return jax.shard_map(here, in_specs=(whole, split, whole), out_specs=whole, check_vma=False)


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def _leaf_spec(path: tuple[Any, ...], shape: tuple[int, ...], parts: int) -> PartitionSpec:
    """Split the longest axis that `parts` divides, never the axis of stacked layers."""
    first = 1 if any(getattr(key, "key", None) == "blocks" for key in path) else 0
    axes = [axis for axis in range(first, len(shape)) if shape[axis] % parts == 0]
    if parts == 1 or not axes or np.prod(shape) < 2**16:
        return PartitionSpec()
    longest = max(axes, key=lambda axis: shape[axis])
    return PartitionSpec(*(["fsdp" if axis == longest else None for axis in range(len(shape))]))


def state_shardings(mesh: Mesh | AbstractMesh, state: Any) -> Any:
    """Shardings of a tree of arrays or shapes; parameters and their moments fall on the same places."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: NamedSharding(mesh, _leaf_spec(path, leaf.shape, mesh.shape["fsdp"])), state
    )


def placed(tree: Any, shardings: Any) -> Any:
    """Shapes that know where they lie; `shardings` is one for all leaves or one for each."""
    if isinstance(shardings, jax.sharding.Sharding):
        shardings = jax.tree.map(lambda _: shardings, tree)
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        tree,
        shardings,
    )


class OnMesh:
    """A function jitted, and called with its mesh set: else the modules' axis names silently do nothing.

    Its arguments must be on the devices: one that has to be moved there, for which each call would wait, is
    JAX's error "Disallowed ... transfer".
    """

    def __init__(
        self, function: Any, mesh: Mesh, in_shardings: Any, out_shardings: Any, **options: Any
    ) -> None:
        self.mesh = mesh
        self.jitted = jax.jit(
            function,
            in_shardings=in_shardings,
            out_shardings=out_shardings,
            compiler_options=compiler_options(mesh.devices.flat[0].platform),
            **options,
        )

    def __call__(self, *args: Any) -> Any:
        with jax.set_mesh(self.mesh), jax.transfer_guard("disallow"):
            return self.jitted(*args)
