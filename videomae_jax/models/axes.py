"""Names of the activations' axes, so that a mesh can be laid under modules that know none."""

import flax.linen as nn
from jax.sharding import AbstractMesh
from jaxtyping import Array, Float

axis_rules = nn.logical_axis_rules
"""Context that maps axis names to mesh axes; enter it inside the jitted function, under `jax.set_mesh`."""


def constrain(tokens: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
    """Pin a block's activations to the mesh axes of the batch; does nothing outside `axis_rules`."""
    return nn.with_logical_constraint(tokens, ("batch", "tokens", "embed"))


def on_one_device(mesh: AbstractMesh) -> bool:
    """Whether what is traced is for one device: no mesh is set, or a `shard_map` over all of it is traced."""
    return mesh.empty or mesh.are_all_axes_manual
