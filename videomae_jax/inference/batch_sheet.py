"""A contact sheet of what a run trains on: clips after augmentation and mixing, or with their masks."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float

from videomae_jax.config import FinetuneConfig, PretrainConfig, RunConfig
from videomae_jax.data.loading.batches import batches
from videomae_jax.data.loading.filling import ClipBatch
from videomae_jax.inference.lettering import draw_text
from videomae_jax.inference.pictures import GAP, LINE, MARGIN, TEXT, blank_paper, enlarge, save_picture
from videomae_jax.inference.reconstruction.reconstruct import GREY
from videomae_jax.models.masking import sample_mask
from videomae_jax.models.patches import patchify, unpatchify
from videomae_jax.models.pixels import denormalize, normalize
from videomae_jax.training.objectives.finetuning import Finetuning
from videomae_jax.training.resolve import ResolvedRun, resolve_run

FRAMES = 6
"""Frames shown of each clip, evenly spread from the first to the last."""
CLIPS = 8
"""Most clips shown of a step."""


def show_batch(config: RunConfig, out: Path, steps: int = 1) -> int:
    """Draw clips of a run's first steps as the model is to see them; returns the exit code.

    Of each step the first videos are read, as many as give 8 clips or the whole batch. Fine-tuning clips are
    augmented and mixed with each other; pre-training clips come as read, and once more with their masks in
    grey. Draws are as in a run, but not the very same. Raises InputError as a run does.
    """
    run = resolve_run(config)
    each = max(1, min(config.batch_size, CLIPS // config.data.num_sample))
    reading = batches(
        run.videos,
        run.objective.train_clips,
        seed=config.seed,
        batch_size=each,
        num_workers=0,  # Starting processes would take longer than reading so few videos.
        start_step=0,
        stop_step=steps,
    )
    clips, titles = [], []
    with closing(reading):
        for batch in reading:
            key = jax.random.fold_in(run.key("training"), batch.step)
            arrays = jax.device_get(jax.jit(run.objective.with_video)(batch.arrays))
            for clip, title in _as_seen(run, replace(batch, arrays=arrays), key):
                clips.append(clip)
                titles.append(f"step {batch.step}: {title}")
    draw_batch(out, np.stack(clips), titles)
    print(f"Wrote {out} with {len(clips)} rows of {FRAMES} frames")
    return 0


def draw_batch(path: Path, clips: Float[np.ndarray, "b T H W 3"], titles: Sequence[str]) -> None:
    """Write a PNG with a row of 6 frames for each clip, normalised as for the model, and its title above."""
    pixels = np.rint(np.clip(denormalize(clips), 0, 255)).astype(np.uint8)
    shown = np.unique(np.linspace(0, clips.shape[1] - 1, FRAMES).round().astype(int))
    scale = -(-112 // clips.shape[3])
    height, width = scale * clips.shape[2], scale * clips.shape[3]
    step = LINE + height + 2 * GAP
    paper = blank_paper(
        2 * MARGIN + len(shown) * (width + GAP), 2 * MARGIN + len(clips) * step, caption=titles
    )
    for row, (clip, title) in enumerate(zip(pixels, titles, strict=True)):
        top = MARGIN + row * step
        draw_text(paper, (MARGIN, top), title, 13, TEXT)
        for column, frame in enumerate(shown):
            paper.paste(enlarge(clip[frame], scale), (MARGIN + column * (width + GAP), top + LINE))
    save_picture(path, paper)


def _as_seen(run: ResolvedRun, batch: ClipBatch, key: jax.Array) -> Iterator[tuple[np.ndarray, str]]:
    """Normalised clips and their titles."""
    names = [Path(run.videos[record].path).name for record in batch.record_ids]
    config = run.objective.at(batch.step, run.total_steps).config
    if isinstance(config, PretrainConfig):
        pairs = zip(*_masked(config, batch.arrays["video"], key), strict=True)
        for name, (clip, masked) in zip(names, pairs, strict=True):
            yield clip, f"{name}, as read"
            yield masked, f"{name}, {config.mask_type} mask of {config.mask_ratio:.0%}"
        return
    assert isinstance(run.config, FinetuneConfig)
    clips, weights = _mixed(run.config, batch, key)
    for number, (name, clip, weight) in enumerate(zip(names, clips, weights, strict=True)):
        partner = names[len(names) - 1 - number]
        mixed = f" with {partner}" if (weights[number] != weights[number].round()).any() else ""
        yield clip, f"{_shares(weight, run.config.model.id2label)}   ({name}{mixed})"


def _masked(config: PretrainConfig, video: np.ndarray, key: jax.Array) -> tuple[np.ndarray, np.ndarray]:
    """Clips as read, and with what the model does not see in grey."""
    _, masked = sample_mask(config.mask_type, key, video, config.model.grid, config.mask_ratio)
    tubelets = np.array(patchify(video, config.model))
    np.put_along_axis(tubelets, np.asarray(masked)[:, :, None], GREY, axis=1)
    return np.asarray(normalize(video)), np.asarray(normalize(unpatchify(tubelets, config.model)))


def _mixed(config: FinetuneConfig, batch: ClipBatch, key: jax.Array) -> tuple[np.ndarray, np.ndarray]:
    """Augmented and mixed clips, and the share of each class in them, without smoothing."""
    plain = replace(config, augment=replace(config.augment, label_smoothing=0.0))
    clips, targets = jax.jit(Finetuning(plain).augmented)(jax.device_put(batch.arrays), key)
    return np.asarray(clips), np.asarray(targets)


def _shares(weights: Float[np.ndarray, " y"], names: Sequence[str]) -> str:
    """The classes of a clip with their weights, the greater first."""
    order = np.argsort(-weights, kind="stable")[:2]
    return ", ".join(f"{names[label]}: {weights[label]:.2f}" for label in order if weights[label] > 0)
