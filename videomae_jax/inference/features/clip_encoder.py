"""A checkpoint of any kind made ready to turn uint8 clips into features, on all devices of this host."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, UInt8

from videomae_jax.checkpoints.trees import params_digest
from videomae_jax.errors import InputError, RunError
from videomae_jax.inference.normalization import Normalization, read_normalization
from videomae_jax.model_config import Dtype, check_rgb
from videomae_jax.models.axes import axis_rules
from videomae_jax.models.blocks import check_arithmetic, compute_dtype
from videomae_jax.models.classification import VideoMAEForVideoClassification
from videomae_jax.models.encoder import BEHIND_THE_ENCODER, VideoMAEModel, VideoMAEModelOutput
from videomae_jax.models.pretrained import fit, load_weights
from videomae_jax.training.memory import out_of_memory_explained, smaller_batches
from videomae_jax.training.sharding import RULES, OnMesh, batch_sharding, make_mesh, replicated
from videomae_jax.versions import version_of

Model = VideoMAEForVideoClassification | VideoMAEModel
Clip = UInt8[np.ndarray, "T H W 3"]

UNNORMALIZED = Normalization((0.0,) * 3, (1.0,) * 3)
"""Pixels in [0, 1] and no more, as VideoMAE V2 extracts features."""


class ClipEncoder:
    """Features of clips: one vector for each, or with `tokens` one for each tubelet.

    `layer` None gives what the checkpoint's own outputs are made of: for a classifier what its head sees, for
    a pre-trained encoder its tokens after its norm, and their mean. A layer from 0 (the embedded tubelets) to
    the number of blocks, or from the end as -1, gives that hidden state, without any norm, and its mean;
    later blocks are not computed. `what` says it in words.
    """

    def __init__(
        self,
        model: Model,
        params: Any,
        normalization: Normalization,
        *,
        layer: int | None = None,
        tokens: bool = False,
        batch_size: int = 8,
    ) -> None:
        check_rgb("extracting features", model.config)
        model, params, self.what = _cut(model, params, layer, tokens)
        self.config, self.normalization = model.config, normalization
        mesh = make_mesh(devices=jax.local_devices())
        self._sharding = batch_sharding(mesh)
        self.batch_size = -(-batch_size // mesh.size) * mesh.size
        self.params = jax.device_put(params, replicated(mesh))
        self.row = (model.config.num_tokens,) * tokens + (model.config.hidden_size,)
        encode = partial(_encode, model=model, normalization=normalization, tokens=tokens)
        self._encode = OnMesh(encode, mesh, (replicated(mesh), self._sharding), self._sharding)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        revision: str | None = None,
        normalized: bool = True,
        layer: int | None = None,
        tokens: bool = False,
        batch_size: int = 8,
        dtype: Dtype = "auto",
    ) -> "ClipEncoder":
        """From a Hugging Face folder or hub id, a work folder or a step folder.

        Pixels are normalised as its preprocessor_config.json says, or as ImageNet is; see the class for the
        other arguments. Raises InputError where there are no such weights or no such layer.
        """
        normalization = read_normalization(source, revision) if normalized else UNNORMALIZED
        model, params = load_model(source, revision, dtype)
        return cls(model, params, normalization, layer=layer, tokens=tokens, batch_size=batch_size)

    def encode(self, clips: Iterable[Clip]) -> Iterator[Float32[np.ndarray, "b ..."]]:
        """Features of clips as they come, some at a time and in order; the next are read meanwhile.

        Raises RunError when they are not finite, or memory runs out.
        """
        clips = iter(clips)
        return self.encode_batches(iter(lambda: list(islice(clips, self.batch_size)), []))

    def encode_batches(self, batches: Iterable[Sequence[Clip]]) -> Iterator[Float32[np.ndarray, "b ..."]]:
        """The same of batches of at most `batch_size` clips."""
        waiting: tuple[jax.Array, int] | None = None
        with out_of_memory_explained(smaller_batches):
            for part in batches:
                filled = np.zeros((self.batch_size, *part[0].shape), np.uint8)
                filled[: len(part)] = part
                started = self._encode(self.params, jax.device_put(filled, self._sharding)), len(part)
                if waiting:
                    yield _fetch(*waiting)
                waiting = started
            if waiting:
                yield _fetch(*waiting)

    def about(self) -> dict[str, Any]:
        """All that decides what the features of a clip are, for JSON."""
        normalization = asdict(self.normalization)
        return {
            "what": self.what,
            "weights": params_digest(self.params),
            "normalization": {name: np.array(value).tolist() for name, value in normalization.items()},
            "dtype": compute_dtype(self.config).name,
            "num_frames": self.config.num_frames,
            "image_size": self.config.image_size,
            "num_attention_heads": self.config.num_attention_heads,
            "version": version_of("videomae-jax"),
        }


def load_model(source: str | Path, revision: str | None, dtype: Dtype) -> tuple[Model, Any]:
    """A classifier where there is a head or fc_norm, else the encoder, with its norm where it has one."""
    config, tensors = load_weights(source, revision)
    config = replace(config, dtype=dtype)
    check_arithmetic(config)
    if "head.weight" in tensors:
        classifier = VideoMAEForVideoClassification(
            config if config.num_labels else replace(config, num_labels=len(tensors["head.weight"]))
        )
        return classifier, fit(source, classifier, tensors)
    if "fc_norm.weight" in tensors:
        pooled = replace(config, num_labels=0, id2label=(), use_mean_pooling=True)
        classifier = VideoMAEForVideoClassification(pooled)
        return classifier, fit(source, classifier, tensors)
    encoder = VideoMAEModel(replace(config, use_mean_pooling="encoder.norm.weight" not in tensors))
    return encoder, fit(source, encoder, tensors, drop=BEHIND_THE_ENCODER)


def _cut(model: Model, params: Any, layer: int | None, tokens: bool) -> tuple[Model, Any, str]:
    """The part of a model whose output is wanted, its parameters, and what it gives in words."""
    pooled = "" if tokens else ", mean over the clip"
    if layer is None:
        if isinstance(model, VideoMAEForVideoClassification):
            if not tokens:
                params = {name: leaf for name, leaf in params.items() if name != "head"}
                mean = "mean of the last block's tokens, then fc_norm"
                corner = "token 0, one corner patch, after the encoder's norm"
                given = mean if model.config.use_mean_pooling else corner
                seen = ": what the classifier's head sees" if model.config.num_labels else ""
                return model, params, given + seen
            model = VideoMAEModel(model.config)
        norm = "without a norm" if model.config.use_mean_pooling else "after the encoder's norm"
        return model, {"encoder": params["encoder"]}, f"the last block's tokens {norm}{pooled}"
    layers = model.config.num_hidden_layers
    if not -layers - 1 <= layer <= layers:
        raise InputError(f"--layer {layer}: this model has the layers 0 to {layers}, or -1 for the last")
    layer = range(layers + 1)[layer]
    encoder = {name: leaf for name, leaf in params["encoder"].items() if name != "norm"}
    encoder["blocks"] = jax.tree.map(lambda leaf: leaf[:layer], encoder["blocks"])
    cut = VideoMAEModel(replace(model.config, num_hidden_layers=layer, use_mean_pooling=True))
    given = f"tokens after block {layer} of {layers}" if layer else "embedded tubelets with their positions"
    return cut, {"encoder": encoder}, f"{given}, without a norm{pooled}"


def _encode(
    params: Any,
    clips: UInt8[Array, "b T H W c"],
    *,
    model: Model,
    normalization: Normalization,
    tokens: bool,
) -> Float[Array, "b ..."]:
    pixels = normalization(clips)
    with axis_rules(RULES):
        if isinstance(model, VideoMAEForVideoClassification):
            return model.apply({"params": params}, pixels, method="features")[0]
        given = cast(VideoMAEModelOutput, model.apply({"params": params}, pixels)).last_hidden_state
    return given.astype(jnp.float32) if tokens else given.mean(axis=1, dtype=jnp.float32)


def _fetch(features: jax.Array, count: int) -> Float32[np.ndarray, "b ..."]:
    rows = np.asarray(features)[:count]
    if not np.isfinite(rows).all():
        raise RunError(
            "the features are not finite: the weights hold NaN or infinity, or overflow in their dtype"
        )
    return rows
