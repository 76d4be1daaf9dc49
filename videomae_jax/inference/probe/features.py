"""Features for probes: extracted once, kept on disk, and found again by what they were made of."""

import hashlib
import json
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64

from videomae_jax.data.loading.order import ChosenClipSlots
from videomae_jax.data.records import VideoRecord
from videomae_jax.files import locked_folder
from videomae_jax.inference.features.parts import FeatureParts, fingerprint
from videomae_jax.inference.features.video_encoder import VideoEncoder
from videomae_jax.training.multihost.hosts import Hosts

Rows = Int64[np.ndarray, " _"]
"""Clips by their numbers, counted video after video."""


class HeldFeatures:
    """Features in memory."""

    def __init__(self, features: Float32[np.ndarray, "m s ..."]) -> None:
        self.features, self.shape = features, features.shape

    def batches(self, wanted: Iterable[Rows]) -> Generator[Float32[np.ndarray, "_ ..."], None, None]:
        """The features of these clips, batch after batch."""
        clips = self.features.reshape(-1, *self.shape[2:])
        for rows in wanted:
            yield clips[rows]


class StoredFeatures:
    """Features on disk, as far as they are kept; other clips are encoded whenever they are asked for."""

    def __init__(self, parts: FeatureParts, encoder: VideoEncoder) -> None:
        self._parts, self._encoder = parts, encoder
        read = [part.videos for part in parts.readable()]
        self._positions = np.concatenate(read)
        self._ends = np.cumsum([len(each) for each in read[: parts.kept]], dtype=np.int64)
        """Up to which of the videos that can be read each part reaches."""
        self.shape = (len(self._positions), *parts.row)

    def batches(self, wanted: Iterable[Rows]) -> Generator[Float32[np.ndarray, "_ ..."], None, None]:
        wanted, per_video = tuple(wanted), self.shape[1]
        kept = (int(self._ends[-1]) if len(self._ends) else 0) * per_video
        others = [rows[rows >= kept] for rows in wanted]
        videos, clips = np.divmod(np.concatenate([np.zeros(0, np.int64), *others]), per_video)
        slots = ChosenClipSlots(self._parts.videos, self._positions[videos], clips)
        encoded = self._encoder.chosen(slots, (len(rows) for rows in others if len(rows)))
        with closing(encoded):
            for rows in wanted:
                found = np.empty((len(rows), *self.shape[2:]), np.float32)
                stored = rows < kept
                found[stored] = self._stored(rows[stored])
                if not stored.all():
                    found[~stored] = next(encoded)
                yield found

    def _stored(self, rows: Rows) -> Float32[np.ndarray, "_ ..."]:
        videos, clips = np.divmod(rows, self.shape[1])
        parts = np.searchsorted(self._ends, videos, side="right")
        found = np.empty((len(rows), *self.shape[2:]), np.float32)
        for part in np.unique(parts):
            mine, first = parts == part, self._ends[part - 1] if part else 0
            found[mine] = self._parts.open(int(part))[videos[mine] - first, clips[mine]]
        return found


ClipFeatures = HeldFeatures | StoredFeatures
"""Features of the s clips of each of m videos: `shape` is (m, s, ...)."""


@dataclass(frozen=True, eq=False)
class ProbeSet:
    """Features of labelled videos, and which of the videos count."""

    features: ClipFeatures
    """Of every video that could be read."""
    all_labels: Int64[np.ndarray, " m"]
    rows: Int64[np.ndarray, " n"]
    """The videos that count."""
    failures: tuple[str, ...] = ()
    """Why others could not be read."""

    @property
    def labels(self) -> Int64[np.ndarray, " n"]:
        return self.all_labels[self.rows]

    @property
    def clip_rows(self) -> Int64[np.ndarray, " r"]:
        """The numbers of the clips that count."""
        per_video = self.features.shape[1]
        return (self.rows[:, None] * per_video + np.arange(per_video)).ravel()

    @property
    def clip_labels(self) -> Int64[np.ndarray, " r"]:
        return self.labels.repeat(self.features.shape[1])


def probe_set(
    encoder: VideoEncoder,
    videos: Sequence[VideoRecord],
    folder: Path,
    title: str,
    hosts: Hosts,
    most_bytes: float | None = None,
) -> ProbeSet:
    """Features of labelled videos, from `folder` where they are there and whole, else extracted into it.

    They are found by the weights, the sampling, and the name, size and time of change of each file. With
    `most_bytes` they stay on disk, so many of them as fit there. Raises RunError when no video could be read.
    """
    about = encoder.encoder.about() | encoder.sampling() | {"files": fingerprint(videos)}
    key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    parts = FeatureParts(folder / key[:20], videos, encoder, "--features", mean=False)
    if most_bytes is not None:
        parts.kept = min(len(parts), int(most_bytes // (parts.size * parts.bytes_per_video)))
    with hosts.locked(locked_folder(parts.folder, "--features")):
        made = sum(hosts.share(parts.make(hosts, title)))
    found = list(parts.readable())
    read = np.concatenate([part.videos for part in found])
    labels = np.array([videos[position].label for position in read.tolist()], np.int64)
    failures = tuple(failure for part in found for failure in part.failures)
    if hosts.first:
        beyond = "" if parts.kept == len(parts) else f", {parts.kept} of {len(parts)} parts of them"
        what = "written" if made else "found"
        print(f"{title}: features of {len(read)} videos {what} in {parts.folder}{beyond}", flush=True)
    features: ClipFeatures = (
        HeldFeatures(np.concatenate([part.features for part in parts.read()]))
        if most_bytes is None
        else StoredFeatures(parts, encoder)
    )
    return ProbeSet(features, labels, np.arange(len(read)), failures)
