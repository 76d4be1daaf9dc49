"""The classifier: encoder over all tokens, their mean, a norm and a linear head."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from videomae_jax.checkpoints.architecture import Kind
from videomae_jax.checkpoints.origin import Origin
from videomae_jax.errors import InputError
from videomae_jax.model_config import VideoMAEConfig, are_numbers
from videomae_jax.models.blocks import Params
from videomae_jax.models.encoder import Encoder, HiddenStates, all_tubelets
from videomae_jax.models.head import picked_rows, rows_to_start_with
from videomae_jax.models.patches import check_bound
from videomae_jax.models.pretrained import (
    Pretrained,
    changed,
    compare_for_training,
    fit,
    load,
    load_weights,
    taken,
)
from videomae_jax.processing import Processing

log = logging.getLogger(__name__)

kernel_init = nn.initializers.normal(0.02)
_BY_TOKEN_0 = (
    "%s says use_mean_pooling=false: it classifies by token 0, one corner patch of the first frames, and not "
    "by a CLS token, which VideoMAE lacks. It is run as it was trained; a new classifier does better with "
    "the mean of all tokens."
)
_TRAINING_ONLY = ("decoder.", "mask_token", "encoder_to_decoder.", "encoder.norm.")


@flax.struct.dataclass
class VideoMAEForVideoClassificationOutput:
    """`logits` (b, y), float32, and `hidden_states` on request: the embedding's and every layer's."""

    logits: jax.Array
    hidden_states: tuple[jax.Array, ...] | None = None


class VideoMAEForVideoClassification(Pretrained):
    """VideoMAE with a head for `config.num_labels` classes.

    With `config.use_mean_pooling` the mean of all tokens goes through fc_norm to the head. Without, token 0
    of the encoder's norm does: there is no CLS token, so that is the first frames' top left corner.

    For no classes there is no head, and what it would see are the logits: V2's feature models on the hub.
    """

    kind: ClassVar[Kind] = "classification"

    init_scale: float = 0.001
    """Factor on a fresh head, with which the original lets every class start out equally likely."""

    def setup(self) -> None:
        config = self.config
        self.encoder = Encoder(config, norm=not config.use_mean_pooling, kernel_init=kernel_init)
        if config.use_mean_pooling:
            self.fc_norm = nn.LayerNorm(epsilon=config.fc_norm_eps)
        self.dropout = nn.Dropout(config.head_dropout)
        if config.num_labels:
            init = nn.initializers.normal(self._head_std)
            self.head = nn.Dense(config.num_labels, kernel_init=init)

    @property
    def _head_std(self) -> float:
        """Standard deviation of a fresh head."""
        return 0.02 * self.init_scale

    def features(
        self,
        pixel_values: Float[Array | np.ndarray, "..."],
        output_hidden_states: bool = False,
        deterministic: bool = True,
    ) -> tuple[Float[Array, "b d"], HiddenStates | None]:
        """What the head sees of normalised clips, in float32."""
        check_bound(self, "pixel_values")
        tubelets = all_tubelets(pixel_values, self.config)
        tokens, hidden_states = self.encoder(tubelets, None, output_hidden_states, deterministic)
        if self.config.use_mean_pooling:
            return self.fc_norm(tokens.mean(axis=1, dtype=jnp.float32)), hidden_states
        return tokens[:, 0].astype(jnp.float32), hidden_states

    def __call__(
        self,
        pixel_values: Float[Array | np.ndarray, "..."],
        output_hidden_states: bool = False,
        deterministic: bool = True,
    ) -> VideoMAEForVideoClassificationOutput:
        """Classify normalised clips (b, T, H, W, c); raises ValueError where a shape does not fit.

        For training, pass `deterministic=False` and an rng "dropout": it then drops paths and features.
        """
        features, hidden_states = self.features(pixel_values, output_hidden_states, deterministic)
        logits = self.head(self.dropout(features, deterministic)) if self.config.num_labels else features
        return VideoMAEForVideoClassificationOutput(logits=logits, hidden_states=hidden_states)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        revision: str | None = None,
        subfolder: str = "",
        local_files_only: bool = False,
        num_labels: int | None = None,
        id2label: Mapping[int, str] | Sequence[str] | None = None,
        label2id: Mapping[str, int] | None = None,
        key: jax.Array | None = None,
        **changes: Any,
    ) -> tuple["VideoMAEForVideoClassification", Params]:
        """A classifier, or the start of one, from a checkpoint of any kind.

        Args:
          source: a Hugging Face folder or hub id, a work folder or a step folder.
          subfolder, local_files_only: where in `source`; and whether the hub is not to be asked.
          num_labels, id2label, label2id: the classes, by default those of the checkpoint's head. Another
            number of classes, or a checkpoint without a head, means a fresh head drawn from `key`, and a
            fresh fc_norm where there is none; such a model pools by mean. What is left out or drawn is
            logged.
          changes: fields of the configuration that shall differ, as dtype="bfloat16".

        Raises InputError, listing all that does not fit.
        """
        config, tensors, processing, origin = load(
            source, cls.kind, revision, subfolder, local_files_only, changes
        )
        old_names = config.id2label
        classes = {"num_labels": num_labels, "id2label": id2label, "label2id": label2id}
        if asked := {name: value for name, value in classes.items() if value is not None}:
            config = changed(config, asked)
        head = tensors.get("head.weight")
        if head is None or (asked and len(head) != config.num_labels):
            return cls._start_from(source, config, tensors, key, processing, origin)
        if config.num_labels == 0:  # transformers does not write down the names of two nameless classes
            config = replace(config, num_labels=len(head))
        if not are_numbers(old_names) and old_names != config.id2label:
            log.warning(
                "%s: its head is kept and its classes are renamed, %r to %r for one; draw another head where "
                "they are other classes",
                source,
                *next(pair for pair in zip(old_names, config.id2label, strict=True) if pair[0] != pair[1]),
            )
        if not config.use_mean_pooling:
            log.warning(_BY_TOKEN_0, source)
        model = cls(config, processing=processing, origin=origin)
        return model, model.take(source, tensors)

    @classmethod
    def _start_from(
        cls,
        source: str | Path,
        config: VideoMAEConfig,
        tensors: dict[str, np.ndarray],
        key: jax.Array | None,
        processing: Processing | None,
        origin: Origin,
    ) -> tuple["VideoMAEForVideoClassification", Params]:
        if config.num_labels == 0:
            raise InputError(
                f"{source} has no classification head: train one with videomae-jax finetune --init-from, or "
                "in Python pass num_labels=... or id2label=..., and key=jax.random.key(...)"
            )
        if "head.weight" in tensors:
            log.warning("%s: its head of %d classes is left out", source, len(tensors["head.weight"]))
        model = cls(replace(config, use_mean_pooling=True), processing=processing, origin=origin)
        return model, model._fit_encoder(source, tensors, key)

    @nn.nowrap
    def start_from(self, source: str | Path, key: jax.Array) -> tuple[Params, str]:
        """Parameters with which to start fine-tuning, from a checkpoint of any kind, and whose head it is.

        Rows of the head are taken for the classes that they are of, by name, else drawn from `key`, as is a
        missing fc_norm; what is left out or drawn is logged. Raises InputError, listing all that does not
        fit.
        """
        config, tensors = load_weights(source)
        compare_for_training(source, config, self.config, taken(self.kind, tensors))
        head = tensors.get("head.weight")
        if head is None:
            return self._fit_encoder(source, tensors, key), "drawn anew: the weights have none"
        names = config.id2label if len(config.id2label) == len(head) else tuple(map(str, range(len(head))))
        rows, said = rows_to_start_with(names, self.config.id2label)
        if config.score_kind == "value":
            said = "drawn anew: the weights are a regression's, whose outputs are values, not classes"
            rows = None
        log.warning("%s: the head is %s", source, said)
        if rows is None:
            return self._fit_encoder(source, tensors, key), said
        if rows != tuple(range(len(head))):
            tensors |= picked_rows(tensors, rows, self._head_std, key)
        return fit(source, self, tensors, drop=_TRAINING_ONLY, fresh=("fc_norm",), key=key), said

    @nn.nowrap
    def _fit_encoder(
        self, source: str | Path, tensors: dict[str, np.ndarray], key: jax.Array | None
    ) -> Params:
        kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("head.")}
        return fit(source, self, kept, drop=_TRAINING_ONLY, fresh=("fc_norm", "head"), key=key)

    @nn.nowrap
    def init_params(self, key: jax.Array) -> Params:
        """Fresh parameters, drawn as the original draws them for fine-tuning."""
        if not self.config.num_labels:
            raise ValueError("a classifier needs classes: give its config num_labels=... or id2label=...")
        return super().init_params(key)
