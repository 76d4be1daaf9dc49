"""What must be the same on all hosts, as what they send each other of it."""

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from videomae_jax.data.records import VideoRecord, list_digest


class Fact(NamedTuple):
    """Something of a host that is compared with that of the others."""

    digest: str
    """It, or a digest of it."""
    shown: str
    """What is shown of it where hosts differ."""
    length: int = 0
    """How many items it has, which are looked through for the first that differs."""
    item: Callable[[int], str] = str

    def digest_of(self, first: int, end: int) -> str:
        """A digest of some of its items, as far as there are so many."""
        digest = hashlib.sha256()
        for number in range(first, min(end, self.length)):
            digest.update(f"{self.item(number)}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


def setting_fact(value: Any) -> Fact:
    """A value that JSON can hold."""
    return Fact(json.dumps(value), str(value))


def weights_fact(digest: str) -> Fact:
    """Weights, by their digest."""
    return Fact(digest, digest[:12])


def classes_fact(names: Sequence[str]) -> Fact:
    """The names of the classes in their order."""
    return Fact(json.dumps(names), str(len(names)), len(names), lambda number: repr(names[number]))


def videos_fact(videos: Sequence[VideoRecord], digest: str | None = None, *, labelled: bool = True) -> Fact:
    """Videos by their names, wherever they are stored, with their labels; `digest` is one of all of it."""

    def line(number: int) -> str:
        video = videos[number]
        segment = "" if (video.start, video.total) == (0, -1) else f" {video.start} {video.total}"
        return f"{video.name!r}{segment}" + (f" with the label {video.label}" if labelled else "")

    if digest is None:
        labels = " ".join(str(video.label) for video in videos) if labelled else ""
        digest = hashlib.sha256(f"{list_digest(videos)} {labels}".encode()).hexdigest()
    return Fact(digest, str(len(videos)), len(videos), line)
