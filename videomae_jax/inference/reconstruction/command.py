"""The command `videomae-jax reconstruct`: videos and a checkpoint in, pictures and numbers out."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import jax
import numpy as np
import tyro

from videomae_jax.checkpoints.processing_json import read_processing
from videomae_jax.config import MaskType
from videomae_jax.data.sources import read_videos
from videomae_jax.errors import InputError
from videomae_jax.inference.clip import read_timed_clip
from videomae_jax.inference.normalization import read_normalization
from videomae_jax.inference.pictures import draw_animation, draw_strip, places_in, save_gif, save_picture
from videomae_jax.inference.reconstruction.reconstruct import Reconstruction, reconstruct, rows_of
from videomae_jax.inference.views import DenseInference, check_at_least_one
from videomae_jax.model_config import VideoMAEConfig
from videomae_jax.models.masking import sample_mask
from videomae_jax.models.pretraining import VideoMAEForPreTraining
from videomae_jax.processing import Processing


@dataclass(frozen=True)
class ReconstructVideo(DenseInference):
    """Mask most of each video's middle clip and draw how a pre-trained model reconstructs it."""

    videos: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Video files, folders of videos, or list files."""
    checkpoint: str
    """A work folder (its newest step), a step folder, a Hugging Face folder, or a hub id."""
    out: Path = Path("reconstructions")
    """Folder for NAME.png (a strip of frames) and NAME.gif (an animation)."""
    mask_type: MaskType | None = None
    """Which patches are masked; by default as in training, or tube."""
    mask_ratio: float | None = None
    """Share of the patches that is masked; by default as in training, or 0.9."""
    seed: int = 0
    """Which mask is drawn."""
    true_statistics: bool = False
    """Take brightness and contrast of masked patches from the original, as the original viewer does. By
    default they are guessed from visible patches. Makes no difference to a model of raw pixels."""


def reconstruct_video(args: ReconstructVideo) -> int:
    """Draw, and print what the pictures say; 1 when some video could not be read (stderr says which), else 0.

    Raises InputError where nothing could be drawn.
    """
    failures, count = [], 0
    for drawn in draw_reconstructions(args):
        if isinstance(drawn, InputError):
            failures.append(drawn)
        else:
            count += 1
            print("\n".join(drawn[1]), flush=True)
    if failures and not count:
        raise failures[0]
    for failure in failures:
        print(f"videomae-jax: {failure}", file=sys.stderr)
    return int(bool(failures))


def draw_reconstructions(
    args: ReconstructVideo,
) -> Iterator[tuple[Reconstruction, tuple[str, ...]] | InputError]:
    """Write NAME.png and NAME.gif of each video: what is in them, with their caption and where they are.

    Gives the reason in place of a video that cannot be read. Raises InputError when the names, the checkpoint
    or the mask asked for will not do.
    """
    if not args.videos:
        raise InputError("name at least one video or folder: videomae-jax reconstruct VIDEO --checkpoint C")
    check_at_least_one(sampling_rate=args.sampling_rate)
    model, params = VideoMAEForPreTraining.from_pretrained(args.checkpoint, dtype=args.dtype)
    config = model.config
    trained = read_processing(args.checkpoint) or Processing()
    mask_type = args.mask_type or trained.mask_type or "tube"
    ratio = next(each for each in (args.mask_ratio, trained.mask_ratio, 0.9) if each is not None)
    rate = args.sampling_rate or trained.sampling_rate or 4
    places = places_in(args.out, read_videos(args.videos, args.root, split=None))
    draw = partial(sample_mask, mask_type, jax.random.key(args.seed), grid=config.grid, ratio=ratio)
    try:
        draw(np.zeros((1, config.num_frames, *config.frame_size, 3), np.uint8))
    except ValueError as error:
        raise InputError(f"--mask-ratio {ratio}: {error}") from error
    masking = f"{mask_type.capitalize()} mask, {ratio:.0%} of the patches"
    normalization = read_normalization(args.checkpoint)
    for place, video in places.items():
        try:
            clip, seconds = read_timed_clip(video, config, rate, args.decoder, args.max_pixels)
        except InputError as error:
            yield error
            continue
        result = reconstruct(config, params, clip, draw(clip[None]), args.true_statistics, normalization)
        caption = captions(result, config, masking, args.true_statistics)
        strip, animation = (place.with_name(f"{place.name}.{kind}") for kind in ("png", "gif"))
        title = f"{Path(video.name).name}, reconstructed by {args.checkpoint}"
        save_picture(strip, draw_strip(rows_of(result), title, caption))
        save_gif(animation, draw_animation(rows_of(result), caption), seconds)
        yield result, (*caption, f"Wrote {strip} and {animation}")


def captions(
    result: Reconstruction, config: VideoMAEConfig, masking: str, true_statistics: bool
) -> tuple[str, ...]:
    """What a picture must say of itself: what is masked, where brightness comes from, and the scores."""
    if not config.norm_pix_loss:
        source = "Masked patches: pixels as predicted."
    elif true_statistics:
        source = "NOT ALL PREDICTED: brightness and contrast of masked patches are the true ones."
    else:
        source = "Masked patches: pattern predicted, brightness and contrast guessed from visible patches."
    return (
        f"{masking}; visible ones are shown as they are.",
        source,
        f"Masked loss {result.loss:.4f} (predicting zero: {result.zero_loss:.4f}); "
        f"mean squared pixel error {result.pixel_error:.4f}.",
    )
