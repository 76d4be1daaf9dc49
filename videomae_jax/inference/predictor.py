"""A classifier made ready for uint8 clips: on all devices, with the normalisation of its training."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Float32, UInt8

from videomae_jax.inference.normalization import Normalization, read_normalization
from videomae_jax.model_config import Dtype, VideoMAEConfig, check_rgb
from videomae_jax.models.axes import axis_rules
from videomae_jax.models.classification import (
    VideoMAEForVideoClassification,
    VideoMAEForVideoClassificationOutput,
)
from videomae_jax.training.sharding import RULES, OnMesh, batch_sharding, make_mesh, replicated


class Predictor:
    """A classifier on a mesh of all devices. `config` is the model's; parameters lie whole on each device."""

    def __init__(
        self, config: VideoMAEConfig, params: Any, normalization: Normalization | None = None
    ) -> None:
        """Place `params`, which every process holds whole; raises InputError for a model of no RGB videos."""
        check_rgb("scoring", config)
        self.config, self.normalization = config, normalization or Normalization()
        self.mesh = make_mesh()
        everywhere = replicated(self.mesh)
        self.params = jax.tree.map(
            lambda leaf: jax.make_array_from_process_local_data(everywhere, np.asarray(leaf)), params
        )
        self._classify = scoring_step(self.mesh, config, self.normalization)

    @classmethod
    def from_pretrained(
        cls, source: str | Path, *, revision: str | None = None, dtype: Dtype = "auto"
    ) -> "Predictor":
        """From a Hugging Face folder or hub id, a work folder or a step folder.

        Raises InputError where there is no classifier.
        """
        model, params = VideoMAEForVideoClassification.from_pretrained(source, revision=revision, dtype=dtype)
        return cls(model.config, params, read_normalization(source, revision))

    def among(self, numbers: Sequence[int], names: Sequence[str]) -> "Predictor":
        """One that chooses among some of its classes only, given by number and name; two or more."""
        head = {part: np.asarray(leaf)[..., list(numbers)] for part, leaf in self.params["head"].items()}
        config = self.config.changed(id2label=tuple(names))
        return Predictor(config, self.params | {"head": head}, self.normalization)

    def start(self, clips: UInt8[np.ndarray, "b T H W c"]) -> jax.Array:
        """Start to classify this process's part of a batch: scores (b, y) that `rows` waits for.

        All processes must call it with as many clips, a multiple of the devices of each.
        """
        return self._classify(
            self.params, jax.make_array_from_process_local_data(batch_sharding(self.mesh), clips)
        )


def scoring_step(mesh: Mesh, config: VideoMAEConfig, normalization: Normalization) -> OnMesh:
    """Scores (b, y) from parameters, which lie whole on each device, and clips (b, T, H, W, c)."""
    batch = batch_sharding(mesh)
    scores = partial(_scores, config=config, normalization=normalization)
    return OnMesh(scores, mesh, (replicated(mesh), batch), batch)


def _scores(
    params: Any, clips: UInt8[Array, "b T H W c"], *, config: VideoMAEConfig, normalization: Normalization
) -> Float[Array, "b y"]:
    with axis_rules(RULES):
        output = VideoMAEForVideoClassification(config).apply({"params": params}, normalization(clips))
    assert isinstance(output, VideoMAEForVideoClassificationOutput)
    logits = output.logits.astype(jnp.float32)
    if config.score_kind == "value":
        return logits
    return jax.nn.sigmoid(logits) if config.score_kind == "sigmoid" else jax.nn.softmax(logits)


def rows(split: jax.Array) -> Float32[np.ndarray, "b y"]:
    """The rows of a batch that this process put in, in its order."""
    shards = sorted(split.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return np.concatenate([np.asarray(shard.data) for shard in shards])
