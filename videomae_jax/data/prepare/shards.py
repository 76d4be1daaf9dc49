"""Writes one shard as a whole: the array_record file and beside it, until the set is done, what is in it.

A shard exists under its own name only when it is complete. What is known of its videos is written first, so a
shard is done exactly when both files are there.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter

from videomae_jax.data.prepare.place import WORK_FOLDER, Place
from videomae_jax.data.prepare.plan import Plan, Shard
from videomae_jax.data.prepare.recode import Recoded
from videomae_jax.data.records import VideoRecord
from videomae_jax.data.tfds import tfds
from videomae_jax.data.video import VideoError
from videomae_jax.errors import in_utf8
from videomae_jax.files import write_json


@dataclass(frozen=True)
class StoredVideo:
    """What is known of a video in a shard: a row of videos.csv."""

    name: str
    label: int
    """-1 without a label."""
    frames: int
    seconds: float
    height: int
    width: int
    bytes: int
    note: str


@dataclass(frozen=True)
class BadVideo:
    """A video that is not in the set, and why: a row of bad.csv."""

    name: str
    reason: str
    detail: str


@dataclass(frozen=True)
class ShardReport:
    """What a finished shard holds."""

    sha256: str
    file_bytes: int
    example_bytes: int
    stored: tuple[StoredVideo, ...]
    bad: tuple[BadVideo, ...]


def make_features(plan: Plan) -> tfds.features.FeaturesDict:
    """The features of a prepared set, none of which needs TensorFlow."""
    encoded = tfds.features.Tensor(shape=(), dtype=np.object_)
    return tfds.features.FeaturesDict(
        {
            "label": tfds.features.ClassLabel(names=list(plan.classes))
            if plan.classes
            else tfds.features.Scalar(np.int64),
            "name": tfds.features.Text(),
            "num_runs": tfds.features.Scalar(np.int64),
            # Microseconds: a tf.train.Example holds floats in single precision only.
            "timestamps_us": tfds.features.Tensor(shape=(None,), dtype=np.int64),
            **(
                {"video": encoded}
                if plan.storage.form == "video"
                else {"frames": tfds.features.Sequence(encoded)}
            ),
        }
    )


def write_shard(
    place: Place, shard: Shard, features: tfds.features.FeaturesDict, recoded: Iterable[Recoded | VideoError]
) -> ShardReport:
    """Write a shard of `recoded`, one for each of its videos, whole or not at all."""
    # Several machines may write a shard at the same time, where Beam starts it again.
    with place.making(shard.file) as partial:
        stored, bad, example_bytes = _write_examples(partial, shard, features, recoded)
        with partial.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        report = ShardReport(sha256, partial.stat().st_size, example_bytes, tuple(stored), tuple(bad))
        with place.making(_report_file(shard)) as told:
            write_json(told, asdict(report))
    return report


def _write_examples(
    path: Path, shard: Shard, features: tfds.features.FeaturesDict, recoded: Iterable[Recoded | VideoError]
) -> tuple[list[StoredVideo], list[BadVideo], int]:
    """Write the videos of a shard: those stored, those left out, and the bytes of the former."""
    # Videos are compressed already; one record per group, so that reading one reads no other.
    writer = ArrayRecordWriter(str(path), "group_size:1,uncompressed,max_parallelism:1")
    serialize = tfds.core.example_serializer.ExampleSerializer(features.get_serialized_info()).get_tf_example
    stored, bad, example_bytes = [], [], 0
    try:
        for record, result in zip(shard.videos, recoded, strict=True):
            if isinstance(result, VideoError):
                bad.append(BadVideo(in_utf8(record.name), result.reason, in_utf8(result.detail)))
                continue
            # Deterministic: without it the order of the features differs from run to run.
            example = serialize(features.encode_example(_example(record, result)))
            example = example.SerializeToString(deterministic=True)
            writer.write(example)
            example_bytes += len(example)
            stored.append(_describe(record, result))
    finally:
        writer.close()
    return stored, bad, example_bytes


def read_reports(place: Place, shards: Sequence[Shard]) -> list[ShardReport | None]:
    """What each of these holds, or None where it is not finished."""
    sizes = place.sizes()
    told = [shard for shard in shards if shard.file in sizes and _report_file(shard) in sizes]
    reports: dict[Shard, ShardReport] = {}
    for shard, text in zip(told, place.read([_report_file(shard) for shard in told]), strict=True):
        found: dict[str, Any] = json.loads(text)
        if found["file_bytes"] == sizes[shard.file]:
            stored = tuple(StoredVideo(**video) for video in found.pop("stored"))
            bad = tuple(BadVideo(**video) for video in found.pop("bad"))
            reports[shard] = ShardReport(stored=stored, bad=bad, **found)
    return [reports.get(shard) for shard in shards]


def _report_file(shard: Shard) -> str:
    return f"{WORK_FOLDER}/{shard.split}-{shard.number:05d}.json"


def _example(record: VideoRecord, recoded: Recoded) -> dict[str, Any]:
    content = {"frames": list(recoded.frames)} if recoded.frames else {"video": recoded.video}
    return {
        "label": -1 if record.label is None else record.label,
        "name": os.fsencode(record.name),
        "num_runs": recoded.num_runs,
        "timestamps_us": np.rint(recoded.timestamps * 1e6).astype(np.int64),
        **content,
    }


def _describe(record: VideoRecord, recoded: Recoded) -> StoredVideo:
    times = recoded.timestamps
    return StoredVideo(
        name=in_utf8(record.name),
        label=-1 if record.label is None else record.label,
        frames=len(times),
        seconds=round(float(times[-1] - times[0]), 3),
        height=recoded.height,
        width=recoded.width,
        bytes=len(recoded.video) + sum(map(len, recoded.frames)),
        note=recoded.note,
    )
