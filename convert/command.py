"""`convert SOURCE TARGET --to FORM` and `convert verify A B`: arguments in, exit code out."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from videomae_jax.checkpoints.architecture import kind_of
from videomae_jax.checkpoints.config_json import check_can_be_read
from videomae_jax.checkpoints.hugging_face import CARD
from videomae_jax.checkpoints.model_card import model_card, users_card
from videomae_jax.checkpoints.origin import origin_of
from videomae_jax.command_line import parse
from videomae_jax.errors import InputError, RunError
from videomae_jax.files import check_path, read_json, write_json, write_text
from videomae_jax.model_config import VideoMAEConfig
from videomae_jax.processing import Processing
from videomae_jax.versions import command_line, version_of

from .configure import Architecture, Configured, configure, with_classes
from .publish import RECORD, check_free, publishing, record_beside
from .read import Source, digests, need_torch, read_source, select_rows
from .verify.compare import compare, table
from .write import Form, cast, write_hugging_face, write_orbax, write_torch

LICENCE = (
    "Weights that MCG-NJU and OpenGVLab published are under CC-BY-NC 4.0: not for commercial use. "
    "A conversion does not change the licence of weights."
)
ORIGINAL_EPS: dict[str, Any] = {"layer_norm_eps": 1e-6, "decoder_norm_eps": 1e-6, "fc_norm_eps": 1e-6}
Flat = Annotated[Architecture, tyro.conf.arg(name="", prefix_name=False)]


@dataclass(frozen=True)
class Convert:
    """Convert a VideoMAE checkpoint into another form. `convert verify A B` compares two."""

    source: tyro.conf.Positional[str]
    """A .pth, .bin or .safetensors file, a Hugging Face folder or hub id, a step folder, or a work folder
    (its best step, or else its newest)."""
    target: tyro.conf.Positional[Path]
    """The folder to make, or for `--to torch` the .pth file."""
    to: Form
    """hf: config.json and model.safetensors; orbax: a work folder; torch: a .pth as the original saves it."""
    key: str | None = None
    """The entry of a .pth with the weights, such as model_ema; by default model, module or state_dict."""
    architecture: Flat = field(default_factory=Architecture)
    dtype: Literal["keep", "float32", "float16", "bfloat16"] = "keep"
    """Dtype of the written tensors; by default that of each tensor in the source."""
    label_map: Path | None = None
    """JSON list of the head's rows to keep: V2's label_710to400.json makes a K710 head one for K400."""
    classes: Path | None = None
    """A file with the name of each class on a line, in the order of the head's rows, which pickles lack."""
    verify: bool = False
    """Run PyTorch on the source and this package on the result; keep the result only if they agree."""
    force: bool = False
    """Replace an earlier conversion at the target."""


@dataclass(frozen=True)
class Verify:
    """Run PyTorch (transformers) on one checkpoint and this package on another, and compare every stage."""

    a: tyro.conf.Positional[str]
    """The checkpoint that PyTorch runs."""
    b: tyro.conf.Positional[str]
    """The checkpoint that this package runs."""
    key: str | None = None
    """The entry of a .pth with the weights, such as model_ema; by default model, module or state_dict."""
    architecture: Flat = field(default_factory=Architecture)


def run(arguments: Sequence[str]) -> int:
    """Run the program; raises InputError for what a user can fix."""
    try:
        if arguments[:1] and arguments[0] == "verify":
            return _verify(parse(Verify, "convert verify", arguments[1:]))
        return _convert(parse(Convert, "convert", arguments))
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        return 130


def _convert(asked: Convert) -> int:
    _check_target(asked)
    if asked.to == "torch":
        need_torch("--to torch writes a pickle of PyTorch")
    if asked.verify:
        _need_reference()
    source = read_source(asked.source, asked.key)
    if asked.label_map:
        source = select_rows(source, _read_label_map(asked.label_map))
    settled = configure(source, asked.architecture)
    if asked.classes:
        settled = with_classes(settled, asked.classes)
    if asked.to == "hf" or asked.verify:
        check_can_be_read("transformers", settled.config, kind_of(source.tensors))
    if asked.to == "torch":
        check_can_be_read("the original code", settled.config, kind_of(source.tensors))
    _warn(source, settled)
    record = _record(asked, source, settled)
    card = users_card(asked.target) if asked.target.is_dir() else None
    kind, count = kind_of(source.tensors), len(source.tensors)
    with publishing(asked.target, asked.force) as partial:
        _write(asked, partial, settled.config, source, record)
        if card is not None and asked.to != "torch":
            write_text(partial / CARD, card, "surrogateescape")
        if asked.verify:
            _verify_result(asked, source, settled, partial)
        if asked.to == "torch":
            with publishing(record_beside(asked.target), force=True) as beside:
                write_json(beside, record)
        else:
            write_json(partial / RECORD, record)
    print(f"{asked.target}: {count} tensors for {kind}")
    for name, (value, origin) in record["said"].items():
        print(f"  {name} = {value}, from {origin}")
    print(LICENCE)
    return 0


def _need_reference() -> None:
    """Raise InputError unless the models of transformers can run."""
    need_torch("verification runs transformers' models")
    if find_spec("transformers") is None:
        raise InputError(
            "verification runs transformers' models: pip install 'transformers>=5.15', or leave it out"
        )


def _check_target(asked: Convert) -> None:
    """Refuse, before any work, a target that cannot be."""
    check_path(asked.target, "the target")
    if asked.to == "torch" and asked.target.suffix not in (".pth", ".pt"):
        raise InputError(f"--to torch makes a file: name the target {asked.target}.pth")
    source, target = Path(asked.source).absolute(), asked.target.absolute()
    if Path(asked.source).exists() and (source.is_relative_to(target) or target.is_relative_to(source)):
        raise InputError(f"the target {asked.target} and the source {asked.source} lie in one another")
    check_free(asked.target, asked.force)


def _read_label_map(file: Path) -> list[int]:
    rows = read_json(file, "a label map", list)
    if not all(type(row) is int for row in rows):
        raise InputError(f"{file} is not a label map: it is not a list of row numbers")
    return rows


def _write(
    asked: Convert, partial: Path, config: VideoMAEConfig, source: Source, record: Mapping[str, Any]
) -> None:
    tensors = cast(source.tensors, asked.dtype)
    if not asked.verify:  # They are not needed again, and may be large.
        source.tensors.clear()
    processing = (source.processing or Processing.for_size(config.image_size)).fitted(config.image_size)
    if asked.to == "hf":
        name, origin = asked.target.absolute().name, origin_of(asked.source)
        card = model_card(name, config, kind_of(tensors), tensors, origin, record["command"])
        write_hugging_face(partial, config, tensors, processing, card)
    else:
        write = write_orbax if asked.to == "orbax" else write_torch
        write(partial, config, tensors, processing)


def _record(asked: Convert, source: Source, settled: Configured) -> dict[str, Any]:
    """What is written beside the result: where it came from and how it was made."""
    said = {name: (getattr(settled.config, name), origin) for name, origin in settled.origins.items()}
    return {
        "source": asked.source,
        "files": digests(source.files),
        "key": asked.key,
        "to": asked.to,
        "dtype": asked.dtype,
        "label_map": digests((asked.label_map,)) if asked.label_map else None,
        "classes": digests((asked.classes,)) if asked.classes else None,
        "said": said,
        "warnings": (*source.warnings, *settled.warnings),
        "verified": asked.verify,
        "licence": LICENCE,
        "licence_of_weights": origin_of(asked.source).licence,
        "command": command_line(),
        "tool": f"videomae-jax {version_of('videomae-jax')}",
    }


def _warn(source: Source, settled: Configured) -> None:
    for warning in (*source.warnings, *settled.warnings):
        print(f"warning: {warning}", file=sys.stderr)


def _verify_result(asked: Convert, source: Source, settled: Configured, partial: Path) -> None:
    """Raise RunError unless PyTorch on the source and this package on the result agree."""
    written = read_source(str(partial))
    result = configure(written, Architecture())
    before = replace(source, config=settled.config, tensors=cast(source.tensors, asked.dtype))
    if not _agree(before, replace(written, name=str(asked.target), config=result.config)):
        raise RunError(
            f"PyTorch on {asked.source} and this package on the result differ; nothing was written"
        )


def _verify(asked: Verify) -> int:
    _need_reference()
    a, b = read_source(asked.a, asked.key), read_source(asked.b, asked.key)
    sources = []
    for each, other in ((a, b), (b, a)):
        alike = kind_of(each.tensors) == kind_of(other.tensors)
        if each.config is None and other.config is not None and alike:
            each = replace(each, config=replace(other.config, **ORIGINAL_EPS))
        settled = configure(each, asked.architecture)
        check_can_be_read("transformers", settled.config, kind_of(each.tensors))
        _warn(each, settled)
        sources.append(replace(each, config=settled.config))
    return 0 if _agree(*sources) else 1


def _agree(reference: Source, ours: Source) -> bool:
    differences = compare(reference, ours)
    print(table(differences))
    failed = [each.stage for each in differences if not each.passed]
    print(f"FAIL, first at {failed[0]}" if failed else "pass: the two compute the same")
    return not failed
