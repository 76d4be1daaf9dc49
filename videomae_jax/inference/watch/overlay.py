"""The source as a film, with what the last whole window said written over each frame."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from videomae_jax.data.video.live import LiveFrame
from videomae_jax.data.video.writing import Film
from videomae_jax.inference.lettering import draw_text

_INK, _PAPER = (255, 255, 255), (0, 0, 0)
_LINES = 24
"""How many lines of text are as high as a frame; letters have at least 11 pixels."""


class Overlay:
    """A film of the frames that pass through it. `said` is what is written over those that follow."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._film: Film | None = None
        self._band: tuple[Sequence[str], int, UInt8[np.ndarray, "h w 3"]] | None = None
        self.said: Sequence[str] = ()

    def passing(self, frames: Iterable[LiveFrame]) -> Iterator[LiveFrame]:
        """The frames as they come, each written before it is given on; those after a gap follow at once."""
        begun, shift, last = False, 0.0, 0.0
        for frame in frames:
            if frame.first:
                shift, self.said = (last + 0.04 if begun else 0.0) - frame.seconds, ()
            begun, last = True, frame.seconds + shift
            height, width = frame.image.shape[:2]
            self._film = self._film or Film(self._path, height, width)
            self._film.add(self._written_over(frame.image), last)
            yield frame

    def close(self) -> None:
        """End the film, if a frame came."""
        if self._film:
            self._film.close()

    def _written_over(self, image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
        height, width = image.shape[:2]
        if self._band is None or self._band[:2] != (self.said, width):
            text = band(self.said, width, max(11, height // _LINES))
            self._band = self.said, width, text[:height]
        text = self._band[2]
        shown = image.copy()
        shown[: len(text)] = np.where(text > 0, text, shown[: len(text)] // 3)
        return shown


def band(lines: Sequence[str], width: int, size: int) -> UInt8[np.ndarray, "h w 3"]:
    """White lines of text, letters `size` pixels high, on black, which stands for what is under them."""
    step = round(1.4 * size)
    paper = Image.new("RGB", (width, step * len(lines)), _PAPER)
    for number, line in enumerate(lines):
        draw_text(paper, (size // 2, number * step), line, size, _INK)
    return np.asarray(paper)
