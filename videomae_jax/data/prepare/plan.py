"""What a prepared set will hold, settled before the first video is read."""

import json
import os
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from videomae_jax.data.labels import Splits, read_splits
from videomae_jax.data.layouts import read_layout
from videomae_jax.data.prepare.place import WORK_FOLDER, Place
from videomae_jax.data.prepare.settings import Prepare, Storage
from videomae_jax.data.prepare.shard_size import choose_videos_per_shard
from videomae_jax.data.records import VideoRecord, list_digest
from videomae_jax.errors import InputError
from videomae_jax.files import check_path

PLAN = f"{WORK_FOLDER}/plan.json"
"""The plan that was begun."""
CARD = "card.json"
"""The plan of a complete set, with what came of it."""
FORMAT = 1
"""Changes when the same settings come to store something else."""


@dataclass(frozen=True)
class Shard:
    """One file of the set and the videos meant for it."""

    split: str
    number: int
    file: str
    videos: tuple[VideoRecord, ...]


@dataclass(frozen=True)
class Plan:
    """Everything that the bytes of a prepared set depend on, but for the videos themselves."""

    name: str
    version: str
    storage: Storage
    videos_per_shard: int
    classes: tuple[str, ...]
    splits: Splits

    @property
    def shards(self) -> list[Shard]:
        """All shards, split by split."""
        size, shards = self.videos_per_shard, []
        for split, videos in self.splits.items():
            count = -(-len(videos) // size)
            for number in range(count):
                file = f"{self.name}-{split}.array_record-{number:05d}-of-{count:05d}"
                shards.append(Shard(split, number, file, videos[number * size : (number + 1) * size]))
        return shards

    def as_json(self) -> dict[str, Any]:
        """The plan, with a fingerprint of each list in place of the videos."""
        splits = {
            split: {"videos": len(videos), "list_sha256": _digest(videos)}
            for split, videos in self.splits.items()
        }
        return {"format": FORMAT, **asdict(replace(self, splits={})), "splits": splits}


def resolve_run(args: Prepare, place: Place) -> Plan:
    """Read the lists and settle names and shards; raises InputError."""
    if min(args.num_workers, 1 if args.videos_per_shard is None else args.videos_per_shard) < 1:
        raise InputError("--videos-per-shard and --num-workers must be at least 1")
    splits, classes = _read_inputs(args)
    name, version = _name_and_version(args.out)
    begun = place.read_json(CARD) or place.read_json(PLAN)
    size = choose_videos_per_shard(args, next(iter(splits.values())), begun, place.scratch)
    return Plan(name, version, args.storage, size, classes, splits)


def _read_inputs(args: Prepare) -> tuple[Splits, tuple[str, ...]]:
    """The videos of each split, and the class names; raises InputError."""
    if not args.sources:
        raise InputError("name the videos: videomae-jax prepare LIST_OR_FOLDER --out DIR")
    if args.layout is None:
        named = {"train": args.sources, "val": args.val, "test": args.test}
        return read_splits(named, args.root, args.classes)
    if len(args.sources) > 1 or args.val or args.test or args.classes or args.root:
        raise InputError("with --layout name one folder and nothing else: its files give splits and classes")
    check_path(Path(args.sources[0]), "with --layout")
    return read_layout(args.layout, Path(args.sources[0]))


def check_same(plan: Plan, found: dict[str, Any], place: Place) -> None:
    """Raise InputError, with what differs, unless `found` describes this plan."""
    ours = json.loads(json.dumps(plan.as_json()))
    if differing := [key for key in ours if found.get(key) != ours[key]]:
        told = "; ".join(
            f"{key} was {_short(found.get(key))}, is now {_short(ours[key])}" for key in differing
        )
        raise InputError(
            f"{place} holds a set that was prepared with other settings: {told}. Choose "
            "another --out, or delete it"
        )


def _digest(videos: tuple[VideoRecord, ...]) -> str:
    labels = ",".join(str(video.label) for video in videos)
    return list_digest([*videos, VideoRecord("", labels)])


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) < 300 else text[:300] + "..."


def _name_and_version(out: Path) -> tuple[str, str]:
    """The name and version in .../NAME/1.0.0, or the folder's name and version 1.0.0."""
    out = Path(os.path.abspath(out))
    version = out.name if re.fullmatch(r"\d+\.\d+\.\d+", out.name) else None
    name = re.sub(r"[^a-z0-9]+", "_", (out.parent if version else out).name.lower()).strip("_")
    return (name if name[:1].isalpha() else f"videos_{name}".rstrip("_")), version or "1.0.0"
