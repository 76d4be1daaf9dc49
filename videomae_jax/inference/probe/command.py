"""The command `videomae-jax probe`: how well frozen features predict labels.

What is free, a learning rate or a number of neighbours, is chosen on a part of the training videos. With it
the probe is trained again on all of them, and the validation videos are looked at once, at the end.
"""

from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from videomae_jax.data.labels import Classes, read_classes, read_labelled
from videomae_jax.data.overlap import shared_videos
from videomae_jax.data.video_table import VideoTable
from videomae_jax.errors import InputError
from videomae_jax.files import locked_folder, write_json
from videomae_jax.inference.features.clip_encoder import ClipEncoder
from videomae_jax.inference.features.video_encoder import VideoEncoder
from videomae_jax.inference.probe.choice import Method, ProbeResult, ProbeSettings, measure
from videomae_jax.inference.probe.features import ProbeSet, probe_set
from videomae_jax.inference.views import Inference, choose_views
from videomae_jax.training.multihost.facts import classes_fact, setting_fact, videos_fact
from videomae_jax.training.multihost.hosts import Hosts


@dataclass(frozen=True)
class Probe(ProbeSettings, Inference):
    """Measure a frozen encoder: classify labelled videos by its features, with a small classifier on top."""

    train: tuple[str, ...]
    """Lists with a line `path label` for each video, or folders with a folder of videos per class."""
    val: tuple[str, ...]
    """Lists or folders for the accuracy that is reported."""
    checkpoint: str
    """A work folder, a step folder, a Hugging Face folder, or a hub id."""
    out: Path
    """Folder for probe.json and, unless --features says otherwise, the features."""
    features: Path | None = None
    """Folder in which features are kept and found again; share it between probes of one checkpoint."""
    max_cache_gb: float = 100.0
    """Disk for the tokens of an attentive probe, in GB; clips beyond it are read and encoded at each use."""
    classes: str | None = None
    """A file with the name of each class on a line, in the order of their numbers."""
    layer: int | None = None
    """A hidden state, from 0 (embedded tubelets) to the last block, or -1; by default the model's output."""
    num_segments: int = 1
    """Clips of each video: separate examples in training; in validation their scores are averaged."""
    batch_size: int = 8
    """Clips encoded at a time, over all devices of a host."""
    num_workers: int = 4
    """Decoding processes."""


def probe(args: Probe) -> int:
    """Probe, print a table, write probe.json; returns the exit code."""
    file, hosts = args.out / "probe.json", Hosts()
    with hosts.locked(locked_folder(args.out, "--out")):
        what, method, train, val = _prepare(args, hosts)
        # The others have helped to extract features, and wait until the probe is trained.
        result = hosts.agree(lambda: measure(method, train, val) if hosts.first else None)
        if result:
            print("\n".join(table(what, result)))
            write_json(file, {"features": what, **asdict(result), "settings": asdict(args)})
            print(f"wrote {file}")
    return 0


def run_probe(args: Probe) -> tuple[str, ProbeResult]:
    """Extract features, or find them, and probe them: the features in words, and what came out.

    Raises InputError when lists, checkpoint or settings will not do, RunError when no video can be read.
    """
    what, method, train, val = _prepare(args, Hosts())
    return what, measure(method, train, val)


def _prepare(args: Probe, hosts: Hosts) -> tuple[str, Method, ProbeSet, ProbeSet]:
    """The features in words, what is to be done with them, and those to train on and to validate with."""
    _check(args)
    train_videos, val_videos, classes = hosts.agree(lambda: _read(args))
    data, views = choose_views(args.checkpoint, args, args.num_segments, num_crops=1)
    clips = ClipEncoder.from_pretrained(
        args.checkpoint,
        layer=args.layer,
        tokens=args.kind == "attentive",
        batch_size=args.batch_size,
        dtype=args.dtype,
    )
    encoder = VideoEncoder(clips, data, views.num_segments, args.num_workers)
    facts = {"videos to train on": videos_fact(train_videos), "videos to validate": videos_fact(val_videos)}
    about = clips.about() | encoder.sampling() | {"kind": args.kind}
    facts |= {"classes": classes_fact(classes.names)}
    hosts.compare(facts | {name: setting_fact(value) for name, value in about.items()})
    folder = args.features or args.out / "features"
    room = args.max_cache_gb * 1e9 if args.kind == "attentive" else None
    train = probe_set(encoder, train_videos, folder, "train", hosts, room)
    if room is not None:  # Those to validate are used once, so they come second.
        room -= 4 * min(room / 4, float(np.prod(train.features.shape)))
    val = probe_set(encoder, val_videos, folder, "val", hosts, room)
    chosen = {field.name: getattr(args, field.name) for field in fields(ProbeSettings)}
    method = Method(len(classes.names), clips.config.num_attention_heads, **chosen)
    return clips.what, method, train, val


def _read(args: Probe) -> tuple[VideoTable, VideoTable, Classes]:
    """The videos to train on and to validate with, and their classes."""
    given = read_classes(args.classes) if args.classes else None
    train, classes = read_labelled(args.train, args.root, given)
    val, _ = read_labelled(args.val, args.root, classes, split="val")
    if both := shared_videos(train, val):
        raise InputError(
            f"{len(both)} videos are in --train and in --val, {both[0].path} for one: take them out of one "
            "of the two, or the accuracy means nothing"
        )
    return train, val, classes


def table(what: str, result: ProbeResult) -> list[str]:
    """The result in words: every trial, then what was chosen by them and how it did."""
    name = "k" if result.kind == "knn" else "rate"
    fit = result.num_train - result.num_held_out
    train = "" if result.train_accuracy is None else f"train {result.train_accuracy:.1%}, "
    lines = [
        f"{result.kind} probe of {what}; {result.num_classes} classes",
        f"{name:>8}  {f'{fit} fitted':>12}  {f'{result.num_held_out} held out':>12}",
        *(f"{trial.value:8g}  {_percent(trial.fit):>12}  {trial.held_out:12.1%}" for trial in result.trials),
        f"{name} {result.chosen:g} is chosen by the videos held out; then with all {result.num_train}:",
        f"{train}val {result.val_accuracy:.1%} ± {result.val_standard_error:.1%} ({result.num_val} videos)",
    ]
    if result.failures:
        lines.append(f"{len(result.failures)} videos could not be read, the first: {result.failures[0]}")
    return lines


def _percent(accuracy: float | None) -> str:
    return "-" if accuracy is None else f"{accuracy:.1%}"


def _check(args: Probe) -> None:
    for name, good, need in (
        ("train", bool(args.train), "at least one list or folder"),
        ("val", bool(args.val), "at least one list or folder"),
        ("held_out", 0 < args.held_out < 1, "a share between 0 and 1"),
        ("batch_size", args.batch_size > 0, "1 or more"),
        ("max_cache_gb", args.max_cache_gb >= 0, "0 or more"),
        ("epochs", args.epochs is None or args.epochs > 0, "1 or more"),
        ("train_batch_size", args.train_batch_size is None or args.train_batch_size > 0, "1 or more"),
        ("learning_rates", all(rate > 0 for rate in args.learning_rates), "numbers above 0"),
    ):
        if not good:
            raise InputError(f"--{name.replace('_', '-')} {getattr(args, name)} must be {need}")
