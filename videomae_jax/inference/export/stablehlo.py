"""A classifier as StableHLO, by jax.export: one file for CPUs, GPUs and TPUs, run by JAX alone."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import export
from jaxtyping import Array, Float32, UInt8

from videomae_jax.hardware import Hardware
from videomae_jax.inference.normalization import Normalization
from videomae_jax.model_config import VideoMAEConfig
from videomae_jax.models.classification import (
    VideoMAEForVideoClassification,
    VideoMAEForVideoClassificationOutput,
)
from videomae_jax.models.compiled_for import compiling_for

PLATFORMS = ("cpu", "cuda", "tpu")


def classifier(
    config: VideoMAEConfig, normalization: Normalization
) -> Callable[[Any, UInt8[Array, "b T H W c"]], Float32[Array, "b y"]]:
    """Logits from parameters and clips, in float32, and attending in the way that every platform can."""
    model = VideoMAEForVideoClassification(replace(config, dtype="float32", attention="blockwise"))

    def logits(params: Any, clips: UInt8[Array, "b T H W c"]) -> Float32[Array, "b y"]:
        with compiling_for(Hardware("gpu", "any")):  # A CPU's loop over heads would leave most of a GPU idle.
            output = model.apply({"params": params}, normalization(clips))
        assert isinstance(output, VideoMAEForVideoClassificationOutput)
        return output.logits

    return logits


def write(
    file: Path, config: VideoMAEConfig, normalization: Normalization, params: Any, shape: tuple[int, ...]
) -> None:
    """Write a function from clips, uint8 (b, *shape), to logits (b, y), for any b, in float32."""
    logits = partial(classifier(config, normalization), params)
    (batch,) = export.symbolic_shape("b")
    clips = jax.ShapeDtypeStruct((batch, *shape), jnp.uint8)
    file.write_bytes(export.export(jax.jit(logits), platforms=PLATFORMS)(clips).serialize())
