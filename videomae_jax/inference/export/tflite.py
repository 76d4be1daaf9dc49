"""The graph of a classifier as a LiteRT (TensorFlow Lite) model, by the schema that LiteRT brings along."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from videomae_jax.inference.export.graph import build
from videomae_jax.inference.normalization import Normalization
from videomae_jax.model_config import VideoMAEConfig

_TYPES = {
    np.dtype(np.float32): schema.TensorType.FLOAT32,
    np.dtype(np.int32): schema.TensorType.INT32,
    np.dtype(np.uint8): schema.TensorType.UINT8,
}
_VERSION = 3
"""Of the file format; it has not changed since 2017."""


class LiteRTGraph:
    """Operators and tensors of a LiteRT graph; a value is the number of its tensor.

    Shapes are for a batch of one, with its axis marked as any: the interpreter works out all others again
    when the input is resized.
    """

    def __init__(self) -> None:
        self.tensors: list[Any] = []
        self.buffers: list[Any] = [schema.BufferT()]
        """The first must be empty."""
        self.operators: list[Any] = []
        self.kinds: list[int] = []

    def tensor(self, name: str, shape: Sequence[int], dtype: Any, any_batch: bool, buffer: int = 0) -> int:
        made = schema.TensorT()
        made.name, made.shape, made.type, made.buffer = name, list(shape), _TYPES[np.dtype(dtype)], buffer
        made.hasRank = True
        if any_batch:
            made.shapeSignature = [-1, *list(shape)[1:]]
        self.tensors.append(made)
        return len(self.tensors) - 1

    def constant(self, array: np.ndarray) -> int:
        buffer = schema.BufferT()
        buffer.data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        self.buffers.append(buffer)
        name = f"weight_{len(self.buffers)}"
        return self.tensor(name, array.shape, array.dtype, False, len(self.buffers) - 1)

    def _operator(
        self, kind: str, inputs: Sequence[int], shape: Sequence[int], options: str = "", **set_to: Any
    ) -> int:
        """Add an operator whose one result has this shape, for a batch of one."""
        made, number = schema.OperatorT(), getattr(schema.BuiltinOperator, kind)
        if number not in self.kinds:
            self.kinds.append(number)
        made.opcodeIndex, made.inputs = self.kinds.index(number), list(inputs)
        made.outputs = [self.tensor(f"{kind.lower()}_{len(self.operators)}", shape, np.float32, True)]
        if options:
            made.builtinOptionsType = getattr(schema.BuiltinOptions, options)
            made.builtinOptions = getattr(schema, f"{options}T")()
            for name, value in set_to.items():
                setattr(made.builtinOptions, name, value)
        self.operators.append(made)
        return made.outputs[0]

    def _shape(self, x: int) -> list[int]:
        return list(self.tensors[x].shape)

    def as_float(self, x: int) -> int:
        return self._operator("CAST", [x], self._shape(x))

    def add(self, x: int, y: int) -> int:
        return self._operator("ADD", [x, y], self._shape(x), "AddOptions")

    def sub(self, x: int, y: int) -> int:
        return self._operator("SUB", [x, y], self._shape(x), "SubOptions")

    def mul(self, x: int, y: int) -> int:
        return self._operator("MUL", [x, y], self._shape(x), "MulOptions")

    def reshape(self, x: int, rows: int, shape: Sequence[int]) -> int:
        wanted = self.constant(np.array([-1, *shape], np.int32))
        return self._operator("RESHAPE", [x, wanted], [rows, *shape])

    def transpose(self, x: int, axes: Sequence[int]) -> int:
        before = self._shape(x)
        order = self.constant(np.array(axes, np.int32))
        return self._operator("TRANSPOSE", [x, order], [before[axis] for axis in axes])

    def dense(self, x: int, kernel: np.ndarray, bias: np.ndarray | None) -> int:
        weights = [self.constant(kernel.T), -1 if bias is None else self.constant(bias)]
        shape = [*self._shape(x)[:-1], kernel.shape[1]]
        return self._operator(
            "FULLY_CONNECTED", [x, *weights], shape, "FullyConnectedOptions", keepNumDims=True
        )

    def matmul(self, x: int, y: int, transposed: bool) -> int:
        shape = [*self._shape(x)[:-1], self._shape(y)[-2 if transposed else -1]]
        return self._operator("BATCH_MATMUL", [x, y], shape, "BatchMatMulOptions", adjY=transposed)

    def softmax(self, x: int) -> int:
        return self._operator("SOFTMAX", [x], self._shape(x), "SoftmaxOptions", beta=1.0)

    def gelu(self, x: int) -> int:
        return self._operator("GELU", [x], self._shape(x), "GeluOptions", approximate=False)

    def layer_norm(self, x: int, scale: np.ndarray, bias: np.ndarray, epsilon: float) -> int:
        centred = self.sub(x, self._mean(x, -1, keep=True))
        variance = self._mean(self.mul(centred, centred), -1, keep=True)
        variance = self.add(variance, self.constant(np.array(epsilon, np.float32)))
        scaled = self.mul(centred, self._operator("RSQRT", [variance], self._shape(variance)))
        return self.add(self.mul(scaled, self.constant(scale)), self.constant(bias))

    def _mean(self, x: int, axis: int, keep: bool) -> int:
        shape = self._shape(x)
        shape[axis : axis + 1 or None] = [1] if keep else []
        axes = self.constant(np.array([axis], np.int32))
        return self._operator("MEAN", [x, axes], shape, "ReducerOptions", keepDims=keep)

    def mean(self, x: int) -> int:
        return self._mean(x, 1, keep=False)

    def first(self, x: int) -> int:
        shape, place = self._shape(x), self.constant(np.array(0, np.int32))
        return self._operator("GATHER", [x, place], [shape[0], *shape[2:]], "GatherOptions", axis=1)


def write(
    file: Path, config: VideoMAEConfig, normalization: Normalization, params: Any, shape: tuple[int, ...]
) -> None:
    """Write a model from `clips`, uint8 (b, *shape), to `logits` (b, y), both with any b."""
    graph = LiteRTGraph()
    clips = graph.tensor("clips", (1, *shape), np.uint8, True)
    logits = build(graph, clips, config, normalization, params)
    graph.tensors[logits].name = "logits"
    part = schema.SubGraphT()
    part.name, part.tensors, part.operators = "main", graph.tensors, graph.operators
    part.inputs, part.outputs = [clips], [logits]
    model = schema.ModelT()
    model.version, model.description = _VERSION, "videomae-jax"
    model.subgraphs, model.buffers, model.operatorCodes = (
        [part],
        graph.buffers,
        [_code(each) for each in graph.kinds],
    )
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    file.write_bytes(builder.Output())


def _code(kind: int) -> Any:
    code = schema.OperatorCodeT()
    code.builtinCode, code.version = kind, _VERSIONS.get(kind, 1)
    code.deprecatedBuiltinCode = min(kind, 127)  # Where readers of old look, up to what a byte holds.
    return code


_VERSIONS = {schema.BuiltinOperator.FULLY_CONNECTED: 5, schema.BuiltinOperator.TRANSPOSE: 2}
"""Of operators, where the first does not do what is asked of it: to keep axes, to go without a bias."""
