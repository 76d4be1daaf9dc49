"""The encoder: tubelet embedding, positions and the blocks, on whichever tokens it is given."""

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from videomae_jax.config import VideoMAEConfig
from videomae_jax.models.layers import Block, apply_stack, compute_dtype, init_stack
from videomae_jax.models.patches import check_video, patchify
from videomae_jax.models.position import sinusoid_table

torch_linear_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
"""PyTorch's default for linear and convolution kernels: uniform within 1/sqrt(fan_in)."""


class PatchEmbed(nn.Module):
    """One matrix from a tubelet's values to a token: the original's Conv3d, whose stride is its kernel."""

    width: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, tubelets: Float[Array, "b v p"]) -> Float[Array, "b v d"]:
        bound = tubelets.shape[-1] ** -0.5

        def bias_init(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
            return jax.random.uniform(key, shape, dtype, -bound, bound)

        return nn.Dense(
            self.width, dtype=self.dtype, kernel_init=torch_linear_init, bias_init=bias_init, name="proj"
        )(tubelets)


class Encoder(nn.Module):
    """Embeds tubelets, adds their positions, and applies the blocks and, with `norm`, a last LayerNorm."""

    config: VideoMAEConfig
    norm: bool

    @nn.compact
    def __call__(
        self, tubelets: Float[Array, "b v p"], ids: Int[Array | np.ndarray, "b v"]
    ) -> Float[Array, "b v d"]:
        """Encode normalised tubelets that stand at the places `ids` of the token grid."""
        config, dtype = self.config, compute_dtype(self.config)
        width = config.hidden_size
        positions = jnp.asarray(sinusoid_table(config.num_tokens, width), dtype)
        x = PatchEmbed(width, dtype, name="patch_embed")(tubelets) + positions[ids]
        block = Block(
            config.num_attention_heads,
            config.intermediate_size,
            config.layer_norm_eps,
            config.qv_bias,
            dtype,
            parent=None,
        )
        stack = self.param("blocks", init_stack, block, config.num_hidden_layers, width)
        x = apply_stack(block, stack, x, config.remat)
        if self.norm:
            x = nn.LayerNorm(epsilon=config.layer_norm_eps, dtype=dtype, name="norm")(x)
        return x


@flax.struct.dataclass
class VideoMAEModelOutput:
    """`last_hidden_state` (b, n, d)."""

    last_hidden_state: jax.Array


class VideoMAEModel(nn.Module):
    """The bare encoder over all tokens of a clip. There is no CLS token, whatever the model cards say."""

    config: VideoMAEConfig

    @nn.compact
    def __call__(self, pixel_values: Float[Array | np.ndarray, "..."]) -> VideoMAEModelOutput:
        """Encode normalised clips; like the original, ends in a norm unless tokens are to be mean-pooled."""
        check_video(pixel_values, self.config)
        tubelets = jnp.asarray(patchify(pixel_values, self.config))
        ids = np.broadcast_to(np.arange(self.config.num_tokens), tubelets.shape[:2])
        encoder = Encoder(self.config, norm=not self.config.use_mean_pooling, name="encoder")
        return VideoMAEModelOutput(last_hidden_state=encoder(tubelets, ids))
