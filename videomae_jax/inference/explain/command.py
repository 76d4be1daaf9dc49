"""The command `videomae-jax explain`: videos and a checkpoint in, pictures of what the model looks at out."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from videomae_jax.checkpoints.processing_json import read_processing
from videomae_jax.data.records import VideoRecord
from videomae_jax.data.sources import read_videos
from videomae_jax.data.video.writing import write_video
from videomae_jax.errors import InputError
from videomae_jax.files import replacing
from videomae_jax.inference.clip import read_timed_clip
from videomae_jax.inference.explain.explainer import Clip, Explainer, Explanation, colours, heat
from videomae_jax.inference.pictures import draw_animation, draw_strip, places_in, save_gif, save_picture
from videomae_jax.inference.views import DenseInference, check_at_least_one
from videomae_jax.processing import Processing

_NAMES = {"rollout": "rollout", "class_map": "class map", "pca": "token PCA"}


@dataclass(frozen=True)
class Explain(DenseInference):
    """Draw what a model looks at in each video's middle clip: attention rollout, what bears on a class, and
    the principal components of its tokens."""

    videos: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Video files, folders of videos, or list files."""
    checkpoint: str
    """A work folder, a step folder, a Hugging Face folder, or a hub id. Class maps need a classifier."""
    out: Path = Path("explanations")
    """Folder for NAME.png (a strip of frames), NAME.gif and NAME.mp4."""
    label: str | None = None
    """The class of the class map; by default the one with the highest score."""


def explain(args: Explain) -> int:
    """Draw, and print what the pictures say; 1 when some video could not be read (stderr says which), else 0.

    Raises InputError where nothing could be drawn.
    """
    if not args.videos:
        raise InputError("name at least one video or folder: videomae-jax explain VIDEO --checkpoint C")
    check_at_least_one(sampling_rate=args.sampling_rate)
    explainer = Explainer.from_pretrained(args.checkpoint, args.dtype)
    label = None if args.label is None else explainer.number_of(args.label)
    trained = read_processing(args.checkpoint) or Processing()
    rate = args.sampling_rate or trained.sampling_rate or 4
    failures, places = [], places_in(args.out, read_videos(args.videos, args.root, split=None))
    for place, video in places.items():
        try:
            clip, seconds = read_timed_clip(video, explainer.config, rate, args.decoder, args.max_pixels)
        except InputError as error:
            failures.append(error)
            continue
        _draw(explainer, video, clip, label, place, seconds, args.checkpoint)
    if len(failures) == len(places):
        raise failures[0]
    for failure in failures:
        print(f"videomae-jax: {failure}", file=sys.stderr)
    return int(bool(failures))


def _draw(
    explainer: Explainer,
    video: VideoRecord,
    clip: Clip,
    label: int | None,
    place: Path,
    seconds: float,
    checkpoint: str,
) -> None:
    found = explainer.explain(clip, label)
    rows, caption = overlays(explainer, clip, found), captions(explainer, found)
    files = [place.with_name(f"{place.name}.{kind}") for kind in ("png", "gif", "mp4")]
    save_picture(files[0], draw_strip(rows, f"{Path(video.name).name}, seen by {checkpoint}", caption))
    frames = draw_animation(rows, caption)
    save_gif(files[1], frames, seconds)
    with replacing(files[2]) as partial:
        write_video(partial, np.stack([np.asarray(frame) for frame in frames]), 1 / seconds)
    print("\n".join([*caption, f"Wrote {', '.join(map(str, files[:2]))} and {files[2]}"]), flush=True)


def overlays(explainer: Explainer, clip: Clip, found: Explanation) -> dict[str, Clip]:
    """The clip and each map over it, by name."""
    rows = {"original": clip, _NAMES["rollout"]: heat(clip, found.rollout, explainer.config)}
    if found.class_map is not None:
        rows[_NAMES["class_map"]] = heat(clip, found.class_map, explainer.config)
    return rows | {_NAMES["pca"]: colours(clip, found.pca, explainer.config)}


def captions(explainer: Explainer, found: Explanation) -> tuple[str, ...]:
    """What the pictures must say of themselves."""
    said = [
        "Rollout: how much of each place reaches what the model pools, by attention and skip connections."
    ]
    if found.label is not None:
        said.append(f"Class map: what bears on {explainer.config.id2label[found.label]}, for or against.")
    said.append("Token PCA: three principal components of the clip's tokens; like colours are like tokens.")
    random = ", ".join(f"{_NAMES[name]} {value:.2f}" for name, value in found.random.items())
    said.append(f"Check: rank correlation with the maps of shuffled weights, 0 at best: {random}.")
    return tuple(said)
