"""The graph of a classifier as an ONNX model, of operations that every runtime has had since 2022."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from videomae_jax.inference.export.graph import build
from videomae_jax.inference.normalization import Normalization
from videomae_jax.model_config import VideoMAEConfig

_OPSET = 17
"""The first with LayerNormalization."""
_IR_VERSION = 8
"""The one of that time: newer runtimes read it too."""


class OnnxGraph:
    """Nodes and weights of an ONNX graph; a value is its name."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def _node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        output = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def constant(self, array: np.ndarray) -> str:
        name = f"weight_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
        return name

    def as_float(self, x: str) -> str:
        return self._node("Cast", x, to=TensorProto.FLOAT)

    def add(self, x: str, y: str) -> str:
        return self._node("Add", x, y)

    def sub(self, x: str, y: str) -> str:
        return self._node("Sub", x, y)

    def mul(self, x: str, y: str) -> str:
        return self._node("Mul", x, y)

    def reshape(self, x: str, rows: int, shape: Sequence[int]) -> str:
        return self._node("Reshape", x, self.constant(np.array([-1, *shape], np.int64)))

    def transpose(self, x: str, axes: Sequence[int]) -> str:
        return self._node("Transpose", x, perm=list(axes))

    def dense(self, x: str, kernel: np.ndarray, bias: np.ndarray | None) -> str:
        product = self._node("MatMul", x, self.constant(kernel))
        return product if bias is None else self.add(product, self.constant(bias))

    def matmul(self, x: str, y: str, transposed: bool) -> str:
        return self._node("MatMul", x, self.transpose(y, (0, 1, 3, 2)) if transposed else y)

    def softmax(self, x: str) -> str:
        return self._node("Softmax", x, axis=-1)

    def gelu(self, x: str) -> str:
        half, root = (self.constant(np.array(each, np.float32)) for each in (0.5, 2**-0.5))
        one = self.constant(np.array(1, np.float32))
        spread = self.add(self._node("Erf", self.mul(x, root)), one)
        return self.mul(self.mul(x, spread), half)

    def layer_norm(self, x: str, scale: np.ndarray, bias: np.ndarray, epsilon: float) -> str:
        weights = self.constant(scale), self.constant(bias)
        return self._node("LayerNormalization", x, *weights, axis=-1, epsilon=epsilon)

    def mean(self, x: str) -> str:
        return self._node("ReduceMean", x, axes=[1], keepdims=0)

    def first(self, x: str) -> str:
        return self._node("Gather", x, self.constant(np.array(0, np.int64)), axis=1)


def write(
    file: Path, config: VideoMAEConfig, normalization: Normalization, params: Any, shape: tuple[int, ...]
) -> None:
    """Write a model from `clips`, uint8 (b, *shape), to `logits` (b, y), both with any b."""
    graph = OnnxGraph()
    logits = build(graph, "clips", config, normalization, params)
    graph.nodes[-1].output[0] = "logits"
    assert logits != "logits"
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "videomae",
            [helper.make_tensor_value_info("clips", TensorProto.UINT8, ["b", *shape])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["b", config.num_labels])],
            graph.weights,
        ),
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
        producer_name="videomae-jax",
    )
    onnx.checker.check_model(model)
    file.write_bytes(model.SerializeToString())
