"""A classifier as a graph of some fifteen plain operations, which ONNX and LiteRT both have.

Why it is written out once more, and not converted from what JAX traces: docs/decisions/0018-export.md.
"""

from collections.abc import Sequence
from math import prod
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np

from videomae_jax.checkpoints.trees import flatten
from videomae_jax.errors import InputError
from videomae_jax.inference.normalization import Normalization
from videomae_jax.model_config import VideoMAEConfig
from videomae_jax.models.position import position_table

V = TypeVar("V")
"""A value of a graph, as the format names it."""


@runtime_checkable
class Graph(Protocol[V]):
    """A graph that is being written. The first axis of what is no constant is the batch, or a multiple."""

    def constant(self, array: np.ndarray) -> V: ...
    def as_float(self, x: V) -> V: ...
    def add(self, x: V, y: V) -> V: ...
    def sub(self, x: V, y: V) -> V: ...
    def mul(self, x: V, y: V) -> V: ...
    def reshape(self, x: V, rows: int, shape: Sequence[int]) -> V:
        """To (batch x `rows`, *`shape`)."""
        ...

    def transpose(self, x: V, axes: Sequence[int]) -> V: ...
    def dense(self, x: V, kernel: np.ndarray, bias: np.ndarray | None) -> V:
        """x @ kernel + bias."""
        ...

    def matmul(self, x: V, y: V, transposed: bool) -> V:
        """x @ y, or x @ yᵀ, for each of all axes but the last two."""
        ...

    def softmax(self, x: V) -> V: ...
    def gelu(self, x: V) -> V: ...
    def layer_norm(self, x: V, scale: np.ndarray, bias: np.ndarray, epsilon: float) -> V: ...
    def mean(self, x: V) -> V:
        """Mean over axis 1, which is dropped."""
        ...

    def first(self, x: V) -> V:
        """Position 0 of axis 1, which is dropped."""
        ...


def build(graph: Graph[V], clips: V, config: VideoMAEConfig, normalization: Normalization, params: Any) -> V:
    """Logits of uint8 clips (b, T, H, W, c). Raises InputError for parameters that it does not know."""
    left = {name: np.asarray(leaf, np.float32) for name, leaf in flatten(params).items()}
    x = _normalized(graph, clips, config, normalization)
    x = graph.dense(_tubelets(graph, x, config), *_kernel_and_bias(left, "encoder.patch_embed.proj"))
    x = graph.add(x, graph.constant(position_table(config, config.hidden_size)[None]))
    stack = {name: left.pop(name) for name in list(left) if name.startswith("encoder.blocks.")}
    for layer in range(config.num_hidden_layers):
        block = {name.removeprefix("encoder.blocks."): leaf[layer] for name, leaf in stack.items()}
        x = _block(graph, x, config, block)
        _check_all_used(block)
    if config.use_mean_pooling:
        x = _norm(graph, graph.mean(x), left, "fc_norm", config.fc_norm_eps)
    else:
        x = graph.first(_norm(graph, x, left, "encoder.norm", config.layer_norm_eps))
    logits = graph.dense(x, *_kernel_and_bias(left, "head"))
    _check_all_used(left)
    return logits


def _normalized(graph: Graph[V], clips: V, config: VideoMAEConfig, normalization: Normalization) -> V:
    mean, std = (np.array(each, np.float32) for each in (normalization.mean, normalization.std))
    x = graph.mul(graph.as_float(clips), graph.constant(np.array(normalization.scale, np.float32)))
    return graph.mul(graph.sub(x, graph.constant(mean)), graph.constant(1 / std))


def _tubelets(graph: Graph[V], x: V, config: VideoMAEConfig) -> V:
    """As `patchify`, in two steps of four axes each: LiteRT transposes no more than six."""
    (t, h, w), a, p, c = config.grid, config.tubelet_size, config.patch_size, config.num_channels
    x = graph.transpose(graph.reshape(x, t, (a, h, p * w * p * c)), (0, 2, 1, 3))
    x = graph.transpose(graph.reshape(x, t * h, (a * p, w, p * c)), (0, 2, 1, 3))
    return graph.reshape(x, 1, (t * h * w, a * p * p * c))


def _block(graph: Graph[V], x: V, config: VideoMAEConfig, params: dict[str, np.ndarray]) -> V:
    epsilon = config.layer_norm_eps
    for name, branch in (("gamma_1", "attn.proj"), ("gamma_2", "mlp.fc2")):  # Layer scale.
        if (gamma := params.pop(name, None)) is not None:
            params |= {each: params[each] * gamma for each in (f"{branch}.kernel", f"{branch}.bias")}
    x = graph.add(x, _attention(graph, _norm(graph, x, params, "norm1", epsilon), config, params))
    hidden = _norm(graph, x, params, "norm2", epsilon)
    hidden = graph.gelu(graph.dense(hidden, *_kernel_and_bias(params, "mlp.fc1")))
    return graph.add(x, graph.dense(hidden, *_kernel_and_bias(params, "mlp.fc2")))


def _attention(graph: Graph[V], x: V, config: VideoMAEConfig, params: dict[str, np.ndarray]) -> V:
    heads, tokens = config.num_attention_heads, prod(config.grid)
    width = config.hidden_size // heads
    q, k, v = np.split(params.pop("attn.qkv.kernel"), 3, axis=1)
    q_bias, v_bias = (params.pop(f"attn.{name}_bias", None) for name in "qv")
    scale = np.float32(width**-0.5)

    def by_head(kernel: np.ndarray, bias: np.ndarray | None) -> V:
        projected = graph.reshape(graph.dense(x, kernel, bias), 1, (tokens, heads, width))
        return graph.transpose(projected, (0, 2, 1, 3))

    scores = graph.matmul(
        by_head(q * scale, None if q_bias is None else q_bias * scale), by_head(k, None), True
    )
    mixed = graph.matmul(graph.softmax(scores), by_head(v, v_bias), False)
    mixed = graph.reshape(graph.transpose(mixed, (0, 2, 1, 3)), 1, (tokens, config.hidden_size))
    return graph.dense(mixed, *_kernel_and_bias(params, "attn.proj"))


def _norm(graph: Graph[V], x: V, params: dict[str, np.ndarray], name: str, epsilon: float) -> V:
    return graph.layer_norm(x, params.pop(f"{name}.scale"), params.pop(f"{name}.bias"), epsilon)


def _kernel_and_bias(params: dict[str, np.ndarray], name: str) -> tuple[np.ndarray, np.ndarray]:
    return params.pop(f"{name}.kernel"), params.pop(f"{name}.bias")


def _check_all_used(params: dict[str, np.ndarray]) -> None:
    if params:
        raise InputError(
            f"the model has parameters that only --to stablehlo takes along: {', '.join(sorted(params))}"
        )
