"""A reader for `loading.py`, in a module that worker processes can import."""

from dataclasses import dataclass

import numpy as np

from videomae_jax.data.clips.readers import Arrays
from videomae_jax.data.records import VideoRecord


@dataclass(frozen=True)
class Nothing:
    """A reader that reads nothing, and leaves what is there."""

    shape: tuple[int, ...]

    def blank(self) -> Arrays:
        return {"video": np.zeros((1, *self.shape), np.uint8), "label": np.zeros(1, np.int32)}

    def __call__(self, record: VideoRecord, key: object) -> Arrays:
        return {"label": np.full(1, record.label or 0, np.int32)}
