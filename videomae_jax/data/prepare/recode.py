"""One video as it is stored: decoded once, scaled, and encoded again, in a worker process."""

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64, UInt8
from PIL import Image

from videomae_jax.data.prepare.settings import Storage
from videomae_jax.data.records import VideoRecord
from videomae_jax.data.sets import OpenVideo, find_segment, open_record, stored_set
from videomae_jax.data.stores import at_hand, in_store
from videomae_jax.data.video import VideoError
from videomae_jax.data.video.decoder import StreamedFrame
from videomae_jax.data.video.images import FrameFolder
from videomae_jax.data.video.writing import encode_video


@dataclass(frozen=True)
class Recoded:
    """A video as it is stored."""

    video: bytes
    """The mp4 file; empty in the JPEG form."""
    frames: tuple[bytes, ...]
    """JPEG files; empty in the video form."""
    timestamps: Float64[np.ndarray, " n"]
    """When each stored frame is shown in the source, in seconds, rising."""
    height: int
    width: int
    num_runs: int
    """Runs of frames that the mp4 holds one after the other: frames 0, n, 2n, ..., then 1, n + 1, ..."""
    note: str
    """What a damaged source has lost."""


@dataclass(frozen=True)
class Recode:
    """Makes the stored form of a video, or says why it cannot: a pure function of the file and `storage`."""

    storage: Storage
    scratch: Path = Path()
    """Where files of a store are copied to, for as long as they are read."""

    def __call__(self, record: VideoRecord) -> Recoded | VideoError:
        try:
            with (
                self._at_hand(record) as here,
                open_record(here, max_pixels=self.storage.max_pixels) as video,
            ):
                return self._recode(here, video)
        except VideoError as error:
            return VideoError(record.path, error.reason, error.detail)

    @contextmanager
    def _at_hand(self, record: VideoRecord) -> Iterator[VideoRecord]:
        """The record of a file that the decoder can open."""
        if not in_store(record.path) or stored_set(record):
            yield record
            return
        try:
            with at_hand(record.path, self.scratch) as copy:
                yield replace(record, path=copy)
        except FileNotFoundError as error:
            raise VideoError(record.path, "missing", "there is no such file") from error
        except PermissionError as error:
            raise VideoError(record.path, "unreadable", "Permission denied") from error

    def _recode(self, record: VideoRecord, video: OpenVideo) -> Recoded:
        short_side, even = self.storage.short_side or None, self.storage.form == "video"
        if isinstance(video, FrameFolder):
            times = np.arange(len(video.timestamps)) / self.storage.image_fps
            wanted = self._choose(record, video, times)
            frames = video.stream(wanted.tolist(), short_side, even=even)
        else:
            times = video.timestamps
            wanted = self._choose(record, video, times)
            frames = video.stream(short_side, even=even)
        return self._encode(record, frames, wanted, times)

    def _choose(
        self, record: VideoRecord, video: OpenVideo, times: Float64[np.ndarray, " n"]
    ) -> Int64[np.ndarray, " m"]:
        """Positions of the frames to store: the record's segment, thinned out to `max_fps` and by rate."""
        first, count = find_segment(record, video)
        chosen = np.arange(first, first + count)
        if self.storage.max_fps:
            # A hair is added because times are rounded: 0.0999 s is the frame of 0.1 s.
            since = times[chosen] - times[chosen[0]]
            ticks = np.floor(since * self.storage.max_fps + 0.01)
            chosen = chosen[np.diff(ticks, prepend=-1) > 0]
        return chosen[:: self.storage.sampling_rate] if self.storage.phases == "first" else chosen

    def _encode(
        self,
        record: VideoRecord,
        frames: Iterable[StreamedFrame],
        wanted: Int64[np.ndarray, " m"],
        times: Float64[np.ndarray, " n"],
    ) -> Recoded:
        storage, seen = self.storage, _Seen()
        images = _wanted_only(frames, set(wanted.tolist()), seen)
        first = next(images, None)
        if first is None:
            raise VideoError(record.path, "no-frames", "nothing in it decodes")
        images, num_runs = chain([first], images), 1
        video: bytes = b""
        files: tuple[bytes, ...] = ()
        if storage.form == "jpeg":
            files = tuple(_to_jpeg(image, storage.jpeg_quality) for image in images)
        else:
            num_runs = storage.sampling_rate if storage.phases == "all" else 1
            fps = _mean_rate(times[wanted]) / num_runs
            video = encode_video(
                record.path,
                images,
                fps,
                keyframe_every=storage.keyframe_every,
                crf=storage.crf,
                num_runs=num_runs,
            )
        height, width = first.shape[:2]
        stored = times[np.array(seen.indices)]
        return Recoded(video, files, stored, height, width, num_runs, seen.note(len(wanted)))


@dataclass
class _Seen:
    """What has gone by in a pass over a video."""

    indices: list[int] = field(default_factory=list)
    concealed: int = 0

    def note(self, wanted: int) -> str:
        lost = wanted - len(self.indices)
        notes = [f"{lost} of {wanted} frames do not decode"] if lost else []
        return "; ".join(notes + ([f"{self.concealed} frames are patched up"] if self.concealed else []))


def _wanted_only(
    frames: Iterable[StreamedFrame], wanted: set[int], seen: _Seen
) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    last = max(wanted)
    for index, image, concealed in frames:
        if index in wanted:
            seen.indices.append(index)
            seen.concealed += concealed
            yield image
        if index >= last:
            return


def _mean_rate(times: Float64[np.ndarray, " n"]) -> float:
    """Frames per second; 25 for frames of one time, and within what an mp4 file can say."""
    seconds = times[-1] - times[0]
    return float(np.clip((len(times) - 1) / seconds, 0.01, 1000)) if seconds > 0 else 25.0


def _to_jpeg(image: UInt8[np.ndarray, "h w 3"], quality: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(file, "JPEG", quality=quality)
    return file.getvalue()
