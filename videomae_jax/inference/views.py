"""Which views of a video are classified: as asked for, or else as the checkpoint was trained and tested."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

from videomae_jax.checkpoints.orbax import find_evaluated_folder, read_description
from videomae_jax.config import LabelledDataConfig, ViewsConfig
from videomae_jax.errors import InputError

Sampling = Literal["dense", "uniform"]


def choose_views(
    checkpoint: str | Path,
    sampling: Sampling | None = None,
    sampling_rate: int | None = None,
    num_segments: int | None = None,
    num_crops: int | None = None,
) -> tuple[LabelledDataConfig, ViewsConfig]:
    """Settings for `TestViews`; None takes those of the fine-tuning run that wrote the checkpoint.

    Where no such run is recorded, those published for Kinetics: dense, every 4th frame, 5 segments, 3 crops.
    Raises InputError for a number below 1.
    """
    frames = {"sampling": sampling, "sampling_rate": sampling_rate}
    numbers = {"num_segments": num_segments, "num_crops": num_crops}
    for name, value in (frames | numbers).items():
        if isinstance(value, int) and value < 1:
            raise InputError(f"--{name.replace('_', '-')} {value} must be 1 or more")
    try:
        run = read_description(find_evaluated_folder(Path(checkpoint)))["config"]
    except InputError:
        run = {"data": {}}
    trained = {name: run["data"][name] for name in frames if name in run["data"]}
    data = replace(LabelledDataConfig(), **trained | _given(frames))
    return data, replace(ViewsConfig(), **run.get("test", {}) | _given(numbers))


def _given(values: dict) -> dict:
    return {name: value for name, value in values.items() if value is not None}


__all__ = ["Sampling", "choose_views"]
