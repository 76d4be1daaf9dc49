"""Reading prepared sets, and other tensorflow-datasets sets of encoded videos, one video at a time.

A video of a set is named by an address, FOLDER#SPLIT/POSITION, which stands where the path of a file would.
Nothing is kept open in what is handed to worker processes: each opens the shards that it reads from.
"""

import csv
import io
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import cached_property, lru_cache
from operator import itemgetter
from typing import Any, Literal

import numpy as np
from etils import epath
from jaxtyping import Float64, Int64, UInt8
from PIL import Image

from videomae_jax.data.records import Split, VideoRecord
from videomae_jax.data.regular_files import check_memory, passing_failure
from videomae_jax.data.set_copies import copy_of
from videomae_jax.data.shards import Shards
from videomae_jax.data.stores import store_answers
from videomae_jax.data.video import VideoError
from videomae_jax.data.video.decoder import MAX_PIXELS, StreamedFrame, Video
from videomae_jax.data.video.frames import Converters, Frame, RgbFrame
from videomae_jax.data.video.images import FrameFolder, decode_image, shrink
from videomae_jax.data.video.prepared import PreparedVideo, read_table
from videomae_jax.data.video.torchcodec import TorchcodecVideo
from videomae_jax.errors import InputError

_ADDRESS = re.compile(r"(?P<folder>.+)#(?P<split>[A-Za-z0-9_.\-]+)/(?P<position>\d+)", re.DOTALL)
_OPEN_SETS = 8
_TABLE = "videos.csv"
_ENCODED = (
    "Sets of encoded videos are read, which have `video`, the bytes of a file, or `frames`, those of images: "
    "make one of the video files with videomae-jax prepare"
)
# Frames that are held to be put in order where a set stores them in several runs.
_REORDERED = 64

_VALIDATION = ("val", "validation", "valid")

Decoder = Literal["pyav", "torchcodec"]
_DECODERS: dict[str, type[Video]] = {"pyav": Video, "torchcodec": TorchcodecVideo}


def is_set(source: str | os.PathLike[str]) -> bool:
    """Whether this is the folder of a tensorflow-datasets set, here or at gs:// or s3://.

    Raises InputError when the package that reads from there is not installed, RunError for what a store says.
    """
    with store_answers(os.fspath(source)):
        return (epath.Path(source) / "dataset_info.json").exists()


def choose_splits(folder: str, use: Split | None) -> tuple[str, ...]:
    """The splits that are meant by a set which is named without one.

    Raises InputError where the set has none for this use.
    """
    there = tuple(_builder(folder).info.splits)
    if use is None:
        return there
    wanted = ("train",) if use == "train" else _VALIDATION
    if found := [split for split in wanted if split in there]:
        return (found[0],)
    what = "training" if use == "train" else "validation"
    raise InputError(
        f"{folder} has no {what} split, only {', '.join(there)}: say which one is meant, as "
        f"{folder}#{there[-1]}"
    )


def has_table(folder: str | os.PathLike[str]) -> bool:
    """Whether a set says in a table what its videos are called and which labels they have."""
    return (epath.Path(folder) / _TABLE).exists()


def read_set(
    folder: str | os.PathLike[str], split: str = "train"
) -> tuple[tuple[VideoRecord, ...], tuple[str, ...]]:
    """The videos of one split, and the names of its classes; no video is read.

    A set that was not made by `videomae-jax prepare` has no table of videos: names are then positions, and
    labels are found by set_labels.py. Raises InputError when there is no such set or split.
    """
    folder = os.fspath(folder)
    source = _data_source(folder, split)
    if has_table(folder):
        table = epath.Path(folder) / _TABLE
        rows = [row for row in csv.DictReader(io.StringIO(table.read_text())) if row["split"] == split]
        if len(rows) != len(source):
            raise InputError(f"{table} has {len(rows)} videos of the split {split}, the set {len(source)}")
        told = [(row["name"], None if row["label"] == "-1" else int(row["label"])) for row in rows]
    else:
        told = [(f"{split}/{position}", None) for position in range(len(source))]
    records = (
        VideoRecord(f"{folder}#{split}/{position}", name, label)
        for position, (name, label) in enumerate(told)
    )
    label: Any = dict(source.dataset_info.features.items()).get("label")
    return tuple(records), tuple(label.names) if getattr(label, "num_classes", None) else ()


class SetVideo:
    """A video of a set, open for reading; see `open_record`. Times are those of the video's source."""

    def __init__(
        self,
        address: str,
        example: dict[str, Any],
        decoder: Decoder = "pyav",
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.path, self._max_pixels, self._decoder = address, max_pixels, _DECODERS[decoder]
        self._images: Sequence[bytes] = example.get("frames", ())
        self._content: bytes = b"" if self._images else example["video"]
        if "timestamps_us" in example:
            self.timestamps: Float64[np.ndarray, " n"] = example["timestamps_us"] / 1e6
        elif not self._images:
            self.timestamps = self._video.timestamps
        else:
            raise InputError(f"{address} is a list of frames without `timestamps_us`")
        own = decoder == "pyav" and "num_runs" in example  # Which other sets do not have.
        self._table = read_table(self._content, len(self.timestamps), max_pixels) if own else None
        self._runs = runs = int(example.get("num_runs", 1))
        count = len(self.timestamps)
        # Where each frame lies in the file: run by run.
        order = np.concatenate([np.arange(run, count, runs) for run in range(runs)])
        self._stored_at: Int64[np.ndarray, " n"] = np.argsort(order)

    def close(self) -> None:
        if "_video" in vars(self):
            self._video.close()

    @cached_property
    def _video(self) -> Video:
        """For what is not as `prepare` writes it, and for torchcodec."""
        return self._decoder(self.path, self._content, self._max_pixels)

    def frames(self, indices: Sequence[int] | np.ndarray) -> UInt8[np.ndarray, "n h w 3"]:
        """RGB frames at these positions in `timestamps`, in any order, repeats allowed."""
        found = dict(self.read([int(index) for index in indices]))
        return np.stack([found[int(index)] for index in indices])

    def read(self, indices: Sequence[int]) -> Iterator[tuple[int, UInt8[np.ndarray, "h w 3"]]]:
        """Yield (index, RGB frame) for each different index, rising, as a video file does."""
        wanted = sorted(set(indices))
        step = len(wanted) if self._runs == 1 else _REORDERED
        for first in range(0, len(wanted), step or 1):
            found = ((index, frame.rgb()) for index, frame in self.read_frames(wanted[first : first + step]))
            yield from found if self._runs == 1 else sorted(found, key=itemgetter(0))

    def stream(self, short_side: int | None = None, *, even: bool = False) -> Iterator[StreamedFrame]:
        """Every frame, at most `short_side` pixels on its short side; see `Video.stream`."""
        for index, image in self.read(range(len(self.timestamps))):
            yield StreamedFrame(index, shrink(Image.fromarray(image), short_side, even=even), False)

    def read_frames(self, indices: Sequence[int]) -> Iterator[tuple[int, Frame]]:
        """As `read`, but in the order in which they are stored, and not in RGB yet where they come from a
        video."""
        count = len(self.timestamps)
        if outside := [index for index in indices if not 0 <= index < count]:
            raise IndexError(f"{self.path}: frame {outside[0]} asked for, but it has frames 0 to {count - 1}")
        stored = {int(self._stored_at[index]): index for index in indices}
        if not self._images:
            for position, frame in self._decode(sorted(stored)):
                yield stored[position], frame
            return
        converters = Converters(self.path)
        for position in sorted(stored):
            file = io.BytesIO(self._images[position])
            image = decode_image(file, self.path, f"frame {position}", self._max_pixels)
            yield stored[position], RgbFrame(np.array(image), converters)

    def _decode(self, positions: list[int]) -> Iterator[tuple[int, Frame]]:
        """Frames of the video by where they are stored."""
        found = 0
        if self._table:
            prepared = PreparedVideo(self.path, self._content, self._table, self._max_pixels)
            for position, frame in prepared.read_frames(positions):
                found += 1
                yield position, frame
        if found < len(positions):
            yield from self._video.read_frames(positions[found:])


OpenVideo = Video | SetVideo | FrameFolder


@contextmanager
def open_record(
    record: VideoRecord, decoder: Decoder = "pyav", max_pixels: int = MAX_PIXELS
) -> Iterator[OpenVideo]:
    """Open a video, a file, a folder of frames or in a set, of frames with at most `max_pixels`.

    Raises VideoError, also for what is read of it; MemoryError where there is no memory to read it with.
    """
    try:
        with closing(_open(record, decoder, max_pixels)) as video:
            yield video
    except VideoError:
        check_memory()  # Decoders call a video damaged for which they are refused memory.
        raise


def _open(record: VideoRecord, decoder: Decoder, max_pixels: int) -> OpenVideo:
    if os.path.isdir(record.path):
        return FrameFolder(record.path, max_pixels)
    parts = _ADDRESS.fullmatch(record.path) if stored_set(record) else None
    if not parts:
        return _DECODERS[decoder](record.path, max_pixels=max_pixels)
    source = _data_source(parts["folder"], parts["split"])
    position = int(parts["position"])
    if position >= len(source):
        raise VideoError(record.path, "missing", f"the split has {len(source)} videos")
    try:
        example = source[position]
    except (ValueError, RuntimeError, OSError) as error:  # What array_record raises, whatever it is.
        reason = "unreadable" if passing_failure(error) else "damaged"
        raise VideoError(record.path, reason, f"the shard cannot be read: {error}") from error
    return SetVideo(record.path, example, decoder, max_pixels)


def find_segment(record: VideoRecord, video: OpenVideo) -> tuple[int, int]:
    """The position of the record's first frame in its video, and how many frames it has.

    Raises VideoError where none is there.
    """
    frames = len(video.timestamps)
    first = video.position(record.start) if isinstance(video, FrameFolder) else record.start
    if first >= frames:
        detail = f"the segment starts at frame {first}, but it has {frames} frames"
        raise VideoError(record.path, "segment-outside" if frames else "no-frames", detail)
    count = frames - first
    return first, count if record.total == -1 else min(count, record.total)


def stored_set(record: VideoRecord) -> str:
    """The folder of the set that holds a video; empty for a file."""
    parts = _ADDRESS.fullmatch(record.path)
    return parts["folder"] if parts and not os.path.exists(record.path) else ""


def set_and_split(record: VideoRecord) -> tuple[str, str]:
    """Those that a video of a set is in."""
    parts = _ADDRESS.fullmatch(record.path)
    assert parts, record.path
    return parts["folder"], parts["split"]


def files_of_split(folder: str, split: str) -> Iterator[tuple[str, str, str]]:
    """The name, length and time of change of each shard."""
    for file in map(epath.Path, _data_source(folder, split).dataset_info.splits[split].filepaths):
        found = file.stat()
        yield file.name, str(found.length), str(found.mtime)


def read_label(record: VideoRecord) -> int | None:
    """The label in a set's record, for sets without a table of videos; the whole record is read for it."""
    parts = _ADDRESS.fullmatch(record.path)
    assert parts, record.path
    label = int(_data_source(parts["folder"], parts["split"])[int(parts["position"])].get("label", -1))
    return None if label == -1 else label


@lru_cache(_OPEN_SETS)
def _data_source(folder: str, split: str) -> Any:
    """The random-access source of tensorflow-datasets over a split, in this process."""
    from videomae_jax.data.tfds import tfds

    builder = _builder(folder, split)
    if split not in builder.info.splits:
        raise InputError(f"{folder} has no split {split!r}, but {', '.join(sorted(builder.info.splits))}")
    features = builder.info.features
    if not isinstance(features, tfds.features.FeaturesDict) or not {"video", "frames"} & set(features):
        raise InputError(f"{folder} holds {features}. {_ENCODED}")
    for name, shape in (("video", ()), ("frames", (None,))):
        if name in features and (features[name].shape, features[name].np_dtype) != (shape, np.object_):
            raise InputError(f"{folder} has a `{name}` of decoded frames, {features[name]}. {_ENCODED}")
    source = builder.as_data_source(split)
    if source.dataset_info.file_format.value == "array_record":
        source.data_source = Shards(builder.info.splits[split].file_instructions)
    return source


def _builder(folder: str, split: str | None = None) -> Any:
    """What tensorflow-datasets knows of a set, of which this split is read; raises InputError where there is
    none."""
    from videomae_jax.data.tfds import tfds

    if not is_set(folder):
        unfinished = (epath.Path(folder) / ".prepare").exists()
        what = "a set that `videomae-jax prepare` has not finished" if unfinished else "no dataset_info.json"
        raise InputError(f"{folder} holds {what}; name the folder of a complete set")
    place = folder
    if folder.startswith("s3://"):
        place = copy_of(folder, split)
        _check_whole(place, [split] if split else [])
    else:
        _check_whole(place)
    try:
        return tfds.builder_from_directory(place)
    except ImportError as error:  # Features of images and of decoded frames need TensorFlow.
        raise InputError(f"{folder} cannot be read: {error}. {_ENCODED}") from error


def _check_whole(folder: str, splits: Sequence[str] | None = None) -> None:
    """Raise InputError where shards of these splits, or all, are not as long as the set's card says.

    array_record finds a byte that was changed, but of a shard that was cut short it gives empty videos.
    """
    card = os.path.join(folder, "card.json")
    if not os.path.exists(card):
        return
    with open(card, encoding="utf-8") as file:
        told = json.load(file)["splits"]
    chosen = told if splits is None else [split for split in splits if split in told]
    for shard in (shard for split in chosen for shard in told[split]["shards"]):
        path = os.path.join(folder, shard["file"])
        size = os.path.getsize(path) if os.path.exists(path) else 0
        if size != shard["bytes"]:
            raise InputError(
                f"{path} has {size} of the {shard['bytes']} bytes that {card} says: copy it again"
            )
