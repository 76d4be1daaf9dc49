"""The masked autoencoder: encoder on visible tubelets, decoder on all places, loss on the masked ones."""

from functools import partial
from pathlib import Path
from typing import ClassVar, cast

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped, UInt8

from videomae_jax.checkpoints.architecture import Kind
from videomae_jax.errors import InputError
from videomae_jax.model_config import VideoMAEConfig
from videomae_jax.models.blocks import Block, Params, compute_dtype
from videomae_jax.models.encoder import Encoder, torch_linear_init
from videomae_jax.models.masking import DualMask, Mask, check_rows, mask_indices
from videomae_jax.models.patches import check_bound, check_video, gather, patchify
from videomae_jax.models.pixels import denormalize, normalize, tubelet_targets
from videomae_jax.models.position import position_table
from videomae_jax.models.pretrained import Pretrained, Tensors, compare_for_training, fit, load_weights
from videomae_jax.models.stack import apply_stack, apply_stack_to_last, init_stack


def mask_token_init(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Normal with standard deviation 0.02, truncated at one standard deviation, as the original draws it."""
    return 0.02 * jax.random.truncated_normal(key, -1, 1, shape)


class Decoder(nn.Module):
    """Blocks over visible and masked places; the last block, norm and head on the masked ones only.

    In a cross-attention decoder all blocks are on the masked ones, which see the visible ones alone: a place
    is predicted alike whichever others are.
    """

    config: VideoMAEConfig

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"], num_masked: int) -> Float[Array, "b m p"]:
        """Predict the values of the last `num_masked` tokens."""
        config, dtype = self.config, compute_dtype(self.config)
        heads, hidden = config.decoder_num_attention_heads, config.decoder_intermediate_size
        block = Block(config, heads, hidden, parent=None)
        stack = self.param(
            "blocks", init_stack, block, config.decoder_num_hidden_layers, config.decoder_hidden_size
        )
        if config.decoder_type == "cross":
            visible, masked = x[:, :-num_masked], x[:, -num_masked:]
            x, _ = apply_stack(block, stack, masked, config.remat, seen=visible)
        else:
            x = apply_stack_to_last(block, stack, x, config.remat, num_masked)
        x = nn.LayerNorm(epsilon=config.decoder_norm_eps, dtype=dtype, name="norm")(x)
        head = nn.Dense(
            config.values_per_tubelet, dtype=dtype, kernel_init=nn.initializers.xavier_uniform(), name="head"
        )
        return head(x)


@flax.struct.dataclass
class VideoMAEForPreTrainingOutput:
    """`loss`, a float32 scalar, and `logits` (b, m, p), the predicted values of the masked tubelets.

    `hidden_states` on request: the visible tokens (b, v, d) as embedded and after every encoder layer.
    """

    loss: jax.Array
    logits: jax.Array
    hidden_states: tuple[jax.Array, ...] | None = None


class VideoMAEForPreTraining(Pretrained):
    """VideoMAE as it is pre-trained (Tong et al., 2022)."""

    kind: ClassVar[Kind] = "pretraining"

    def setup(self) -> None:
        config, width = self.config, self.config.decoder_hidden_size
        self.encoder = Encoder(config, norm=config.encoder_norm)
        self.encoder_to_decoder = nn.Dense(
            width, use_bias=False, dtype=compute_dtype(config), kernel_init=torch_linear_init
        )
        self.mask_token = self.param("mask_token", mask_token_init, (1, 1, width))
        self.decoder = Decoder(config)

    def encode(self, tubelets: Float[Array, "b v p"], visible: Int[Array, "b v"]) -> Float[Array, "b v d"]:
        """Encode normalised visible tubelets."""
        return self.encoder(tubelets, visible)[0]

    def predict(
        self, tubelets: Float[Array, "b v p"], visible: Int[Array, "b v"], masked: Int[Array, "b m"]
    ) -> Float[Array, "b m p"]:
        """Predict the masked tubelets from the normalised visible ones and the places of both."""
        return self._decode(self.encode(tubelets, visible), visible, masked)

    def _decode(
        self, encoded: Float[Array, "b v d"], visible: Int[Array, "b v"], masked: Int[Array, "b m"]
    ) -> Float[Array, "b m p"]:
        tokens = self.encoder_to_decoder(encoded)
        table = position_table(self.config, self.config.decoder_hidden_size)
        positions = jnp.asarray(table, tokens.dtype)
        hidden = self.mask_token.astype(tokens.dtype) + positions[masked]
        return self.decoder(jnp.concatenate([tokens + positions[visible], hidden], axis=1), masked.shape[1])

    def __call__(
        self,
        pixel_values: Float[Array | np.ndarray, "..."],
        bool_masked_pos: Shaped[Array | np.ndarray, "..."] | Mask,
        num_visible: int | None = None,
        output_hidden_states: bool = False,
    ) -> VideoMAEForPreTrainingOutput:
        """Predict the masked tubelets of normalised clips, and the loss against them.

        Args:
          pixel_values: (b, T, H, W, c), with ImageNet's mean and standard deviation removed.
          bool_masked_pos: (b, n), True = masked, as many in every row; or the pair of ascending index
            arrays (visible, masked).
          num_visible: visible tokens per clip; needed when a boolean mask is traced.
          output_hidden_states: also return the tokens after the embedding and after each encoder layer.

        Raises ValueError, saying what to do, when a shape or a mask does not fit the configuration.
        """
        config = self.config
        check_bound(self, "pixel_values, mask")
        check_video(pixel_values, config)
        if isinstance(bool_masked_pos, tuple):
            visible, masked = bool_masked_pos
        else:
            visible, masked = mask_indices(bool_masked_pos, num_visible)
        check_rows(len(pixel_values), visible.shape[0])
        if (places := visible.shape[1] + masked.shape[1]) != config.num_tokens:
            raise ValueError(
                f"the mask covers {places} tokens, but a clip has {config.num_tokens} = "
                f"{' x '.join(map(str, config.grid))} (time, height, width)"
            )
        tubelets = jnp.asarray(patchify(pixel_values, config))
        encoded, hidden_states = self.encoder(gather(tubelets, visible), visible, output_hidden_states)
        logits = self._decode(encoded, visible, masked)
        targets = tubelet_targets(
            self._pixels(gather(tubelets, masked)), config.num_channels, config.norm_pix_loss
        )
        loss = _squared_error(logits, targets).mean()
        return VideoMAEForPreTrainingOutput(loss=loss, logits=logits, hidden_states=hidden_states)

    def _pixels(self, normalised: Float[Array, "b m p"]) -> Float[Array, "b m p"]:
        """Pixels in uint8 units; of other than three channels, as they are given, as in transformers."""
        config = self.config
        if config.num_channels == 3:
            return denormalize(normalised)
        if not config.norm_pix_loss:
            raise ValueError(
                f"num_channels={config.num_channels} with norm_pix_loss=False: raw pixels can only be told "
                "from RGB that was normalised as ImageNet's; use norm_pix_loss=True"
            )
        return 255 * normalised

    @nn.nowrap
    def take(self, source: str | Path, tensors: Tensors) -> Params:
        _check_decoder(source, tensors)
        return super().take(source, tensors)

    @nn.nowrap
    def start_from(self, source: str | Path) -> Params:
        """Parameters with which to start pre-training: those of a pre-training checkpoint of any kind.

        Raises InputError, listing all that does not fit.
        """
        config, tensors = load_weights(source)
        _check_decoder(source, tensors)
        compare_for_training(source, config, self.config, self.kind)
        return fit(source, self, tensors)

    @nn.nowrap
    def init_params(self, key: jax.Array) -> Params:
        """Fresh parameters, drawn as the original draws them."""
        tubelet = jnp.zeros((1, 1, self.config.values_per_tubelet))
        visible, masked = jnp.zeros((1, 1), jnp.int32), jnp.ones((1, 1), jnp.int32)
        return jax.jit(partial(self.init, method="predict"))(key, tubelet, visible, masked)["params"]


def _check_decoder(source: str | Path, tensors: Tensors) -> None:
    if not any(name.startswith("decoder.") for name in tensors):
        raise InputError(
            f"{source} has no decoder, so it is not a pre-training checkpoint and reconstructs nothing: its "
            "encoder serves features, probe and finetune --init-from, and VideoMAEModel in Python"
        )


def _squared_error(logits: Float[Array, "b m p"], targets: Float[Array, "b m p"]) -> Float[Array, "b m p"]:
    return (logits.astype(jnp.float32) - targets) ** 2


def masked_losses(
    model: VideoMAEForPreTraining,
    params: Params,
    video: UInt8[Array, "b T H W c"],
    mask: Mask | DualMask,
) -> tuple[Float[Array, " b"], Float[Array, " b"]]:
    """The loss of each clip, straight from uint8, and what predicting zero everywhere would score.

    Of a dual mask, the places that count are decoded and masked.

    Tubelets are gathered before anything is computed of their pixels, so that only the visible ones are
    normalised and embedded.
    """
    visible, decoded = mask[:2]
    counted = mask.counted if isinstance(mask, DualMask) else None
    tubelets = jnp.asarray(patchify(video, model.config))
    inputs, hidden = normalize(gather(tubelets, visible)), gather(tubelets, decoded)
    logits = cast(jax.Array, model.apply({"params": params}, inputs, visible, decoded, method="predict"))
    targets = tubelet_targets(hidden, model.config.num_channels, model.config.norm_pix_loss)
    return _mean_of_clips(_squared_error(logits, targets), counted), _mean_of_clips(targets**2, counted)


def _mean_of_clips(values: Float[Array, "b m p"], counted: Bool[Array, "b m"] | None) -> Float[Array, " b"]:
    """The mean of each clip, over the places that count."""
    if counted is None:
        return values.mean(axis=(1, 2))
    return jnp.sum(values.mean(axis=2) * counted, axis=1) / jnp.maximum(1, counted.sum(axis=1))
