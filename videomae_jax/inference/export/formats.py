"""What there is to export to: what each needs, how it is run, and what is promised of it."""

from dataclasses import dataclass
from typing import Literal

Format = Literal["stablehlo", "onnx", "tflite"]


@dataclass(frozen=True)
class Form:
    """A format. `example` defines `score`, from clips to logits, out of the file `FILE`."""

    title: str
    needs: tuple[str, ...]
    """Modules without which it can be neither written nor tried."""
    packages: tuple[str, ...]
    """Those that have a say in what the file is."""
    example: str
    promise: str


FORMS: dict[Format, Form] = {
    "stablehlo": Form(
        "StableHLO, serialised by jax.export, for CPUs, CUDA GPUs and TPUs",
        (),
        ("jaxlib",),
        """\
import jax
import numpy as np
from jax import export

model = export.deserialize(bytearray(open(FILE, "rb").read()))
call = jax.jit(model.call)


def score(clips):
    return np.asarray(call(clips))
""",
        "jax.export promises that versions of JAX and its compiler run the file which are up to 6 months "
        "newer than those that wrote it, or up to 3 weeks older. For longer, keep the checkpoint and export "
        "again.",
    ),
    "onnx": Form(
        "ONNX, operation set 17, IR version 8",
        ("onnx", "onnxruntime"),
        ("onnx", "onnxruntime"),
        """\
import onnxruntime

model = onnxruntime.InferenceSession(FILE, providers=["CPUExecutionProvider"])


def score(clips):
    return model.run(["logits"], {"clips": clips})[0]
""",
        "ONNX keeps the meaning of an operation set; runtimes read those of earlier years.",
    ),
    "tflite": Form(
        "LiteRT (TensorFlow Lite), float32",
        ("ai_edge_litert", "flatbuffers"),
        ("ai-edge-litert",),
        """\
from ai_edge_litert.interpreter import Interpreter

model = Interpreter(model_path=FILE)
clips_in, logits_out = model.get_input_details()[0]["index"], model.get_output_details()[0]["index"]


def score(clips):
    model.resize_tensor_input(clips_in, clips.shape)
    model.allocate_tensors()
    model.set_tensor(clips_in, clips)
    model.invoke()
    return model.get_tensor(logits_out)
""",
        "LiteRT reads all files of version 3 of its format, which this is.",
    ),
}
