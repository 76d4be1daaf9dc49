"""What transformers' PyTorch models compute of the same tensors, stage by stage."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import transformers

from videomae_jax.checkpoints.architecture import Kind
from videomae_jax.checkpoints.config_json import CLASSES, config_json
from videomae_jax.checkpoints.names import hugging_face_from_original
from videomae_jax.model_config import VideoMAEConfig
from videomae_jax.models.position import position_table

from ..pickles import to_torch


def torch_stages(
    config: VideoMAEConfig,
    tensors: Mapping[str, np.ndarray],
    kind: Kind,
    pixels: np.ndarray,
    mask: np.ndarray,
) -> dict[str, np.ndarray]:
    """The values of every stage, by the names that `jax_stages` uses."""
    model = build_reference(config, tensors, kind)
    seen: dict[str, torch.Tensor] = {}
    for name, module in _stages(model, kind).items():
        module.register_forward_hook(lambda _, __, output, name=name: seen.__setitem__(name, output))
    inputs = {"bool_masked_pos": torch.from_numpy(mask)} if kind == "pretraining" else {}
    with torch.no_grad():
        outputs = model(torch.from_numpy(pixels.transpose(0, 1, 4, 2, 3).copy()), **inputs)
    if kind == "pretraining":
        last = f"decoder block {config.decoder_num_hidden_layers - 1}"
        seen[last] = seen[last][:, -outputs.logits.shape[1] :]
        seen["loss"] = outputs.loss
    if kind != "encoder":
        seen["logits"] = outputs.logits
    return {name: value.numpy() for name, value in seen.items()}


def build_reference(config: VideoMAEConfig, tensors: Mapping[str, np.ndarray], kind: Kind) -> Any:
    """transformers' model with these weights in float32, every one loaded, and with our epsilons."""
    description = transformers.VideoMAEConfig.from_dict(config_json(config, kind))
    model = getattr(transformers, CLASSES[kind])(description).eval()
    state = {name: to_torch(array).float() for name, array in hugging_face_from_original(tensors).items()}
    wanted = model.state_dict()
    if any(name.endswith("query.bias") for name in wanted):
        state = {_in_memory(name): tensor for name, tensor in state.items()}
    # transformers 5.5.4 to 5.17 have biases on keys too.
    state |= {name: torch.zeros_like(wanted[name]) for name in wanted if name.endswith("key.bias")}
    model.load_state_dict(state, strict=True)
    encoder = model if kind == "encoder" else model.videomae
    _resize_positions(encoder.embeddings, config, config.hidden_size)
    if kind == "pretraining":
        _resize_positions(model, config, config.decoder_hidden_size)
    for name, eps in (("decoder", config.decoder_norm_eps), ("fc_norm", config.fc_norm_eps)):
        if (module := getattr(model, name, None)) is not None:
            getattr(module, "norm", module).eps = eps
    return model


def _resize_positions(module: Any, config: VideoMAEConfig, width: int) -> None:
    """Give transformers, which builds its table anew for the size of the clips, the one that was learned."""
    if config.learned_grid != config.grid:
        module.position_embeddings = torch.from_numpy(position_table(config, width)[None].copy())


def _in_memory(name: str) -> str:
    """transformers 5.5.4 and later keep the biases of a file under other names in memory."""
    return name.replace(".q_bias", ".query.bias").replace(".v_bias", ".value.bias")


def _stages(model: Any, kind: Kind) -> dict[str, torch.nn.Module]:
    encoder = model if kind == "encoder" else model.videomae
    stages = {"embedding": encoder.embeddings}
    stages |= {f"encoder block {layer}": block for layer, block in enumerate(encoder.encoder.layer)}
    if encoder.layernorm is not None:
        stages["encoder norm"] = encoder.layernorm
    if kind == "pretraining":
        stages["encoder to decoder"] = model.encoder_to_decoder
        blocks = enumerate(model.decoder.decoder_layers)
        stages |= {f"decoder block {layer}": block for layer, block in blocks}
        stages["decoder norm"] = model.decoder.norm
    if kind == "classification" and model.fc_norm is not None:
        stages["mean and fc_norm"] = model.fc_norm
    return stages
