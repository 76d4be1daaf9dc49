"""Do two checkpoints compute the same? PyTorch runs one and this package the other, on the same clips."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from videomae_jax.checkpoints.architecture import Kind, differing, infer_fields, kind_of, two_columns
from videomae_jax.errors import InputError
from videomae_jax.model_config import VideoMAEConfig

from ..read import Source
from .jax_stages import jax_stages

TOLERANCE = 1e-5
"""Largest difference allowed, times the largest value of its stage where that exceeds 1."""


@dataclass(frozen=True)
class Difference:
    """How far apart two stages are."""

    stage: str
    largest: float
    mean: float
    allowed: float

    @property
    def passed(self) -> bool:
        return self.largest <= self.allowed  # False for NaN.


def compare(reference: Source, ours: Source) -> list[Difference]:
    """The differences of every stage between PyTorch on `reference` and this package on `ours`.

    Both have a whole configuration.
    """
    kind = _same_kind(reference, ours)
    from .torch_stages import torch_stages

    clips = _random_clips(ours.config, count=2, seed=0)
    theirs = torch_stages(reference.config, reference.tensors, kind, *clips)
    mine = jax_stages(ours.config, ours.tensors, kind, *clips)
    if theirs.keys() != mine.keys():
        raise RuntimeError(f"the stages differ: {sorted(theirs.keys() ^ mine.keys())}")
    return [_difference(name, theirs[name], value) for name, value in mine.items()]


def _random_clips(config: VideoMAEConfig, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Normalised clips of noise (b, T, H, W, c), and masks (b, n), True where masked: nine tenths of each
    clip, the same places in every tubelet of time."""
    rng = np.random.default_rng(seed)
    shape = (count, config.num_frames, *config.frame_size, config.num_channels)
    t, h, w = config.grid
    masked = min(int(0.9 * h * w), h * w - 1)
    masks = [np.tile(rng.permutation(h * w) < masked, t) for _ in range(count)]
    return rng.normal(size=shape).astype(np.float32), np.stack(masks)


def _same_kind(reference: Source, ours: Source) -> Kind:
    """What both are for; raises InputError, with a table, where they are not the same architecture."""
    a, b = _architecture(reference), _architecture(ours)
    if rows := differing(a, b, a | b):
        columns = two_columns(reference.name, ours.name, rows)
        raise InputError(f"{reference.name} and {ours.name} are not the same architecture.\n{columns}")
    return kind_of(ours.tensors)


def _architecture(source: Source) -> dict[str, Any]:
    """What must be equal before outputs can be; epsilons may differ and show in the table."""
    kind = kind_of(source.tensors)
    unseen = ["num_attention_heads", "image_size", "num_frames", "learned_grid"]
    if kind == "pretraining":
        unseen += ["decoder_num_attention_heads", "norm_pix_loss"]
    seen = infer_fields(source.name, source.tensors)
    return {"kind": kind, **seen, **{name: getattr(source.config, name) for name in unseen}}


def _difference(stage: str, theirs: np.ndarray, mine: np.ndarray) -> Difference:
    error = np.abs(theirs.astype(np.float64) - mine)
    scale = max(1.0, float(np.abs(theirs).max()))
    return Difference(stage, float(error.max()), float(error.mean()), TOLERANCE * scale)


def table(differences: list[Difference]) -> str:
    """One line per stage: largest and mean absolute difference, what is allowed, pass or fail."""
    lines = [f"{'stage':20} {'max':>10} {'mean':>10} {'allowed':>10}"]
    for each in differences:
        verdict = "pass" if each.passed else "FAIL"
        lines.append(
            f"{each.stage:20} {each.largest:10.2e} {each.mean:10.2e} {each.allowed:10.2e}  {verdict}"
        )
    return "\n".join(lines)
