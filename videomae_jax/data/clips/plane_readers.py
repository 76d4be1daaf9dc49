"""Readers that hand over planes as decoded, which the device crops, scales and makes RGB of.

Those of a video are written once, whatever the number of clips: `planes` (1 T R W) uint8, on a canvas of
H x W with H + H / 2 = R rows. Its first H rows hold brightness; below it are blue, in the left half, and red,
each at half the height and width. What a frame has lies at the top left of each, anything beside it.
`colour` (1 T 6) float32 is the rule that makes RGB of a frame, see `data/video/planes.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from videomae_jax.data.clips.readers import Arrays, Cut, FinetuneClips, Key, PretrainClips, labels_of
from videomae_jax.data.cropping import Box, Size, fitted
from videomae_jax.data.records import VideoRecord
from videomae_jax.data.video.frames import Frame, even
from videomae_jax.data.video.planes import Planes

Canvas = Size
"""Height and width of the planes of brightness, both even."""
# Beside the size of crops: as 256 beside 224, and 16:9 where several crops are taken.
_LARGER, _WIDE = 8 / 7, 16 / 9


@dataclass(frozen=True)
class PretrainPlanes(PretrainClips):
    """As `PretrainClips`, with the same boxes: `planes`, `colour`, `box` (s 2 4) float32, `lies` (s 2).

    `box` is the top, left, height and width of each clip in brightness and in colours. `lies` is 1 where
    a clip is to be mirrored, and where planes lie on their side, before that. Boxes too large for the
    canvas are scaled to fit it: a single one to the size of the crop.
    """

    def __call__(self, record: VideoRecord, key: Key | None) -> Arrays:
        arrays, place, canvas = self.blank(), None, self.canvas
        for frame, wanted, cuts in self._read_cuts(record, key):
            if place is None:
                place = place_clips(frame, cuts, canvas, self.model.frame_size)
                arrays["box"][:], arrays["lies"][:] = place.windows, place.lies
            write_planes(arrays, wanted, place.cut(frame), canvas)
        return arrays

    def blank(self) -> Arrays:
        clips = self.data.num_sample
        return _blank_planes(self.model.num_frames, self.canvas) | {
            "box": np.ones((clips, 2, 4), np.float32),
            "lies": np.zeros((clips, 2), np.int32),
        }

    @property
    def canvas(self) -> Canvas:
        height, width = (side * _LARGER for side in self.model.frame_size)
        if self.data.num_sample > 1:
            width = max(width, height * _WIDE)
        return 2 * round(height / 2), 2 * round(width / 2)


@dataclass(frozen=True)
class FinetunePlanes(FinetuneClips):
    """As `FinetuneClips`, with `planes`, `colour` and `window` (1 2 4) in place of `video`.

    `box` is again the part of the canvas that frames are to fill: planes larger than it are scaled to it,
    smaller ones are as decoded.
    """

    def __call__(self, record: VideoRecord, key: Key | None) -> Arrays:
        arrays, canvas = self.blank(), self.canvas
        for frame, wanted in self._read_stretch(record, key):
            (height, width), transposed = frame.shape, frame.shape[0] > frame.shape[1]
            lying = (width, height) if transposed else (height, width)
            target = fitted(*lying, self.data.canvas)
            size = min(lying, target)
            planes = frame.planes((0, 0, width, height), size[::-1] if transposed else size)
            arrays["window"][:] = _window(0, 0, *size, whole=True)
            arrays["box"][:] = *target, transposed
            write_planes(arrays, wanted, planes.each(np.transpose) if transposed else planes, canvas)
        return arrays | {"label": labels_of(record, self.data.num_sample)}

    def blank(self) -> Arrays:
        arrays = super().blank()
        del arrays["video"]
        window = {"window": np.ones((1, 2, 4), np.float32)}
        return _blank_planes(self.model.num_frames, self.canvas) | window | arrays

    @property
    def canvas(self) -> Canvas:
        height, width = self.data.canvas
        return height + height % 2, width + width % 2


@dataclass(frozen=True)
class Place:
    """The part of frames that is handed over, and where clips are in it."""

    part: Box
    size: tuple[int, int]
    windows: Float32[np.ndarray, "s 2 4"]
    lies: list[tuple[bool, bool]]

    def cut(self, frame: Frame) -> Planes:
        planes = frame.planes(self.part, self.size)
        return planes.each(np.transpose) if self.lies[0][1] else planes


def place_clips(frame: Frame, cuts: Sequence[Cut], canvas: Canvas, crop: Size) -> Place:
    """Where the clips of a video are to be found, by its first frame; `crop` is their size on the device."""
    moves = frame.crops_from_even_places
    boxes = [even(box) if moves else box for box, _ in cuts]
    left, top = (min(box[side] for box in boxes) // 2 * 2 for side in (0, 1))
    right, bottom = (max(box[side] for box in boxes) for side in (2, 3))
    height, width = bottom - top, right - left
    transposed = crop[0] == crop[1] and canvas[0] < canvas[1] and height > max(width, canvas[0])
    room = canvas[::-1] if transposed else canvas
    fits = height <= room[0] and width <= room[1]
    size = (height, width) if fits else crop if len(boxes) == 1 else fitted(height, width, room)
    down, across = size[0] / height, size[1] / width
    windows = [
        _window(
            (y - top) * down, (x - left) * across, (end - y) * down, (stop - x) * across, whole=moves and fits
        )
        for x, y, stop, end in boxes
    ]
    if transposed:
        windows = [window[:, [1, 0, 3, 2]] for window in windows]
    lies = [(mirror, transposed) for _, mirror in cuts]
    return Place((left, top, right, bottom), size, np.stack(windows), lies)


def _window(
    top: float, left: float, height: float, width: float, *, whole: bool
) -> Float32[np.ndarray, "2 4"]:
    """A part of planes in brightness and in colours, of which, in a part cut out, there are `whole` ones."""
    box = np.array([top, left, height, width], np.float32)
    half = box / 2
    if whole:
        half[2:] = np.ceil(half[2:])
    return np.stack([box, half])


def _blank_planes(frames: int, canvas: Canvas) -> Arrays:
    height, width = canvas
    return {
        "planes": np.zeros((1, frames, height + height // 2, width), np.uint8),
        "colour": np.zeros((1, frames, 6), np.float32),
    }


def write_planes(arrays: Arrays, wanted: Bool[np.ndarray, " T"], planes: Planes, canvas: Canvas) -> None:
    """Put the planes of a frame into each place where it is wanted."""
    height, width = canvas
    rows, columns = planes.brightness.shape
    half_rows, half_columns = planes.blue.shape
    for frame in wanted.nonzero()[0]:
        place: UInt8[np.ndarray, "R W"] = arrays["planes"][0, frame]
        place[:rows, :columns] = planes.brightness
        place[height : height + half_rows, :half_columns] = planes.blue
        place[height : height + half_rows, width // 2 : width // 2 + half_columns] = planes.red
        arrays["colour"][0, frame] = planes.colour
