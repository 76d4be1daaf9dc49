"""What the weights of a run make of a few of its videos: reconstructions over time, or predictions."""

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from videomae_jax.checkpoints.orbax import find_evaluated_folder, list_steps, step_folder
from videomae_jax.data.labels import Classes, read_labelled
from videomae_jax.data.records import Split, VideoRecord
from videomae_jax.data.sources import read_videos, split_weights
from videomae_jax.errors import InputError
from videomae_jax.inference.classify import Prediction, VideoClassifier
from videomae_jax.inference.clip import read_timed_clip
from videomae_jax.inference.reconstruction.reconstruct import reconstruct
from videomae_jax.inference.report.record import RunRecord
from videomae_jax.models.masking import sample_mask
from videomae_jax.models.pretraining import VideoMAEForPreTraining

_FRAMES, _SIDE, _GAP = 6, 128, 3
"""Frames in a row, their height in pixels and the pixels between them."""
_STEPS = 4
"""At most so many checkpoints are shown, evenly spread over those that are there."""


@dataclass(frozen=True)
class Strip:
    """A row of frames with what it shows."""

    words: str
    picture: str
    """An address that holds all of it."""


@dataclass(frozen=True)
class Sample:
    """One video, and what the run's weights make of it."""

    name: str
    strips: tuple[Strip, ...]
    label: str = ""
    predictions: tuple[Prediction, ...] = ()


def draw_samples(run: RunRecord, count: int) -> Iterator[Sample]:
    """Samples of `count` videos of a run, of its validation where it has one; those that cannot be read are
    left out.

    Raises InputError where there is no checkpoint, or the videos are not where they were.
    """
    if not list_steps(run.workdir):
        raise InputError(f"{run.workdir} has no checkpoint")
    yield from (_reconstructed if "mask_ratio" in run.settings else _classified)(run, count)


def _reconstructed(run: RunRecord, count: int) -> Iterator[Sample]:
    settings, steps = run.settings, list_steps(run.workdir)
    shown = [steps[n] for n in _spread(len(steps), _STEPS)]
    models = {step: VideoMAEForPreTraining.from_pretrained(step_folder(run.workdir, step)) for step in shown}
    config = models[shown[-1]][0].config
    kind, ratio = settings["mask_type"], settings["mask_ratio"]
    for video, clip in _clips(run, config, count):
        mask = sample_mask(kind, jax.random.key(0), clip[None], config.grid, ratio)
        results = {step: reconstruct(config, params, clip, mask) for step, (_, params) in models.items()}
        last = results[shown[-1]]
        yield Sample(
            video.name,
            (
                Strip("original", _strip(last.original)),
                Strip(f"masked, {ratio:.0%} ({kind})", _strip(last.masked)),
                *(
                    Strip(f"step {step:,}, masked loss {result.loss:.4f}", _strip(result.reconstruction))
                    for step, result in results.items()
                ),
            ),
        )


def _classified(run: RunRecord, count: int) -> Iterator[Sample]:
    classifier = VideoClassifier.from_pretrained(find_evaluated_folder(run.workdir))
    config = classifier.predictor.config
    for video, clip in _clips(run, config, count):
        [(_, found)] = classifier.each([video], top_k=3)
        if isinstance(found, list):
            label = config.id2label[video.label] if video.label is not None else ""
            yield Sample(video.name, (Strip("", _strip(clip)),), label, tuple(found))


def _clips(run: RunRecord, config: Any, count: int) -> Iterator[tuple[VideoRecord, np.ndarray]]:
    """The middle clip of the first of evenly spread videos that can be read."""
    videos = _videos(run, config.id2label)
    given = 0
    order = np.random.default_rng(0).permutation(len(videos)) if len(videos) > count else range(len(videos))
    for place in list(order)[: 10 * count]:
        if given == count:
            return
        video = videos[int(place)]
        try:
            clip, _ = read_timed_clip(
                video,
                config,
                run.settings.get("data.sampling_rate") or 4,
                run.settings["data.decoder"],
                run.settings["data.max_pixels"],
            )
        except InputError:
            continue
        given += 1
        yield video, clip


def _videos(run: RunRecord, names: tuple[str, ...]) -> Sequence[VideoRecord]:
    """Those to validate, else those to train on, with labels where the run has classes."""
    settings = run.settings
    split: Split = "val" if settings["data.val"] else "train"
    sources, _ = split_weights(tuple(settings[f"data.{split}"]))
    if "mask_ratio" in settings:
        return read_videos(sources, settings["data.root"], split)
    return read_labelled(sources, settings["data.root"], Classes(names, "of the run"), split=split).videos


def _strip(clip: UInt8[np.ndarray, "T H W 3"]) -> str:
    """Evenly spread frames side by side, as the address of a picture that holds it all."""
    scale = max(1, _SIDE // clip.shape[1])
    frames = [
        _fitted(Image.fromarray(clip[n].repeat(scale, 0).repeat(scale, 1)))
        for n in _spread(len(clip), _FRAMES)
    ]
    width, height = frames[0].size
    paper = Image.new("RGB", (len(frames) * (width + _GAP) - _GAP, height), "white")
    for place, frame in enumerate(frames):
        paper.paste(frame, (place * (width + _GAP), 0))
    file = io.BytesIO()
    paper.save(file, "JPEG", quality=90, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def _fitted(frame: Image.Image) -> Image.Image:
    """At most `_SIDE` pixels high."""
    if frame.height <= _SIDE:
        return frame
    return frame.resize((round(frame.width * _SIDE / frame.height), _SIDE), Image.Resampling.LANCZOS)


def _spread(length: int, most: int) -> list[int]:
    """At most so many positions, evenly spread from the first to the last."""
    return np.unique(np.linspace(0, length - 1, min(most, length)).round().astype(int)).tolist()
