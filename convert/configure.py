"""The configuration of a checkpoint: what its tensors imply, what it says, the user says; never a guess."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from videomae_jax.checkpoints.architecture import (
    SHOWN_BY_SIZE,
    Kind,
    check_tensors,
    correct_heads,
    differing,
    infer_fields,
    kind_of,
    published_size,
    two_columns,
)
from videomae_jax.checkpoints.comparison import resized_here_alone, size_change
from videomae_jax.data.labels import read_classes
from videomae_jax.errors import InputError
from videomae_jax.model_config import FrameSize, VideoMAEConfig
from videomae_jax.sizes import SIZES

from .read import Source

SIZE = Literal["small", "base", "large", "huge", "giant"]
HEADS = "num_attention_heads"
DECODER_HEADS = "decoder_num_attention_heads"


@dataclass(frozen=True)
class Architecture:
    """What tensors cannot tell of a checkpoint, or what to check it against."""

    model: SIZE | None = None
    """The published size; says how many heads there are."""
    num_heads: int | None = None
    """Attention heads of the encoder."""
    decoder_num_heads: int | None = None
    """Attention heads of the decoder."""
    image_size: int | FrameSize | None = None
    """Side of clips in pixels, or height and width; 224 where nothing else is known."""
    num_frames: int | None = None
    """Frames of a clip; 16 where nothing else is known."""
    tubelet_size: int | None = None
    """Frames of a tubelet; checked against the patch embedding."""
    pooling: Literal["mean", "first"] | None = None
    """How a classifier pools tokens; checked against its norms."""


@dataclass(frozen=True)
class Configured:
    """A complete configuration, where each field that tensors cannot tell came from, and warnings."""

    config: VideoMAEConfig
    origins: Mapping[str, str]
    warnings: tuple[str, ...]


def configure(source: Source, flags: Architecture) -> Configured:
    """Settle the configuration of a checkpoint; raises InputError where it is open or contradictory."""
    found = infer_fields(source.name, source.tensors)
    kind = kind_of(source.tensors)
    _compare(source.name, "the flags", _checkable(flags), found)
    stated, warnings = source.config, []
    if stated is not None:
        _compare(source.name, "its description", _described(stated, found), found)
        if flags.num_heads is None and flags.model is None:
            stated, warning = correct_heads(source.name, stated)
            warnings += [warning] if warning else []
    chosen = _choose(source, flags, stated, found)
    if kind == "pretraining" and flags.pooling:
        chosen["use_mean_pooling"] = (flags.pooling == "mean", "--pooling")
    if stated is not None and stated.layer_scale:
        chosen["layer_scale"] = stated.layer_scale, "the checkpoint's description"
    values = found | {name: value for name, (value, _) in chosen.items()}
    if not found.get("num_labels"):
        values |= {"num_labels": 0, "id2label": ()} if kind == "classification" else {}
    try:
        config = replace(stated or VideoMAEConfig(), **values)
        config = config.following(stated) if stated else config
    except ValueError as error:
        raise InputError(f"{source.name}: {error} (--num-heads, --image-size, --num-frames)") from error
    check_tensors(source.name, source.tensors, config)
    warnings += _changes(source, stated, config) + _explain(source, config, kind)
    return Configured(config, {name: origin for name, (_, origin) in chosen.items()}, tuple(warnings))


def with_classes(settled: Configured, file: Path) -> Configured:
    """With the names that a file has for the rows of the head; raises InputError for fewer or more."""
    names, count = read_classes(file).names, settled.config.num_labels
    if len(names) != count:
        raise InputError(f"{file} names {len(names)} classes, but the head has {count} rows")
    return replace(settled, config=settled.config.changed(id2label=names))


def _described(stated: VideoMAEConfig, found: Mapping[str, Any]) -> dict[str, Any]:
    """What a description says that tensors can contradict."""
    said = dict(vars(stated))
    del said["encoder_norm"]  # Hugging Face has no word for it.
    if bool(stated.layer_scale) == bool(found["layer_scale"]):
        del said["layer_scale"]  # Its first value, which tensors do not tell.
    if not stated.num_labels or not found.get("num_labels"):
        del said["num_labels"]
    return said


def _checkable(flags: Architecture) -> dict[str, Any]:
    """The flags that tensors can contradict."""
    said: dict[str, Any] = {}
    if flags.tubelet_size is not None:
        said["tubelet_size"] = flags.tubelet_size
    said |= {
        name: heads
        for name, heads in ((HEADS, flags.num_heads), (DECODER_HEADS, flags.decoder_num_heads))
        if heads is not None
    }
    if flags.pooling is not None:
        said["use_mean_pooling"] = flags.pooling == "mean"
    if flags.model is not None:
        size = SIZES[flags.model]
        said |= {name: getattr(size, name) for name in SHOWN_BY_SIZE}
    return said


def _compare(source: str, who: str, said: Mapping[str, Any], found: Mapping[str, Any], so: str = "") -> None:
    """Raise InputError, and say `so`, where tensors contradict what is said of them."""
    if rows := differing(said, found, [name for name in said if name in found]):
        table = two_columns(who, "its tensors", rows)
        raise InputError(f"{source}: its tensors contradict {who}.\n{table}{so}")


def _choose(
    source: Source, flags: Architecture, stated: VideoMAEConfig | None, found: Mapping[str, Any]
) -> dict[str, tuple[Any, str]]:
    """The fields that tensors cannot tell, each with where it came from."""
    flag_of = {HEADS: flags.num_heads}
    if kind_of(source.tensors) == "pretraining":
        flag_of[DECODER_HEADS] = flags.decoder_num_heads
    size = flags.model or _size_in_args(source, found, heads_given=None not in flag_of.values())
    chosen: dict[str, tuple[Any, str]] = {}
    for name, flag in flag_of.items():
        if name in found:
            chosen[name] = found[name], "its cosine attention"
        elif flag is not None:
            chosen[name] = flag, _option(name)
        elif size is not None and (heads := _published_heads(size, name, found)) is not None:
            chosen[name] = heads, f"the published {size} model"
        elif stated is not None:
            chosen[name] = getattr(stated, name), "the checkpoint's description"
    if unknown := [f"{_option(name)} N" for name in flag_of if name not in chosen]:
        hint = published_size(found)
        like = f"; its encoder is as large as the published {hint} model, and --model {hint} says it is that"
        raise InputError(
            f"{source.name}: tensors do not tell the number of attention heads, and a wrong one goes "
            f"unnoticed. Give {' and '.join(unknown)}{like if hint else ''}"
        )
    return chosen | _clip_size(source, flags, stated)


def _option(name: str) -> str:
    """The option that sets a field."""
    return f"--{name.replace('attention_', '').replace('_', '-')}"


def _clip_size(
    source: Source, flags: Architecture, stated: VideoMAEConfig | None
) -> dict[str, tuple[Any, str]]:
    """Image size and frames: what is asked for, what is said, or what the published models have."""
    chosen: dict[str, tuple[Any, str]] = {}
    for name, argument in (("image_size", "input_size"), ("num_frames", "num_frames")):
        if (flag := getattr(flags, name)) is not None:
            chosen[name] = flag, _option(name)
        elif stated is not None:
            chosen[name] = getattr(stated, name), "the checkpoint's description"
        elif type(value := source.args.get(argument)) is int:
            segments = source.args.get("num_segments") if name == "num_frames" else None
            parts = segments if type(segments) is int and segments > 1 else 1
            times = f" x --num_segments {parts}" if parts > 1 else ""
            chosen[name] = parts * value, f"the training run's --{argument}{times}"
        else:
            chosen[name] = getattr(VideoMAEConfig(), name), "the published models"
    return chosen


def _published_heads(size: str, name: str, found: Mapping[str, Any]) -> int | None:
    if name == HEADS:
        return getattr(SIZES[size], HEADS)
    for each in (SIZES[size], SIZES["giant"]):  # V2 gives every size from large on the decoder of giant.
        if found.get("decoder_hidden_size") == each.decoder_hidden_size:
            return each.decoder_num_attention_heads
    return None


def _size_in_args(source: Source, found: Mapping[str, Any], heads_given: bool) -> str | None:
    """The size in the original's model name, such as pretrain_videomae_base_patch16_224.

    Raises InputError where the tensors are of another size, unless the user says how many heads there are.
    """
    model = str(source.args.get("model", ""))
    match = re.search(rf"({'|'.join(SIZES)})_patch\d+", model)
    if match is None:
        return None
    said = {name: getattr(SIZES[match[1]], name) for name in SHOWN_BY_SIZE}
    if all(said[name] == found[name] for name in SHOWN_BY_SIZE):
        return match[1]
    if not heads_given:
        so = (
            "\nSo the number of attention heads is open, and a wrong one goes unnoticed: give --num-heads N "
            "(and --decoder-num-heads N), or --model with its size"
        )
        _compare(source.name, f"the run that it names, --model {model}", said, found, so)
    return None


def _changes(source: Source, stated: VideoMAEConfig | None, config: VideoMAEConfig) -> list[str]:
    """Warnings of what flags change of a checkpoint that says what it is."""
    if stated is None:
        return []
    heads = [
        f"{source.name} says {name} = {getattr(stated, name)}, and {_option(name)} makes it "
        f"{getattr(config, name)}: every tensor fits either, and outputs differ."
        for name in (HEADS, DECODER_HEADS)
        if getattr(stated, name) != getattr(config, name)
    ]
    resized = size_change(source.name, stated, config)
    return heads + ([resized] if resized else [])


def _explain(source: Source, config: VideoMAEConfig, kind: Kind) -> list[str]:
    """Warnings of what is legal and odd."""
    said = []
    if kind == "classification" and not config.use_mean_pooling:
        said.append(
            f"{source.name} pools nothing: it classifies from token 0, which is one corner patch of the "
            "first frames, not a CLS token. Models fine-tuned from the hub's pre-trained ones inherited that "
            "from use_mean_pooling: false; the original averages all tokens."
        )
    if kind == "classification" and not config.num_labels:
        said.append(
            f"{source.name} has fc_norm and no head, as VideoMAE V2's on the hub: it gives one vector for a "
            "clip and no classes."
        )
    if kind == "encoder":
        said.append(
            f"{source.name} has neither a decoder nor a head (as the published V1 ViT-H pre-training file): "
            "it becomes a bare encoder."
        )
    if resized := resized_here_alone(source.name, config):
        said.append(resized)
    with np.errstate(invalid="ignore"):
        sums = {name: tensor.sum(dtype=np.float64) for name, tensor in source.tensors.items()}
    if bad := [name for name, total in sums.items() if not np.isfinite(total)]:
        said.append(f"{source.name} has values that are infinite or no numbers in {', '.join(bad[:8])}.")
    return said
