"""Features of video files: one vector for each video, or one for each window of a long one.

`VideoEncoder.from_pretrained("runs/mine")("clip.mp4")` is the vector of a video.
"""

import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, UInt8

from videomae_jax.config import LabelledDataConfig, ViewsConfig
from videomae_jax.data.clips.readers import OneSegment, TestViews
from videomae_jax.data.loading.batches import chosen_clips, each_video
from videomae_jax.data.loading.failures import Failure
from videomae_jax.data.loading.order import ChosenClipSlots
from videomae_jax.data.records import VideoLike, VideoRecord, as_records
from videomae_jax.data.sets import Decoder, find_segment, open_record
from videomae_jax.data.video import VideoError
from videomae_jax.data.video.decoder import MAX_PIXELS
from videomae_jax.errors import InputError
from videomae_jax.inference.features.clip_encoder import ClipEncoder
from videomae_jax.inference.features.windows import Fit, Windows, fitted, read_clips
from videomae_jax.inference.views import Inference, Sampling, check_at_least_one, choose_views
from videomae_jax.model_config import Dtype, VideoMAEConfig


class VideoFeatures(NamedTuple):
    """The features of a video's clips."""

    record_id: int
    """Position in the videos asked for."""
    clips: Float32[np.ndarray, "s ..."]
    seconds: Float64[np.ndarray, "s 2"]
    """When each clip begins and ends."""


class WindowFeatures(NamedTuple):
    """The features of some windows of a video, one after the other."""

    features: Float32[np.ndarray, "n ..."]
    seconds: Float64[np.ndarray, "n 2"]
    """When each window begins and ends."""
    end: float
    """When the video's last window ends, in seconds."""


class VideoEncoder:
    """An encoder of video files; see `ClipEncoder` for what its features are."""

    def __init__(
        self, encoder: ClipEncoder, data: LabelledDataConfig, num_segments: int = 1, num_workers: int = 0
    ) -> None:
        """`data` says which frames a clip takes, by its `sampling` and `sampling_rate`."""
        self.encoder, self.data = encoder, data
        self._read = TestViews(encoder.config, data, ViewsConfig(num_segments, 1), times=True)
        self.num_segments, self._num_workers = num_segments, num_workers

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        revision: str | None = None,
        layer: int | None = None,
        tokens: bool = False,
        sampling: Sampling | None = None,
        sampling_rate: int | None = None,
        num_segments: int = 1,
        batch_size: int = 8,
        num_workers: int = 0,
        decoder: Decoder = "pyav",
        max_pixels: int = MAX_PIXELS,
        dtype: Dtype = "auto",
    ) -> "VideoEncoder":
        """From a work folder, a step folder, a Hugging Face folder or a hub id; see `ExtractFeatures`.

        Raises InputError where there are no such weights or no such layer.
        """
        settings = Inference(
            sampling=sampling, sampling_rate=sampling_rate, decoder=decoder, max_pixels=max_pixels
        )
        data, views = choose_views(source, settings, num_segments, 1, revision)
        encoder = ClipEncoder.from_pretrained(
            source, revision=revision, layer=layer, tokens=tokens, batch_size=batch_size, dtype=dtype
        )
        return cls(encoder, data, views.num_segments, num_workers)

    @property
    def config(self) -> VideoMAEConfig:
        """The model's."""
        return self.encoder.config

    def __call__(
        self, videos: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
    ) -> Float32[np.ndarray, "..."]:
        """The features of a video file, averaged over its clips; of several files, with a leading axis.

        Raises InputError with the reason when a file cannot be read.
        """
        if isinstance(videos, str | os.PathLike):
            return self([videos])[0]
        found = []
        for each in self.each(videos):
            if isinstance(each, Failure):
                raise InputError(each.error)
            found.append(each.clips.mean(axis=0))
        return np.stack(found)

    def windows(
        self, video: str | os.PathLike[str], stride: int, chunk: int | None = None
    ) -> tuple[Float32[np.ndarray, "n ..."], Float64[np.ndarray, "n 2"]]:
        """Features of windows of `chunk` frames, `stride` frames apart, and when each begins and ends.

        By default a window is as long as a clip. Raises InputError when the file cannot be read.
        """
        [record] = as_records([video])
        try:
            parts = list(self.each_window(record, self.make_windows(stride, chunk)))
        except VideoError as error:
            raise InputError(str(error)) from error
        return np.concatenate([part.features for part in parts]), np.concatenate(
            [part.seconds for part in parts]
        )

    def sampling(self) -> dict[str, Any]:
        """Which clips are taken of a video, for JSON."""
        settings = {name: getattr(self.data, name) for name in ("sampling", "sampling_rate")}
        # Features of frames that were scaled in another way are others.
        settings |= {"num_segments": self.num_segments, "scaling": "bilinear samples"}
        return settings | self.decoding()

    def decoding(self) -> dict[str, Any]:
        """How videos are decoded, for JSON, where it is not the usual way."""
        usual = {"decoder": "pyav", "max_pixels": MAX_PIXELS}
        return {name: found for name, each in usual.items() if (found := getattr(self.data, name)) != each}

    def make_windows(self, stride: int, chunk: int | None = None) -> Windows:
        """Windows for this model; raises InputError when they are too short for its frames."""
        frames = self.encoder.config.num_frames
        chunk = frames * self.data.sampling_rate if chunk is None else chunk
        check_at_least_one(stride=stride)
        if chunk < frames:
            raise InputError(f"--chunk {chunk} is less than the {frames} frames that the model takes")
        return Windows(frames, chunk, stride)

    def each(
        self, videos: Iterable[VideoLike], start_anew_after: int | None = None
    ) -> Generator[VideoFeatures | Failure, None, None]:
        """The features of each video's clips, or why it could not be read, as they come.

        After every `start_anew_after` videos a new batch begins on the devices, so that features depend on
        nothing before; the results of these videos come before those of any later one.
        """
        records = as_records(videos)
        size, per_video = self.encoder.batch_size, self.num_segments
        whole, slots = start_anew_after or len(records), self._videos_at_a_time(start_anew_after)
        due = deque[tuple[int, np.ndarray] | Failure]()

        def batches() -> Generator[list[UInt8[np.ndarray, "T S S 3"]], None, None]:
            clips: list[UInt8[np.ndarray, "T S S 3"]] = []
            read = each_video(records, self._read, batch_size=slots, num_workers=self._num_workers)
            with closing(read):
                for number, batch in enumerate(read, 1):
                    due.extend(batch.failures)
                    for first in range(0, len(batch.record_ids), per_video):
                        part = slice(first, first + per_video)
                        if (record_id := int(batch.record_ids[first])) >= 0:
                            due.append((record_id, batch.arrays["seconds"][part]))
                            clips.extend(batch.arrays["video"][part])
                    while len(clips) >= size or (clips and number * slots % whole == 0):
                        yield clips[:size]
                        del clips[:size]
            if clips:
                yield clips

        source = batches()
        rows = np.zeros((0, *self.encoder.row), np.float32)
        with closing(source):
            for encoded in chain(self.encoder.encode_batches(source), [rows]):
                rows = np.concatenate([rows, encoded])
                while due and (isinstance(due[0], Failure) or len(rows) >= per_video):
                    found = due.popleft()
                    if isinstance(found, Failure):
                        yield found
                        continue
                    yield VideoFeatures(found[0], rows[:per_video], found[1])
                    rows = rows[per_video:]

    def each_readable(
        self, videos: Sequence[VideoRecord], start_anew_after: int
    ) -> Generator[int | Failure, None, None]:
        """The position of each video whose clips can be read, or why they cannot; order: see `each`."""
        slots = self._videos_at_a_time(start_anew_after)
        for batch in each_video(videos, self._read, batch_size=slots, num_workers=self._num_workers):
            yield from batch.failures
            ids = batch.record_ids[:: self.num_segments]
            yield from ids[ids >= 0].tolist()

    def chosen(
        self, slots: ChosenClipSlots, counts: Iterable[int]
    ) -> Generator[Float32[np.ndarray, "_ ..."], None, None]:
        """The features of chosen clips, so many at a time as `counts` says (all above 0).

        Raises RunError when a clip cannot be read.
        """
        size, counts = self.encoder.batch_size, tuple(counts)
        reader = OneSegment(self.config, self.data, self.num_segments)
        read = chosen_clips(slots, reader, batch_size=size, num_workers=self._num_workers)
        clips = (clip for batch in read for clip in batch.arrays["video"])
        sizes = (min(size, count - first) for count in counts for first in range(0, count, size))
        with closing(read):
            encoded = self.encoder.encode_batches(list(islice(clips, each)) for each in sizes)
            for count in counts:
                yield np.concatenate([next(encoded) for _ in range(0, count, size)])

    def _videos_at_a_time(self, divides: int | None) -> int:
        """How many videos are read at a time, which divides a number where one is given."""
        most = max(1, self.encoder.batch_size // self.num_segments)
        return most if divides is None else max(n for n in range(1, most + 1) if divides % n == 0)

    def each_window(
        self, record: VideoRecord, windows: Windows, fit: Fit = "centre"
    ) -> Iterator[WindowFeatures]:
        """The features of a video's windows, some at a time; raises VideoError where it cannot be read."""
        with open_record(record, self.data.decoder, self.data.max_pixels) as video:
            times = video.timestamps
            first, count = find_segment(record, video)
            indices = windows.indices(first, count)
            seconds = windows.seconds(times, first, count)
            prepare = partial(fitted, size=self.encoder.config.frame_size, fit=fit)
            done = 0
            for rows in self.encoder.encode(read_clips(video, indices, prepare)):
                part = slice(done, done + len(rows))
                yield WindowFeatures(rows, seconds[part], float(seconds[-1, 1]))
                done += len(rows)
