"""Features for probes: extracted once, kept on disk, and found again by what they were made of."""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from etils import epath
from jaxtyping import Float32, Int64
from tqdm import tqdm

from videomae_jax.data.loading.order import Failure
from videomae_jax.data.records import VideoRecord
from videomae_jax.data.sets import stored_set
from videomae_jax.errors import InputError, RunError
from videomae_jax.files import locked_file
from videomae_jax.inference.features.files import FeatureFile, FeatureWriter, read_features
from videomae_jax.inference.features.video_encoder import VideoEncoder


@dataclass(frozen=True, eq=False)
class ProbeSet:
    """Features of labelled videos, which may lie on disk, and which of the videos count."""

    features: Float32[np.ndarray, "m s ..."]
    """Of the s clips of every video that could be read."""
    all_labels: Int64[np.ndarray, " m"]
    rows: Int64[np.ndarray, " n"]
    """The videos that count."""
    failures: tuple[str, ...] = ()
    """Why others could not be read."""

    @property
    def labels(self) -> Int64[np.ndarray, " n"]:
        return self.all_labels[self.rows]

    @property
    def clips(self) -> Float32[np.ndarray, "c ..."]:
        """The features of all clips, video after video."""
        return self.features.reshape(-1, *self.features.shape[2:])

    @property
    def clip_rows(self) -> Int64[np.ndarray, " r"]:
        """Where the clips that count are in `clips`."""
        per_video = self.features.shape[1]
        return (self.rows[:, None] * per_video + np.arange(per_video)).ravel()

    @property
    def clip_labels(self) -> Int64[np.ndarray, " r"]:
        return self.labels.repeat(self.features.shape[1])


def probe_set(encoder: VideoEncoder, videos: Sequence[VideoRecord], folder: Path, title: str) -> ProbeSet:
    """Features of labelled videos, from `folder` where they are there and whole, else extracted into it.

    They are found by the weights, the sampling, and the name, size and time of change of each file. Raises
    RunError when no video could be read.
    """
    about = encoder.encoder.about() | encoder.sampling() | {"files": _files(videos)}
    key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    path = folder / f"{key[:20]}.npy"
    found = _whole(path)
    reused = found is not None
    if found is None:
        _extract(encoder, videos, path, about, title)
        found = read_features(path)
    read = found.about["read"]
    labels = np.array([videos[record_id].label for record_id in read], np.int64)
    print(f"{title}: features of {len(read)} videos {'found' if reused else 'written'} in {path}", flush=True)
    return ProbeSet(found.features, labels, np.arange(len(read)), tuple(found.about["failures"]))


def _files(videos: Iterable[VideoRecord]) -> str:
    """A fingerprint of the files, folders or sets and of the segments, in their order."""
    digest = hashlib.sha256()
    set_facts = lru_cache(_set_facts)
    for video in videos:
        facts: tuple[int, ...] = ()
        if os.path.exists(video.path):
            status = os.stat(video.path)
            facts = (status.st_size, status.st_mtime_ns)
        elif stored := stored_set(video):
            facts = set_facts(stored)
        digest.update(repr((os.path.abspath(video.path), video.start, video.total, facts)).encode())
    return digest.hexdigest()


def _set_facts(folder: str) -> tuple[int, ...]:
    """Size and time of change of what is written last of a set."""
    status = (epath.Path(folder) / "dataset_info.json").stat()
    return status.length, int(status.mtime or 0)


def _whole(path: Path) -> FeatureFile | None:
    """The features in a file whose content is what was written, or None."""
    if not path.exists():
        return None
    try:
        return read_features(path)
    except InputError as error:
        print(f"{error}: extracting again")
        return None


def _extract(
    encoder: VideoEncoder, videos: Sequence[VideoRecord], path: Path, about: dict, title: str
) -> None:
    read, failures = [], []
    bar = tqdm(total=len(videos), desc=title, unit="video")
    with locked_file(path, "--features"), FeatureWriter(path) as writer, bar:
        for found in encoder.each(videos):
            bar.update()
            if isinstance(found, Failure):
                failures.append(found.error)
                continue
            writer.append(found.clips[None])
            read.append(found.record_id)
        if not read:
            raise RunError(f"none of the {len(videos)} videos could be read, the first being {failures[0]}")
        names = [videos[record_id].name for record_id in read]
        writer.finish(names, {}, about | {"read": read, "failures": failures})
