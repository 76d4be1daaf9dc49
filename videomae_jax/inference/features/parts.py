"""Features of many videos in files of some videos each: a stop costs little, and hosts share the work.

A part is there whole or not at all, and what is in it depends on its videos alone, not on the number of hosts
or on how often the work was stopped. Parts of n hosts are made in turn: those of host 0 are 0, n, 2n, ...
"""

import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from functools import lru_cache
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from etils import epath
from jaxtyping import Float32, Int64
from tqdm import tqdm

from videomae_jax.data.loading.failures import Failure
from videomae_jax.data.records import VideoRecord
from videomae_jax.data.sets import stored_set
from videomae_jax.errors import InputError, RunError
from videomae_jax.files import locked_file, write_json
from videomae_jax.inference.features.files import FeatureFile, FeatureWriter, open_features, read_features
from videomae_jax.inference.features.video_encoder import VideoEncoder, VideoFeatures
from videomae_jax.training.multihost.hosts import Hosts

# Of a part, whichever is reached first.
_MOST_BYTES, _MOST_VIDEOS = 2**28, 256


class Readable(NamedTuple):
    """Which videos of a part can be read."""

    videos: Int64[np.ndarray, " n"]
    """By their positions."""
    failures: tuple[str, ...]
    """Why others cannot."""


class FeatureParts:
    """The features of `videos` in a folder, of each clip or their mean; a user names it by `option`."""

    def __init__(
        self, folder: Path, videos: Sequence[VideoRecord], encoder: VideoEncoder, option: str, mean: bool
    ) -> None:
        self.folder, self.videos = folder, videos
        self._encoder, self._option, self._mean = encoder, option, mean
        self.row = encoder.encoder.row if mean else (encoder.num_segments, *encoder.encoder.row)
        """The shape of what is kept of a video."""
        self.bytes_per_video = 4 * int(np.prod(self.row))
        most = max(1, min(_MOST_VIDEOS, _MOST_BYTES // self.bytes_per_video))
        self.size = 1 << (most.bit_length() - 1)
        """Videos in a part."""
        self.kept = len(self)
        """So many parts, from the first, have features; of others is known only what can be read."""

    def __len__(self) -> int:
        return -(-len(self.videos) // self.size)

    def make(self, hosts: Hosts, title: str | None = None) -> int:
        """Make the parts that are missing, on all hosts together; raises RunError where no video can be read.

        Returns how many this host has made. Why videos of its parts could not be read is said on stderr.
        """
        mine = range(hosts.index, len(self), hosts.count)
        there = {number: found for number in mine if (found := self._whole(number))}
        for found in there.values():
            for error in found.failures:
                say_failure(error)
        missing = [number for number in mine if number not in there and number < self.kept]
        unread = [number for number in mine if number not in there and number >= self.kept]
        total = sum(len(self._videos_of(number)) for number in mine)
        done = total - sum(len(self._videos_of(number)) for number in missing + unread)
        with tqdm(desc=title, total=total, initial=done, unit="video") as bar:
            with closing(self._encoder.each(self._videos_in(missing), self.size)) as results:
                for number in missing:
                    self._write(number, islice(results, len(self._videos_of(number))), bar)
            with closing(self._encoder.each_readable(self._videos_in(unread), self.size)) as readable:
                for number in unread:
                    self._write_readable(number, islice(readable, len(self._videos_of(number))), bar)
        hosts.share(None)
        if not any(len(part.videos) for part in self.readable()):
            errors = chain.from_iterable(part.failures for part in self.readable())
            raise RunError(
                f"none of the {len(self.videos)} videos could be read, the first being {next(errors)}"
            )
        return len(missing) + len(unread)

    def read(self) -> Iterator[FeatureFile]:
        """The parts that are kept, in order, with the positions of their videos as `videos`."""
        return (open_features(self._path(number)) for number in range(self.kept))

    def readable(self) -> Iterator[Readable]:
        """Which videos of each part can be read."""
        return map(self._readable, range(len(self)))

    def open(self, number: int) -> Float32[np.ndarray, "n ..."]:
        """The features of a part that is kept, on disk."""
        return np.load(self._path(number), mmap_mode="r")

    def _readable(self, number: int) -> Readable:
        if number < self.kept:
            return _readable_of(open_features(self._path(number)))
        told = json.loads(self._path(number, ".readable.json").read_text("utf-8"))
        return Readable(np.array(told["videos"], np.int64), tuple(told["failures"]))

    def _videos_in(self, numbers: Iterable[int]) -> tuple[VideoRecord, ...]:
        return tuple(chain.from_iterable(map(self._videos_of, numbers)))

    def _path(self, number: int, suffix: str = ".npy") -> Path:
        return self.folder / f"{number:06d}{suffix}"

    def _videos_of(self, number: int) -> Sequence[VideoRecord]:
        return self.videos[number * self.size : (number + 1) * self.size]

    def _whole(self, number: int) -> Readable | None:
        """Of a part whose content is what was written, or None."""
        if number >= self.kept:
            return self._readable(number) if self._path(number, ".readable.json").exists() else None
        if not self._path(number).exists():
            return None
        try:
            return _readable_of(read_features(self._path(number)))
        except InputError as error:
            print(f"{error}: extracting again")
            return None

    def _write_readable(self, number: int, results: Iterable[int | Failure], bar: tqdm) -> None:
        found = list(results)
        bar.update(len(found))
        failures = [each.error for each in found if isinstance(each, Failure)]
        for error in failures:
            bar.write(f"videomae-jax: {error}", file=sys.stderr)
        videos = [number * self.size + each % self.size for each in found if not isinstance(each, Failure)]
        write_json(self._path(number, ".readable.json"), {"videos": videos, "failures": failures})

    def _write(self, number: int, results: Iterable[VideoFeatures | Failure], bar: tqdm) -> None:
        path, positions, seconds, failures = self._path(number), [], [], []
        with locked_file(path, self._option), FeatureWriter(path) as writer:
            writer.append(np.zeros((0, *self.row), np.float32))
            for found in results:
                bar.update()
                if isinstance(found, Failure):
                    failures.append(found.error)
                    bar.write(f"videomae-jax: {found.error}", file=sys.stderr)
                    continue
                writer.append(found.clips.mean(axis=0, keepdims=True) if self._mean else found.clips[None])
                # Only the last of all parts can have fewer videos, and it comes last.
                positions.append(number * self.size + found.record_id % self.size)
                seconds.append(found.seconds)
            columns = {"videos": np.array(positions, np.int64), "seconds": np.array(seconds)}
            writer.finish((), columns, {"failures": failures})


def _readable_of(part: FeatureFile) -> Readable:
    return Readable(part.columns["videos"].astype(np.int64), tuple(part.about["failures"]))


def say_failure(error: str) -> None:
    """Say on stderr why a video could not be read."""
    print(f"videomae-jax: {error}", file=sys.stderr, flush=True)


def fingerprint(videos: Iterable[VideoRecord]) -> str:
    """Of the files, folders or sets by name, size and time of change, and of the segments, in their order."""
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
