"""The teacher of a distillation: a trained classifier, frozen, that is shown the student's clips."""

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import jax

from videomae_jax.checkpoints.processing_json import read_processing
from videomae_jax.checkpoints.source import read_config_of
from videomae_jax.checkpoints.trees import params_digest
from videomae_jax.class_names import same_classes
from videomae_jax.config import FinetuneConfig
from videomae_jax.errors import InputError
from videomae_jax.model_config import VideoMAEConfig, are_numbers, check_rgb
from videomae_jax.models.blocks import Params, compute_dtype
from videomae_jax.models.classification import VideoMAEForVideoClassification
from videomae_jax.models.head import Rows, picked_rows
from videomae_jax.models.pretrained import load_weights
from videomae_jax.processing import Processing
from videomae_jax.sizes import SIZES

Pixels = tuple[tuple[float, ...], tuple[float, ...], float]
"""Mean, standard deviation and scale of a normalisation: pixels from 0 to 255 times the scale, less the mean,
divided by the deviation."""
_SHOWN = 5


class Teacher(NamedTuple):
    """The weights of a teacher."""

    params: Params
    """In the dtype that the student computes in; the head has a row for each of its classes."""
    digest: str
    """Of the weights as they were read."""


def teacher_config(config: FinetuneConfig) -> VideoMAEConfig | None:
    """The model of the teacher on the student's clips and for its classes; None where there is none.

    Raises InputError for a teacher that cannot be run on them.
    """
    if not (config.teacher or config.teacher_size):
        return None
    return _on_clips_of(config.model, config.teacher, config.teacher_size)


@functools.lru_cache
def _on_clips_of(student: VideoMAEConfig, source: str | None, size: str | None) -> VideoMAEConfig:
    own = read_config_of(source) if source else SIZES[size or ""]
    check_rgb("training", own)
    alike = ("image_size", "num_frames", "num_labels", "id2label", "problem_type", "dtype", "attention")
    try:
        return replace(
            own, drop_path=0.0, head_dropout=0.0, **{name: getattr(student, name) for name in alike}
        ).following(own)
    except ValueError as error:
        raise InputError(f"{source or size}, the teacher, cannot see the student's clips: {error}") from error


@functools.lru_cache
def teacher_pixels(source: str | None) -> Pixels | None:
    """How the teacher's pixels are normalised; None for ImageNet's, as the student's are."""
    said = read_processing(source) if source else None
    return None if said is None or said.normalizes_like(Processing()) else said.normalization


def read_teacher(config: FinetuneConfig) -> Teacher:
    """The weights that `config.teacher` names; raises InputError where they do not know all classes."""
    source, seen_as = config.teacher, teacher_config(config)
    assert source
    assert seen_as

    own, tensors = load_weights(source)
    head = tensors.get("head.weight")
    if head is None or own.score_kind != "softmax":
        lacks = "has no classification head" if head is None else "is no classifier for one class of several"
        raise InputError(f"--teacher {source} {lacks}: name a fine-tuned model")
    digest = params_digest(tensors)
    names = own.id2label if len(own.id2label) == len(head) else tuple(map(str, range(len(head))))
    rows = _rows(source, names, config.model.id2label)
    if rows != tuple(range(len(head))):
        tensors |= picked_rows(tensors, rows, 0.0, jax.random.key(0))
    dtype = compute_dtype(config.model)
    tensors = {name: tensor.astype(dtype) for name, tensor in tensors.items()}
    return Teacher(VideoMAEForVideoClassification(seen_as).take(source, tensors), digest)


def _rows(source: str, known: Sequence[str], wanted: Sequence[str]) -> Rows:
    """Which row of the teacher's head is of which class of the student."""
    named = [not are_numbers(names) for names in (known, wanted)]
    if not any(named) and len(known) == len(wanted):
        return tuple(range(len(known)))
    if not all(named):
        which = "the teacher knows no names of classes: write them into its id2label"
        if named[0] or not any(named):
            which = f"the videos have {len(wanted)} classes without names: give --data.classes"
        raise InputError(f"--teacher {source} has {len(known)} classes, and {which}")
    rows = same_classes(wanted, known)
    if missing := [name for name, row in zip(wanted, rows, strict=True) if row is None]:
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        raise InputError(
            f"--teacher {source} does not know {len(missing)} of the {len(wanted)} classes of the videos: "
            f"{', '.join(missing[:_SHOWN])}{more}. A student learns the classes of its teacher only"
        )
    return rows
