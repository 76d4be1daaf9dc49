"""Tensor names: the original code's and Hugging Face's, and the parameter tree here.

The tree keeps the original names. Blocks are stacked along a first axis of layers, matrices are (in, out)
instead of (out, in), LayerNorm weights are called scale, and the patch embedding is a matrix whose rows run
frame, row, column, channel.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from einops import rearrange
from jaxtyping import Shaped

from videomae_jax.config import VideoMAEConfig
from videomae_jax.errors import InputError

Tensors = Mapping[str, np.ndarray]
Tree = Mapping[str, Any]

HUGGING_FACE = (
    # The encoder stands below `videomae.` in models with a head and bare in VideoMAEModel.
    (r"^(?:videomae\.)?embeddings\.patch_embeddings\.projection\.", "encoder.patch_embed.proj."),
    (r"^(?:videomae\.)?layernorm\.", "encoder.norm."),
    (r"^(?:videomae\.)?encoder\.layer\.(\d+)\.", r"encoder.blocks.\1."),
    (r"^decoder\.decoder_layers\.(\d+)\.", r"decoder.blocks.\1."),
    (r"^classifier\.", "head."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.attention\.attention\.(query|value)\.bias$", r".attn.\1_bias"),
    (r"\.attn\.query_bias$", ".attn.q_bias"),
    (r"\.attn\.value_bias$", ".attn.v_bias"),
    (r"\.attention\.attention\.([qv]_bias)$", r".attn.\1"),
    (r"\.attention\.attention\.(query|key|value)\.", r".attn.\1."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
)

TO_HUGGING_FACE = (
    (r"^encoder\.patch_embed\.proj\.", "videomae.embeddings.patch_embeddings.projection."),
    (r"^encoder\.norm\.", "videomae.layernorm."),
    (r"^encoder\.blocks\.(\d+)\.", r"videomae.encoder.layer.\1."),
    (r"^decoder\.blocks\.(\d+)\.", r"decoder.decoder_layers.\1."),
    (r"^head\.", "classifier."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"\.attn\.proj\.", ".attention.output.dense."),
    (r"\.attn\.", ".attention.attention."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
)

WRAPPERS = {"module", "model", "backbone", "_orig_mod"}
"""Parts that data-parallel, hub and detection wrappers and torch.compile put into names."""
ENCODER_PARTS = {"patch_embed", "blocks", "norm"}


def original_from_hugging_face(tensors: Tensors) -> dict[str, np.ndarray]:
    """Rename Hugging Face tensors as the original code does, and join query, key and value into qkv.

    Biases may be called q_bias and v_bias, query.bias and value.bias, with or without a key.bias of zeros.
    """
    renamed: dict[str, np.ndarray] = {}
    for old, tensor in tensors.items():
        name = old
        for pattern, replacement in HUGGING_FACE:
            name = re.sub(pattern, replacement, name)
        if name in renamed:
            raise InputError(f"{old} is there twice, under two spellings of {name}")
        renamed[name] = tensor
    for name in [name for name in renamed if name.endswith(".attn.query.weight")]:
        stem = name.removesuffix("query.weight")
        parts = [f"{stem}{part}.weight" for part in ("query", "key", "value")]
        # Parts that do not belong together stay as they are, for the comparison of shapes to name them.
        if len({renamed[part].shape if part in renamed else None for part in parts}) == 1:
            renamed[f"{stem}qkv.weight"] = np.concatenate([renamed.pop(part) for part in parts])
    for name in [name for name in renamed if name.endswith(".attn.key.bias")]:
        if renamed.pop(name).any():
            raise InputError(f"{name} is not zero; VideoMAE has no bias on keys, so these are other weights")
    return renamed


def hugging_face_from_original(tensors: Tensors) -> dict[str, np.ndarray]:
    """Name tensors as Hugging Face folders do, the inverse of `original_from_hugging_face`.

    Biases keep their on-disk names q_bias and v_bias, which every version of transformers but 5.5 to 5.17
    reads. The encoder stands below `videomae.` unless nothing but the encoder is there.
    """
    bare = all(name.startswith("encoder.") for name in tensors)
    renamed: dict[str, np.ndarray] = {}
    for name, tensor in tensors.items():
        for pattern, replacement in TO_HUGGING_FACE:
            name = re.sub(pattern, replacement, name)
        if bare:
            name = name.removeprefix("videomae.")
        if name.endswith(".attention.attention.qkv.weight"):
            stem = name.removesuffix("qkv.weight")
            for part, rows in zip(("query", "key", "value"), np.split(tensor, 3), strict=True):
                renamed[f"{stem}{part}.weight"] = rows
        else:
            renamed[name] = tensor
    return renamed


def strip_prefixes(tensors: Tensors) -> dict[str, np.ndarray]:
    """Take wrappers' prefixes off original names and put `encoder.` before every tensor of the encoder.

    The original saves a classifier's encoder without that prefix. Raises InputError when two names fall
    together.
    """
    renamed: dict[str, np.ndarray] = {}
    before: dict[str, str] = {}
    for name, tensor in tensors.items():
        parts = [part for part in name.split(".") if part not in WRAPPERS]
        if parts[:1] == ["encoder"]:
            parts = parts[1:]
        short = ".".join((["encoder"] if ENCODER_PARTS.intersection(parts[:1]) else []) + parts)
        if short in renamed:
            raise InputError(f"{before[short]} and {name} are both {short} without their prefixes")
        renamed[short], before[short] = tensor, name
    return renamed


def original_spelling(tensors: Tensors) -> dict[str, np.ndarray]:
    """Names as the original code saves them: without a decoder, the encoder has no prefix."""
    if any(name.startswith("decoder.") for name in tensors):
        return dict(tensors)
    return {name.removeprefix("encoder."): tensor for name, tensor in tensors.items()}


def tree_from_original(tensors: Tensors) -> dict[str, Any]:
    """Build the parameter tree from tensors under their original names."""
    layers: dict[str, dict[int, np.ndarray]] = {}
    flat: dict[str, np.ndarray] = {}
    for name, tensor in tensors.items():
        path, value = _leaf_from_original(name, tensor)
        if match := re.match(r"(.*\bblocks)\.(\d+)\.(.*)", path):
            layers.setdefault(f"{match[1]}.{match[3]}", {})[int(match[2])] = value
        else:
            flat[path] = value
    for path, by_layer in layers.items():
        if sorted(by_layer) != list(range(len(by_layer))):
            raise InputError(f"{path} is there for layers {sorted(by_layer)} only; a layer is missing")
        flat[path] = np.stack([by_layer[layer] for layer in range(len(by_layer))])
    return _nest(flat)


def original_from_tree(params: Tree, config: VideoMAEConfig) -> dict[str, np.ndarray]:
    """Name the parameters as the original code does: the inverse of `tree_from_original`."""
    tensors: dict[str, np.ndarray] = {}
    for path, value in flatten(params).items():
        if match := re.match(r"(.*\bblocks)\.(.*)", path):
            for layer, each in enumerate(value):
                name, tensor = _leaf_to_original(f"{match[1]}.{layer}.{match[2]}", each, config)
                tensors[name] = tensor
        else:
            name, tensor = _leaf_to_original(path, value, config)
            tensors[name] = tensor
    return tensors


def _leaf_from_original(name: str, tensor: np.ndarray) -> tuple[str, np.ndarray]:
    if name.endswith("patch_embed.proj.weight"):
        return name.removesuffix("weight") + "kernel", rearrange(tensor, "d c a p q -> (a p q c) d")
    if re.search(r"norm\d?\.weight$", name):
        return name.removesuffix("weight") + "scale", tensor
    if name.endswith(".weight"):
        return name.removesuffix("weight") + "kernel", tensor.T
    return name, tensor


def _leaf_to_original(
    path: str, value: Shaped[np.ndarray, "..."], config: VideoMAEConfig
) -> tuple[str, np.ndarray]:
    if path.endswith("patch_embed.proj.kernel"):
        sizes = {"a": config.tubelet_size, "p": config.patch_size, "q": config.patch_size}
        return path.removesuffix("kernel") + "weight", rearrange(value, "(a p q c) d -> d c a p q", **sizes)
    if path.endswith(".scale"):
        return path.removesuffix("scale") + "weight", value
    if path.endswith(".kernel"):
        return path.removesuffix("kernel") + "weight", value.T
    return path, value


def flatten(tree: Tree, prefix: str = "") -> dict[str, Any]:
    """Leaves of a nested dict by dotted path."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat


def _nest(flat: Mapping[str, np.ndarray]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *parents, last = path.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return tree
