"""The encoder: tubelet embedding, positions and the blocks, on whichever tokens it is given."""

from pathlib import Path
from typing import Any, ClassVar

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from videomae_jax.checkpoints.architecture import Kind
from videomae_jax.model_config import VideoMAEConfig
from videomae_jax.models.blocks import Block, Initializer, Params, compute_dtype
from videomae_jax.models.patches import check_bound, check_video, patchify
from videomae_jax.models.position import position_table
from videomae_jax.models.pretrained import Pretrained, Tensors, fit
from videomae_jax.models.stack import apply_stack, drop_path_scales, init_stack

torch_linear_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
"""PyTorch's default for linear and convolution kernels: uniform within 1/sqrt(fan_in)."""

BEHIND_THE_ENCODER = ("encoder.norm.", "fc_norm.", "head.", "mask_token", "encoder_to_decoder.", "decoder.")
"""Tensors that a bare encoder has no place for; it keeps its norm unless tokens are to be mean-pooled."""


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


HiddenStates = tuple[Float[Array, "b n d"], ...]
"""The embedded tokens, then the tokens after each block."""


class Encoder(nn.Module):
    """Embeds tubelets, adds their positions, and applies the blocks and, with `norm`, a last LayerNorm."""

    config: VideoMAEConfig
    norm: bool
    kernel_init: Initializer = nn.initializers.xavier_uniform()

    @nn.compact
    def __call__(
        self,
        tubelets: Float[Array, "b n p"],
        ids: Int[Array, "b n"] | None,
        output_hidden_states: bool = False,
        deterministic: bool = True,
    ) -> tuple[Float[Array, "b n d"], HiddenStates | None]:
        """Encode normalised tubelets that stand at the places `ids` of the token grid; None for all in order.

        Unless `deterministic`, clips skip branches at `config.drop_path`, drawn from the rng "dropout".
        """
        config, dtype = self.config, compute_dtype(self.config)
        width = config.hidden_size
        positions = jnp.asarray(position_table(config, width), dtype)
        x = PatchEmbed(width, dtype, name="patch_embed")(tubelets)
        x = x + (positions if ids is None else positions[ids])
        heads, hidden = config.num_attention_heads, config.intermediate_size
        block = Block(config, heads, hidden, self.kernel_init, parent=None)
        stack = self.param("blocks", init_stack, block, config.num_hidden_layers, width)
        hidden_states = None
        if output_hidden_states:
            hidden_states = (x, *apply_stack(block, stack, x, config.remat, keep=True)[1])
            x = hidden_states[-1]
        else:
            scales = None
            if config.drop_path and not deterministic:
                layers, rng = config.num_hidden_layers, self.make_rng("dropout")
                scales = drop_path_scales(rng, config.drop_path, layers, x.shape[0])
            x, _ = apply_stack(block, stack, x, config.remat, scales)
        if self.norm:
            x = nn.LayerNorm(epsilon=config.layer_norm_eps, dtype=dtype, name="norm")(x)
        return x, hidden_states


def all_tubelets(
    pixel_values: Float[Array | np.ndarray, "..."], config: VideoMAEConfig
) -> Float[Array, "b n p"]:
    """Every tubelet of clips, in order; raises ValueError where a shape does not fit."""
    check_video(pixel_values, config)
    return jnp.asarray(patchify(pixel_values, config))


@flax.struct.dataclass
class VideoMAEModelOutput:
    """`last_hidden_state` (b, n, d), and `hidden_states` on request: the embedding's and every layer's."""

    last_hidden_state: jax.Array
    hidden_states: tuple[jax.Array, ...] | None = None


class VideoMAEModel(Pretrained):
    """The bare encoder over all tokens of a clip. There is no CLS token, whatever the model cards say."""

    kind: ClassVar[Kind] = "encoder"

    def setup(self) -> None:
        self.encoder = Encoder(self.config, norm=not self.config.use_mean_pooling)

    def __call__(
        self, pixel_values: Float[Array | np.ndarray, "..."], output_hidden_states: bool = False
    ) -> VideoMAEModelOutput:
        """Encode normalised clips; like the original, ends in a norm unless tokens are to be mean-pooled."""
        check_bound(self, "pixel_values")
        tubelets = all_tubelets(pixel_values, self.config)
        last, hidden_states = self.encoder(tubelets, None, output_hidden_states)
        return VideoMAEModelOutput(last_hidden_state=last, hidden_states=hidden_states)

    @nn.nowrap
    def take(self, source: str | Path, tensors: Tensors) -> Params:
        return fit(source, self, tensors, drop=BEHIND_THE_ENCODER)
