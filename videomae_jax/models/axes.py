"""Names of the activations' axes, so that a mesh can be laid under modules that know none, and what each of
its devices computes by itself."""

from collections.abc import Callable

import flax.linen as nn
import jax
from jax.sharding import AbstractMesh, PartitionSpec
from jaxtyping import Array, Float

axis_rules = nn.logical_axis_rules
"""Context that maps axis names to mesh axes; enter it inside the jitted function, under `jax.set_mesh`."""


def constrain(tokens: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
    """Pin a block's activations to the mesh axes of the batch; does nothing outside `axis_rules`."""
    return nn.with_logical_constraint(tokens, ("batch", "tokens", "embed"))


def on_one_device(mesh: AbstractMesh) -> bool:
    """Whether what is traced is for one device: no mesh is set, or a `shard_map` over all of it is traced."""
    return mesh.empty or mesh.are_all_axes_manual


def by_device(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """`function` of arrays by clips, of which each device of a mesh computes its own.

    For what XLA cannot split along the clips, a kernel or a loop over them: it would gather the whole batch
    on every device, or refuse.
    """
    if on_one_device(jax.sharding.get_abstract_mesh()):
        return function
    clips = nn.logical_to_mesh_axes(("batch",)) or PartitionSpec()
    return jax.shard_map(function, in_specs=clips, out_specs=clips, check_vma=False)
