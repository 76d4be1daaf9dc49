"""Which architecture a set of tensors has, and whether the tensors are all that an architecture needs.

Tensors go by the names of the original code, with `encoder.` before those of the encoder.
"""

import re
from collections.abc import Iterable, Mapping, Set
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from videomae_jax.errors import InputError
from videomae_jax.model_config import VideoMAEConfig
from videomae_jax.sizes import SIZES

Kind = Literal["pretraining", "classification", "encoder"]
Shape = tuple[int, ...]

SHOWN_BY_SIZE = ("hidden_size", "num_hidden_layers", "intermediate_size", "patch_size")
"""Fields by which a published size can be told from tensors."""
_PATCH = "encoder.patch_embed.proj.weight"
_STRANGE = (
    (r"\.(lambda_?[12]|ls[12]\.gamma)$", "layer scale under other names than gamma_1 and gamma_2"),
    (r"\.attn\.logit_scale$", "cosine attention of Swin (attn.logit_scale)"),
    (r"\b(pos_embed|position_embeddings)\b", "learned positions (pos_embed)"),
    (r"\bcls_token$", "a CLS token (cls_token)"),
    (r"\b(roi_heads?|bbox_head)\.", "an AVA detection head (roi_heads)"),
)
"""Tensors of relatives of these models, and what they are."""
LEARNED = 1.0
"""What stands for the first value of learned factors, which their values no longer tell."""


def kind_of(tensors: Mapping[str, Any]) -> Kind:
    """What the tensors are for, by the parts that are there."""
    if any(name.startswith(("decoder.", "encoder_to_decoder.", "mask_token")) for name in tensors):
        return "pretraining"
    return "classification" if any(name.startswith(("head.", "fc_norm.")) for name in tensors) else "encoder"


def infer_fields(source: str, tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The configuration fields that tensors determine: not image size, frames or epsilons, and heads only of
    cosine attention.

    Sizes are read where no transposition can hide, from vectors; `check_tensors` compares the rest.
    """
    patch = tensors.get(_PATCH)
    if patch is None:
        some = ", ".join(sorted(tensors)[:3]) or "nothing"
        raise InputError(f"{source} holds no VideoMAE weights: no patch_embed.proj.weight, but {some} ...")
    if patch.ndim != 5 or patch.shape[3] != patch.shape[4] or 0 in patch.shape:
        raise InputError(
            f"{source} has patch_embed.proj.weight of shape {patch.shape}; a convolution over tubelets is "
            "(width, channels, frames, side, side)"
        )
    kind = kind_of(tensors)
    has_norm = "encoder.norm.weight" in tensors
    fields = {
        "hidden_size": patch.shape[0],
        "num_channels": patch.shape[1],
        "tubelet_size": patch.shape[2],
        "patch_size": patch.shape[3],
        "qv_bias": any(re.fullmatch(r"encoder\.blocks\.\d+\.attn\.[qv]_bias", name) for name in tensors),
        "layer_scale": LEARNED if any(re.search(r"\.gamma_[12]$", name) for name in tensors) else 0.0,
        "cosine_attention": any(name.endswith(".attn.scale") for name in tensors),
    } | _stack_fields(tensors, "encoder", "")
    if kind == "pretraining":
        fields |= {"encoder_norm": has_norm} | _stack_fields(tensors, "decoder", "decoder_")
        if (token := tensors.get("mask_token")) is not None and token.ndim:
            fields["decoder_hidden_size"] = token.shape[-1]
    else:
        fields["use_mean_pooling"] = "fc_norm.weight" in tensors or not has_norm
    if kind == "classification":
        head = tensors.get("head.bias")
        if head is not None and head.ndim:
            fields["num_labels"] = head.shape[0]
        elif not any(name.startswith("head.") for name in tensors):
            fields["num_labels"] = 0
    return fields


def _stack_fields(tensors: Mapping[str, np.ndarray], stack: str, prefix: str) -> dict[str, int]:
    """Depth of a stack of blocks, and the hidden width of most of its MLPs."""
    matches = [re.match(rf"{stack}\.blocks\.(\d{{1,3}})\.", name) for name in tensors]
    depth = max((int(match[1]) + 1 for match in matches if match), default=0)
    fields = {f"{prefix}num_hidden_layers": depth}
    widths = [
        tensor.shape[0]
        for name, tensor in tensors.items()
        if re.fullmatch(rf"{stack}\.blocks\.\d+\.mlp\.fc1\.bias", name) and tensor.ndim
    ]
    if widths:
        fields[f"{prefix}intermediate_size"] = max(set(widths), key=widths.count)
    scale = tensors.get(f"{stack}.blocks.0.attn.scale")
    if scale is not None and scale.ndim:
        fields[f"{prefix}num_attention_heads"] = scale.shape[0]
    return fields


def expected_shapes(config: VideoMAEConfig, kind: Kind) -> dict[str, Shape]:
    """Name and shape of every tensor of an architecture; a classifier of no classes has no head."""
    width, side = config.hidden_size, config.patch_size
    shapes: dict[str, Shape] = {
        _PATCH: (width, config.num_channels, config.tubelet_size, side, side),
        "encoder.patch_embed.proj.bias": (width,),
    }
    depth, heads = config.num_hidden_layers, config.num_attention_heads
    shapes |= _stack_shapes("encoder", config, depth, width, config.intermediate_size, heads)
    if config.encoder_norm if kind == "pretraining" else not config.use_mean_pooling:
        shapes |= _norm("encoder.norm", width)
    if kind == "classification":
        if config.use_mean_pooling:
            shapes |= _norm("fc_norm", width)
        if config.num_labels:
            shapes |= _linear("head", width, config.num_labels)
    if kind == "pretraining":
        inner = config.decoder_hidden_size
        shapes |= {"encoder_to_decoder.weight": (inner, width), "mask_token": (1, 1, inner)}
        depth, heads = config.decoder_num_hidden_layers, config.decoder_num_attention_heads
        shapes |= _stack_shapes("decoder", config, depth, inner, config.decoder_intermediate_size, heads)
        shapes |= _norm("decoder.norm", inner) | _linear("decoder.head", inner, config.values_per_tubelet)
    return shapes


def _stack_shapes(
    stack: str, config: VideoMAEConfig, layers: int, width: int, hidden: int, heads: int
) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {}
    for layer in range(layers):
        block = f"{stack}.blocks.{layer}"
        shapes |= _norm(f"{block}.norm1", width) | _norm(f"{block}.norm2", width)
        shapes[f"{block}.attn.qkv.weight"] = (3 * width, width)
        if config.cosine_attention:
            shapes[f"{block}.attn.scale"] = (heads, 1, 1)
        if config.layer_scale:
            shapes |= {f"{block}.gamma_1": (width,), f"{block}.gamma_2": (width,)}
        if config.qv_bias:
            shapes |= {f"{block}.attn.q_bias": (width,), f"{block}.attn.v_bias": (width,)}
        shapes |= _linear(f"{block}.attn.proj", width, width)
        shapes |= _linear(f"{block}.mlp.fc1", width, hidden) | _linear(f"{block}.mlp.fc2", hidden, width)
    return shapes


def _norm(name: str, width: int) -> dict[str, Shape]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _linear(name: str, inputs: int, outputs: int) -> dict[str, Shape]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def check_tensors(source: str, tensors: Mapping[str, np.ndarray], config: VideoMAEConfig) -> None:
    """Raise InputError, naming every tensor that is missing, unknown, mis-shaped or not floating-point."""
    compare_tensors(
        f"{source} does not fit its architecture", tensors, expected_shapes(config, kind_of(tensors))
    )


def compare_tensors(complaint: str, have: Mapping[str, np.ndarray], want: Mapping[str, Shape]) -> None:
    """Raise InputError, the complaint and all that is wrong in two columns, unless tensors are as wanted."""
    rows = []
    for name in sorted(want.keys() | have.keys()):
        expected = f"{name} {want[name]}" if name in want else "nothing"
        if name not in have:
            rows.append((expected, "missing"))
        elif have[name].shape != want.get(name):
            rows.append((expected, f"{name} {have[name].shape}"))
        elif not _is_floating(have[name].dtype):
            rows.append((expected, f"{name} of dtype {have[name].dtype}; it must be a floating-point type"))
    if rows:
        raise InputError(
            f"{complaint}: {len(rows)} of {len(want)} tensors, here by the names of the original code.\n"
            + two_columns("expected", "found", rows)
            + _strange_parts(have.keys() - want.keys())
        )


def _strange_parts(names: Set[str]) -> str:
    """What is known of tensors that no model here has, as a last line."""
    found = [what for pattern, what in _STRANGE if any(re.search(pattern, name) for name in names)]
    return f"\nThe weights have {' and '.join(found)}, which no model here has." if found else ""


def differing(a: Mapping[str, Any], b: Mapping[str, Any], names: Iterable[str]) -> list[tuple[str, str]]:
    """Rows of a table of two columns for the settings in which two differ."""
    return [
        (f"{name} = {a.get(name)}", f"{name} = {b.get(name)}") for name in names if a.get(name) != b.get(name)
    ]


def two_columns(left: str, right: str, rows: list[tuple[str, str]]) -> str:
    """A table of two columns."""
    width = max(len(row[0]) for row in [(left, right), *rows])
    return "\n".join(f"  {a:{width}}  {b}" for a, b in [(left, right), *rows])


def _is_floating(dtype: np.dtype) -> bool:
    return np.issubdtype(dtype, np.floating) or dtype.name == "bfloat16"


def published_size(fields: Mapping[str, Any]) -> str | None:
    """The published size with this encoder's width, depth, MLP and patch, whatever its heads."""
    for size, config in SIZES.items():
        if all(fields.get(name) == getattr(config, name) for name in SHOWN_BY_SIZE):
            return size
    return None


def correct_heads(source: str, config: VideoMAEConfig) -> tuple[VideoMAEConfig, str | None]:
    """The configuration with the heads that the published size has, and a warning where that changes it.

    The script with which the published weights went to the hub wrote 16 heads into the small model's
    config.json. The original has 6, and every tensor fits either.
    """
    size = published_size(vars(config))
    if size is None or config.num_attention_heads == (heads := SIZES[size].num_attention_heads):
        return config, None
    said = (
        f"{source} says {config.num_attention_heads} attention heads; the published {size} model has {heads}"
    )
    if (size, config.num_attention_heads) != ("small", 16):
        return (
            config,
            f"{said}. No tensor can tell which is right; the {config.num_attention_heads} are kept.",
        )
    return replace(config, num_attention_heads=heads), (
        f"{said}. The 16 is a known error of the script that wrote the hub's small models: every tensor "
        "fits, and the outputs are wrong. 6 is used; --num-heads 16 keeps the 16."
    )
