"""What this package's models compute, stage by stage."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from videomae_jax.checkpoints.architecture import Kind
from videomae_jax.checkpoints.names import tree_from_original
from videomae_jax.model_config import VideoMAEConfig
from videomae_jax.models.blocks import Block
from videomae_jax.models.classification import VideoMAEForVideoClassification
from videomae_jax.models.encoder import VideoMAEModel
from videomae_jax.models.masking import mask_indices
from videomae_jax.models.position import position_table
from videomae_jax.models.pretraining import VideoMAEForPreTraining
from videomae_jax.models.stack import apply_block

MODELS: dict[Kind, Any] = {
    model.kind: model for model in (VideoMAEForPreTraining, VideoMAEForVideoClassification, VideoMAEModel)
}


def jax_stages(
    config: VideoMAEConfig,
    tensors: Mapping[str, np.ndarray],
    kind: Kind,
    pixels: np.ndarray,
    mask: np.ndarray,
) -> dict[str, np.ndarray]:
    """The values of every stage of the model that the tensors belong to, by the stage's name.

    In full float32: GPUs and TPUs round the factors of products to fewer bits unless they are asked not to.
    """
    with jax.default_matmul_precision("highest"):
        params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), tree_from_original(tensors))
        model = MODELS[kind](config)
        inputs = (pixels, mask) if kind == "pretraining" else (pixels,)

        @jax.jit
        def run(params: Any) -> tuple[Any, Any]:
            return model.apply(
                {"params": params}, *inputs, output_hidden_states=True, capture_intermediates=True
            )

        outputs, captured = run(params)
        modules = captured["intermediates"]
        hidden = outputs.hidden_states
        stages = {"embedding": hidden[0]}
        stages |= {f"encoder block {layer}": each for layer, each in enumerate(hidden[1:])}
        if "norm" in modules["encoder"]:
            stages["encoder norm"] = modules["encoder"]["norm"]["__call__"][0]
        if kind == "pretraining":
            projected = modules["encoder_to_decoder"]["__call__"][0]
            stages["encoder to decoder"] = projected
            stages |= _decoder_blocks(config, params, projected, mask)
            stages["decoder norm"] = modules["decoder"]["norm"]["__call__"][0]
        if "fc_norm" in modules:
            stages["mean and fc_norm"] = modules["fc_norm"]["__call__"][0]
        if kind != "encoder":
            stages["logits"] = outputs.logits
        if kind == "pretraining":
            stages["loss"] = outputs.loss
        return {name: np.asarray(value) for name, value in stages.items()}


def _decoder_blocks(
    config: VideoMAEConfig, params: Any, projected: jax.Array, mask: np.ndarray
) -> dict[str, jax.Array]:
    """The decoder's blocks one by one; the last on masked places only, as the model applies it."""
    visible, masked = mask_indices(mask)
    positions = jnp.asarray(position_table(config, config.decoder_hidden_size))
    tokens = params["mask_token"] + positions[masked]
    x = jnp.concatenate([projected + positions[visible], tokens], axis=1)
    plain = replace(config, dtype="float32", attention="auto")
    block = Block(plain, config.decoder_num_attention_heads, config.decoder_intermediate_size)
    step = jax.jit(apply_block, static_argnums=(0, 3))
    stages = {}
    for layer in range(config.decoder_num_hidden_layers):
        one = jax.tree.map(lambda leaf, layer=layer: leaf[layer], params["decoder"]["blocks"])
        last = layer == config.decoder_num_hidden_layers - 1
        x = step(block, one, x, masked.shape[1] if last else None)
        stages[f"decoder block {layer}"] = x
    return stages
