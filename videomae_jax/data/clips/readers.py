"""What one video becomes: readers, which are called in worker processes and can be pickled.

A reader makes named arrays of a video, all with a leading axis s of clips. It draws from the `key` that it is
given, (seed, epoch, place, attempt), and without one takes the middle.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt8

from videomae_jax.config import DataConfig, LabelledDataConfig, VideosConfig, ViewsConfig
from videomae_jax.data.clips.sampling import (
    clip_seconds,
    draw_end,
    draw_start,
    draw_uniform_indices,
    finetune_indices,
    pretrain_indices,
    segment_indices,
)
from videomae_jax.data.cropping import Box, centre_crop, draw_box, fit_canvas, scale_to_cover, view_boxes
from videomae_jax.data.records import VideoRecord
from videomae_jax.data.sets import find_segment, open_record
from videomae_jax.data.video.frames import Frame
from videomae_jax.model_config import VideoMAEConfig

Arrays = dict[str, np.ndarray]
Key = tuple[int, ...]
Cut = tuple[Box, bool]
"""The box of a clip, and whether the clip is mirrored."""
# The first number of every key; see data/loading/order.py.
_CLIP = 3


@runtime_checkable
class Reader(Protocol):
    """Makes arrays of a video."""

    def __call__(self, record: VideoRecord, key: Key | None) -> Arrays:
        """The arrays of one video, by name; raises VideoError when it cannot be read."""

    def blank(self) -> Arrays:
        """Zeros in the shapes and types that every video gives."""


@dataclass(frozen=True)
class PretrainClips:
    """One stretch of a video, cropped `data.num_sample` times: `video` (s T H W 3) uint8."""

    model: VideoMAEConfig
    data: DataConfig

    def __call__(self, record: VideoRecord, key: Key | None) -> Arrays:
        arrays, size = self.blank(), self.model.frame_size
        for frame, wanted, cuts in self._read_cuts(record, key):
            for clip, (box, mirror) in zip(arrays["video"], cuts, strict=True):
                part = frame.crop(box, size)
                clip[wanted] = part[:, ::-1] if mirror else part
        return arrays

    def blank(self) -> Arrays:
        return {"video": _black(self.data.num_sample, self.model)}

    def _read_cuts(
        self, record: VideoRecord, key: Key | None
    ) -> Iterator[tuple[Frame, Bool[np.ndarray, " T"], list[Cut]]]:
        """Each frame that is needed, where, and what each clip takes of all frames."""
        rngs, cuts = _generators(key, self.data.num_sample), None
        shape = self.model.num_frames, self.data.sampling_rate

        def choose(count: int) -> Int64[np.ndarray, "1 T"]:
            return pretrain_indices(count, *shape, draw_start(rngs[0], count, *shape))[None]

        for frame, (wanted,) in _read_frames(record, choose, self.data):
            cuts = cuts or [self._draw_cut(rng, *frame.shape) for rng in rngs]
            yield frame, wanted, cuts

    def _draw_cut(self, rng: np.random.Generator, height: int, width: int) -> Cut:
        box = draw_box(rng, height, width, self.model.frame_size, self.data.crop_scales)
        return box, self.data.flip and bool(rng.random() < 0.5)


@dataclass(frozen=True)
class FinetuneClips:
    """One stretch of a labelled video, not cropped yet, s = `data.num_sample` times, to be augmented each.

    `video` (s T H W 3) uint8 has frames scaled to fit into `data.canvas` (H, W) at its top left, zeros
    elsewhere; `box` (s 3) int32 holds their height, their width, and 1 where upright frames were transposed
    to lie on their side; `label` (s) int32.
    """

    model: VideoMAEConfig
    data: LabelledDataConfig

    def __call__(self, record: VideoRecord, key: Key | None) -> Arrays:
        arrays = self.blank()
        for frame, wanted in self._read_stretch(record, key):
            scaled, transposed = fit_canvas(frame.rgb(), self.data.canvas)
            height, width = scaled.shape[:2]
            arrays["video"][:, wanted, :height, :width] = scaled
            arrays["box"][:] = height, width, transposed
        return arrays | {"label": labels_of(record, self.data.num_sample)}

    def blank(self) -> Arrays:
        count = self.data.num_sample
        return {
            "video": np.zeros((count, self.model.num_frames, *self.data.canvas, 3), np.uint8),
            "box": np.zeros((count, 3), np.int32),
            "label": np.zeros(count, np.int32),
        }

    def _read_stretch(
        self, record: VideoRecord, key: Key | None
    ) -> Iterator[tuple[Frame, Bool[np.ndarray, " T"]]]:
        """Each frame that is needed, and where."""
        model, data = self.model, self.data
        rng, *_ = _generators(key, data.num_sample)

        def choose(count: int) -> Int64[np.ndarray, "1 T"]:
            if data.sampling == "uniform":
                return draw_uniform_indices(rng, count, model.num_frames)[None]
            shape = count, model.num_frames, data.sampling_rate
            return finetune_indices(*shape, draw_end(rng, *shape))[None]

        for frame, (wanted,) in _read_frames(record, choose, self.data):
            yield frame, wanted


@dataclass(frozen=True)
class TestViews:
    """Temporal segments and spatial crops of a video: `video` (s T H W 3) uint8, `label` (1) int32 or -1.

    s = `views.num_segments` * `views.num_crops`, crops of the first segment first; one pass over the video.
    With `times`, also when each segment begins and ends, in seconds: `seconds` (segments 2).
    """

    model: VideoMAEConfig
    data: VideosConfig
    views: ViewsConfig
    times: bool = False

    def __call__(self, record: VideoRecord, key: Key | None) -> Arrays:
        segments, crops = self.views.num_segments, self.views.num_crops
        size, arrays = self.model.frame_size, self.blank()
        views = arrays["video"].reshape(segments, crops, *arrays["video"].shape[1:])
        for frame, wanted in _read_frames(record, self._choose, self.data, arrays.get("seconds")):
            scaled = scale_to_cover(frame.rgb(), size)
            for crop, (left, top, right, bottom) in enumerate(
                view_boxes(scaled.shape[0], scaled.shape[1], size, crops)
            ):
                views[:, crop][wanted] = scaled[top:bottom, left:right]
        return arrays | {"label": labels_of(record, 1)}

    def blank(self) -> Arrays:
        segments = self.views.num_segments
        arrays = {
            "video": _black(segments * self.views.num_crops, self.model),
            "label": np.zeros(1, np.int32),
        }
        return arrays | ({"seconds": np.zeros((segments, 2))} if self.times else {})

    def _choose(self, count: int) -> Int64[np.ndarray, "segments T"]:
        return segment_indices(count, self.model.num_frames, self.data, self.views.num_segments)


@dataclass(frozen=True)
class OneSegment:
    """The centre crop of one of `segments` temporal segments, which the key says: `video` (1 T H W 3)."""

    model: VideoMAEConfig
    data: VideosConfig
    segments: int

    def __call__(self, record: VideoRecord, key: Key | None) -> Arrays:
        assert key is not None, "the key says which"
        (segment,), arrays = key, self.blank()

        def choose(count: int) -> Int64[np.ndarray, "1 T"]:
            return segment_indices(count, self.model.num_frames, self.data, self.segments)[segment][None]

        for frame, wanted in _read_frames(record, choose, self.data):
            arrays["video"][0][wanted[0]] = centre_crop(frame.rgb(), self.model.frame_size)
        return arrays

    def blank(self) -> Arrays:
        return {"video": _black(1, self.model)}


def centre_view(model: VideoMAEConfig, data: VideosConfig) -> TestViews:
    """The reader for validation: the centre crop of the middle clip."""
    return TestViews(model, data, ViewsConfig(num_segments=1, num_crops=1))


def _generators(key: Key | None, num_sample: int) -> list[np.random.Generator]:
    """A random generator for each clip of a video; the first also draws the frames, which all clips share."""
    assert key is not None, "readers for training draw from a key"
    return [np.random.default_rng([_CLIP, *key, clip]) for clip in range(num_sample)]


def _black(clips: int, model: VideoMAEConfig) -> UInt8[np.ndarray, "clips T H W 3"]:
    return np.zeros((clips, model.num_frames, *model.frame_size, 3), np.uint8)


def labels_of(record: VideoRecord, num_sample: int) -> np.ndarray:
    return np.full(num_sample, -1 if record.label is None else record.label, np.int32)


def _read_frames(
    record: VideoRecord,
    choose: Callable[[int], Int64[np.ndarray, "s T"]],
    data: VideosConfig,
    seconds: Float64[np.ndarray, "s 2"] | None = None,
) -> Iterator[tuple[Frame, Bool[np.ndarray, "s T"]]]:
    """Each frame that is needed, and where; `choose` gives frames of the segment by its length.

    `seconds`, where given, is filled with when each clip begins and ends.
    """
    with open_record(record, data.decoder, data.max_pixels) as video:
        first, count = find_segment(record, video)
        indices = first + choose(count)
        if seconds is not None:
            seconds[:] = clip_seconds(video.timestamps, indices[:, 0], indices[:, -1] + 1)
        for index, frame in video.read_frames(np.unique(indices).tolist()):
            yield frame, indices == index
