"""Tensor names: the original code's and Hugging Face's, and the parameter tree here.

The tree keeps the original names. Blocks are stacked along a first axis of layers, matrices are (in, out)
instead of (out, in), LayerNorm weights are called scale, and the patch embedding is a matrix whose rows run
frame, row, column, channel.
"""

import logging
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from einops import rearrange
from jaxtyping import Shaped

from videomae_jax.checkpoints.trees import flatten, nest
from videomae_jax.errors import InputError
from videomae_jax.model_config import VideoMAEConfig

log = logging.getLogger(__name__)

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
"""Parts that data-parallel, hub and detection wrappers, Lightning and torch.compile put into names."""
ENCODER_PARTS = {"patch_embed", "blocks", "norm"}
_ROOTS = {"decoder", "mask_token", "encoder_to_decoder", "fc_norm", "head", "classifier"} | ENCODER_PARTS
_ROOTS |= {"embeddings", "layer", "layernorm"}


def original_names(tensors: Tensors) -> dict[str, np.ndarray]:
    """Tensors by the names of the original code, with `encoder.` before those of the encoder.

    Takes the original's names and Hugging Face's, in any nest of wrappers. Biases may be called q_bias and
    v_bias, query.bias and value.bias, or be thirds of qkv.bias. Those of keys are left out, which is logged
    where they are not zero. Raises InputError where two names fall together.
    """
    unwrapped = _without_wrappers(tensors)
    return _with_encoder(_without_key_biases(_original_from_hugging_face(unwrapped)))


def _without_wrappers(tensors: Tensors) -> dict[str, np.ndarray]:
    """Names without the parts that wrappers put in, and without those that all of them begin with."""
    parts = {name: [part for part in name.split(".") if part not in WRAPPERS] for name in tensors}
    while len(first := {each[0] if len(each) > 1 else "" for each in parts.values()}) == 1 and not (
        first & (_ROOTS | {""})
    ):
        parts = {name: each[1:] for name, each in parts.items()}
    return _renamed(tensors, {name: ".".join(each) for name, each in parts.items()})


def _original_from_hugging_face(tensors: Tensors) -> dict[str, np.ndarray]:
    """Rename Hugging Face tensors as the original code does, and join query, key and value into qkv."""
    names = {}
    for name in tensors:
        names[name] = name
        for pattern, replacement in HUGGING_FACE:
            names[name] = re.sub(pattern, replacement, names[name])
    renamed = _renamed(tensors, names)
    for name in [name for name in renamed if name.endswith(".attn.query.weight")]:
        stem = name.removesuffix("query.weight")
        parts = [f"{stem}{part}.weight" for part in ("query", "key", "value")]
        # Parts that do not belong together stay as they are, for the comparison of shapes to name them.
        if len({renamed[part].shape if part in renamed else None for part in parts}) == 1:
            renamed[f"{stem}qkv.weight"] = np.concatenate([renamed.pop(part) for part in parts])
    return renamed


def _without_key_biases(tensors: Tensors) -> dict[str, np.ndarray]:
    """Without biases on keys: one adds the same to every score of a query, which softmax cancels.

    transformers 5.5.4 to 5.17 trains them, which leaves values of the size of rounding.
    """
    kept: dict[str, np.ndarray] = {}
    of_keys = []
    for name, tensor in tensors.items():
        stem = re.sub(r"\.(key|qkv)\.bias$|\.(k|key)_bias$", "", name)
        if stem == name or not stem.endswith(".attn"):
            kept[name] = tensor
        elif not name.endswith("qkv.bias"):
            of_keys.append(tensor)
        elif tensor.ndim != 1 or len(tensor) % 3 or f"{stem}.q_bias" in tensors:
            kept[name] = tensor
        else:
            kept[f"{stem}.q_bias"], of_key, kept[f"{stem}.v_bias"] = np.split(tensor, 3)
            of_keys.append(of_key)
    if largest := max((float(np.abs(np.asarray(bias, np.float32)).max()) for bias in of_keys), default=0.0):
        log.warning(
            "Biases on keys, in %d layers and up to %.1e, are left out: they change no output.",
            len(of_keys),
            largest,
        )
    return kept


def _with_encoder(tensors: Tensors) -> dict[str, np.ndarray]:
    """With `encoder.` before every tensor of the encoder; the original saves a classifier's without it."""
    names = {}
    for name in tensors:
        bare = name.removeprefix("encoder.")
        names[name] = f"encoder.{bare}" if bare.partition(".")[0] in ENCODER_PARTS else bare
    return _renamed(tensors, names)


def _renamed(tensors: Tensors, names: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Tensors under other names; raises InputError when two of them would be the same."""
    before: dict[str, str] = {}
    for old, new in names.items():
        if new in before:
            raise InputError(f"{before[new]} and {old} are both {new} without their prefixes and spellings")
        before[new] = old
    return {new: tensors[old] for new, old in before.items()}


def hugging_face_from_original(tensors: Tensors) -> dict[str, np.ndarray]:
    """Name tensors as Hugging Face folders do, the inverse of `original_names`.

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
    return nest(flat)


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
    if re.search(r"norm\d?\.scale$", path):  # Cosine attention has a scale too.
        return path.removesuffix("scale") + "weight", value
    if path.endswith(".kernel"):
        return path.removesuffix("kernel") + "weight", value.T
    return path, value
