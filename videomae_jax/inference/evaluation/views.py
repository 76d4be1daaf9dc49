"""Which views of a video are classified: as asked for, or else as the checkpoint was trained and tested."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

from videomae_jax.checkpoints.processing_json import read_processing
from videomae_jax.config import LabelledDataConfig, ViewsConfig
from videomae_jax.data.sets import Decoder
from videomae_jax.errors import InputError
from videomae_jax.processing import Processing

Sampling = Literal["dense", "uniform"]


def choose_views(
    checkpoint: str | Path,
    sampling: Sampling | None = None,
    sampling_rate: int | None = None,
    num_segments: int | None = None,
    num_crops: int | None = None,
    *,
    revision: str | None = None,
    decoder: Decoder = "pyav",
) -> tuple[LabelledDataConfig, ViewsConfig]:
    """Settings for `TestViews`; None takes what is recorded with the checkpoint, as its training had it.

    Where nothing is recorded, those published for Kinetics: dense, every 4th frame, 5 segments, 3 crops.
    Raises InputError for a number below 1, and where there is no such checkpoint.
    """
    frames = {"sampling": sampling, "sampling_rate": sampling_rate}
    numbers = {"num_segments": num_segments, "num_crops": num_crops}
    for name, value in (frames | numbers).items():
        if isinstance(value, int) and value < 1:
            raise InputError(f"--{name.replace('_', '-')} {value} must be 1 or more")
    trained = vars(read_processing(checkpoint, revision) or Processing())

    def settled(values: dict) -> dict:
        return _given({name: trained[name] for name in values}) | _given(values)

    return replace(LabelledDataConfig(decoder=decoder), **settled(frames)), replace(
        ViewsConfig(), **settled(numbers)
    )


def _given(values: dict) -> dict:
    return {name: value for name, value in values.items() if value is not None}


__all__ = ["Sampling", "choose_views"]
