"""The command `videomae-jax watch`: what a classifier sees in a stream, a camera or a file that grows."""

import json
from collections.abc import Generator
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from videomae_jax.checkpoints.processing_json import read_processing
from videomae_jax.data.cropping import centre_crop
from videomae_jax.data.video import VideoError
from videomae_jax.data.video.decoder import MAX_PIXELS
from videomae_jax.data.video.live import live_frames
from videomae_jax.errors import InputError, RunError
from videomae_jax.files import locked_file, replacing
from videomae_jax.inference.classify import Prediction
from videomae_jax.inference.predictor import Predictor, rows
from videomae_jax.inference.views import check_at_least_one
from videomae_jax.inference.watch.overlay import Overlay
from videomae_jax.inference.watch.windows import Window, sliding
from videomae_jax.model_config import Dtype
from videomae_jax.models.ranking import best_classes
from videomae_jax.processing import Processing


@dataclass(frozen=True)
class Watch:
    """Classify live video and print a line for each window: a camera (/dev/video0), a stream (rtsp://,
    http://), or a file that is still being written."""

    source: Annotated[str, tyro.conf.Positional]
    """The file, address or camera."""
    checkpoint: str
    """A work folder, a step folder, a Hugging Face folder, or a hub id."""
    stride: int | None = None
    """Frames from one window to the next; by default those of a window, so that windows do not overlap."""
    sampling_rate: int | None = None
    """Take every n-th frame; by default as in training, or 4."""
    top_k: int = 3
    """How many classes are shown."""
    json: bool = False
    """Print a line of JSON for each window."""
    out: Path | None = None
    """An mp4 file of the source, with what the last whole window said written over it."""
    patience: float = 10.0
    """Seconds without a new frame after which a file has ended, and a stream is given up."""
    max_pixels: int = MAX_PIXELS
    """Refuse frames with more pixels, which bounds the memory of reading."""
    dtype: Dtype = "auto"
    """Compute dtype: "auto" is bfloat16 or float16 on GPUs and TPUs, float32 on a CPU."""


def watch(args: Watch) -> int:
    """Print a line for each window until the source ends; returns the exit code.

    Raises InputError where there is no such file, or no window in it.
    """
    check_at_least_one(stride=args.stride, sampling_rate=args.sampling_rate, top_k=args.top_k)
    if "://" not in args.source and not Path(args.source).exists():
        raise InputError(
            f"{args.source} does not exist: name a file, a camera such as /dev/video0 or a stream"
        )
    predictor = Predictor.from_pretrained(args.checkpoint, dtype=args.dtype)
    try:
        count = _watched_into(args, predictor) if args.out else _watched(args, predictor, None)
    except VideoError as error:
        raise InputError(str(error)) from error
    if not count:
        raise InputError(f"{args.source} ended before its first window was whole")
    return 0


def _watched_into(args: Watch, predictor: Predictor) -> int:
    """Watch and write the film, whole also when Ctrl-C ends it."""
    assert args.out
    stopped = None
    with locked_file(args.out, "--out"), replacing(args.out) as film, closing(Overlay(film)) as overlay:
        try:
            count = _watched(args, predictor, overlay)
        except KeyboardInterrupt as interrupt:
            stopped = interrupt
    if stopped:
        raise stopped
    return count


def _watched(args: Watch, predictor: Predictor, overlay: Overlay | None) -> int:
    """Print a line for each window; returns how many."""
    count, values = 0, predictor.config.score_kind == "value"
    with closing(_windows(args, predictor, overlay)) as windows:
        for window in windows:
            count += 1
            found = _best(predictor, window, args.top_k)
            print(_line(window, found, args.json, values), flush=True)
            if overlay:
                overlay.said = [f"{window.start:.1f} to {window.end:.1f} s", *_texts(found, values)]
    return count


def _windows(args: Watch, predictor: Predictor, overlay: Overlay | None) -> Generator[Window, None, None]:
    config = predictor.config
    trained = read_processing(args.checkpoint) or Processing()
    rate = args.sampling_rate or trained.sampling_rate or 4
    frames = live_frames(args.source, args.patience, args.max_pixels)
    if overlay:
        frames = overlay.passing(frames)
    prepare = partial(centre_crop, size=config.frame_size)
    return sliding(frames, config.num_frames, rate, args.stride or config.num_frames * rate, prepare)


def _best(predictor: Predictor, window: Window, top_k: int) -> list[Prediction]:
    clips = window.clip[None].repeat(len(predictor.mesh.local_devices), 0)
    [scores, *_] = rows(predictor.start(clips)).astype(np.float64)
    if not np.isfinite(scores).all():
        raise RunError("the model's scores are not finite: its weights hold NaN or infinity, or overflow")
    names = predictor.config.id2label
    values = predictor.config.score_kind == "value"
    order = range(len(scores))[:top_k] if values else best_classes(scores[None], min(top_k, len(scores)))[0]
    return [Prediction(names[number], float(scores[number]), int(number)) for number in order]


def _line(window: Window, found: list[Prediction], as_json: bool, values: bool) -> str:
    if as_json:
        times = {"start": round(window.start, 3), "end": round(window.end, 3)}
        return json.dumps(times | {"predictions": [asdict(each) for each in found]})
    return f"{window.start:9.2f} to {window.end:.2f} s  {', '.join(_texts(found, values))}"


def _texts(found: list[Prediction], values: bool) -> list[str]:
    form = ".4g" if values else ".1%"
    return [f"{each.label} {each.score:{form}}" for each in found]
