"""The batch of one step, and how it is filled up place by place."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float32, Int64

from videomae_jax.data.clips.readers import Arrays
from videomae_jax.data.loading.failures import Failure


@dataclass(frozen=True)
class ClipBatch:
    """The clips of one step on this host."""

    step: int
    arrays: Arrays
    """What the reader makes of each video, one after the other; b counts the clips in `video`."""
    weights: Float32[np.ndarray, " b"]
    """1, or 0 for a clip that only fills up a batch, with zeros in its arrays."""
    record_ids: Int64[np.ndarray, " b"]
    """Positions in `videos`; -1 where the weight is 0."""
    failures: list[Failure]
    attempts: int
    """Videos asked for, with those that failed."""
    repeats: list[Failure] = field(default_factory=list)
    """What the system refused for a moment, and gave when it was asked again."""


class Filling:
    """A batch whose places are read one by one, in any order."""

    def __init__(self, step: int, arrays: Arrays) -> None:
        """`arrays` have an axis of places first."""
        self.step, self.arrays = step, arrays
        self.places, self._clips = arrays["video" if "video" in arrays else "box"].shape[:2]
        self.failed: Sequence[dict[int, Failure]] = [{} for _ in range(self.places)]
        """What was tried for each place and could not be read, by its position in the list."""
        self.repeats: list[Failure] = []
        self._found = np.full(self.places, -1)
        self._done = 0

    @property
    def whole(self) -> bool:
        return self._done == self.places

    def succeed(self, place: int, record_id: int) -> None:
        """This place has the arrays of a video."""
        self._found[place] = record_id
        self._done += 1

    def leave_empty(self, place: int) -> None:
        """This place has no video; whatever its arrays held is blanked."""
        for each in self.arrays.values():
            each[place] = 0
        self._done += 1

    def batch(self) -> ClipBatch:
        """What came of it, once it is whole."""
        ids = self._found.repeat(self._clips)
        failures = [failure for place in self.failed for failure in place.values()]
        return ClipBatch(
            self.step,
            {name: each.reshape(-1, *each.shape[2:]) for name, each in self.arrays.items()},
            (ids >= 0).astype(np.float32),
            ids,
            failures,
            int((self._found >= 0).sum()) + len(failures),
            self.repeats,
        )
