"""Finishes a prepared set: the metadata of tensorflow-datasets, the table of videos, the data card."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple, fields
from typing import Any

from videomae_jax.data.prepare.place import Place
from videomae_jax.data.prepare.plan import CARD, Plan, Shard
from videomae_jax.data.prepare.shards import BadVideo, ShardReport, StoredVideo, make_features
from videomae_jax.data.tfds import tfds
from videomae_jax.files import beside, write_json, write_rows, write_text
from videomae_jax.versions import version_of

Reports = Sequence[tuple[Shard, ShardReport]]


def finish(place: Place, plan: Plan, reports: Reports) -> dict[str, Any]:
    """Write everything but the shards; the card comes last, and a folder with a card is complete."""
    _write_tables(place, reports)
    _write_tfds_metadata(place, plan, reports)
    card = make_card(plan, reports)
    with place.making("README.md") as made:
        write_text(made, _readme(card))
    with place.making(CARD) as made:
        write_json(made, card)
    return card


def make_card(plan: Plan, reports: Reports) -> dict[str, Any]:
    """Counts, classes, durations, checksums and settings of a prepared set."""
    card = plan.as_json()
    for split, described in card["splits"].items():
        ours = [(shard, report) for shard, report in reports if shard.split == split]
        stored = [video for _, report in ours for video in report.stored]
        labels = Counter(video.label for video in stored)
        described |= {
            "stored": len(stored),
            "bad": dict(sorted(Counter(video.reason for _, r in ours for video in r.bad).items())),
            "damaged": sum(bool(video.note) for video in stored),
            "frames": sum(video.frames for video in stored),
            "seconds": round(sum(video.seconds for video in stored), 3),
            "seconds_min_max": [f(video.seconds for video in stored) for f in (min, max)] if stored else [],
            "bytes": sum(report.file_bytes for _, report in ours),
            "videos_of_class": {
                plan.classes[label] if label >= 0 else "without a label": labels[label]
                for label in sorted(labels)
            },
            "shards": [
                {"file": s.file, "videos": len(r.stored), "bytes": r.file_bytes, "sha256": r.sha256}
                for s, r in ours
            ],
        }
    return card | {"written_with": {name: version_of(name) for name in ("videomae-jax", "av", "pillow")}}


def _write_tables(place: Place, reports: Reports) -> None:
    """videos.csv has a row for each stored video, in the order of the set; bad.csv one for each left out."""
    stored = [(shard.split, *astuple(video)) for shard, report in reports for video in report.stored]
    bad = [(shard.split, *astuple(video)) for shard, report in reports for video in report.bad]
    for file, kind, rows in (("videos.csv", StoredVideo, stored), ("bad.csv", BadVideo, bad)):
        with place.making(file) as made:
            write_rows(made, [("split", *(field.name for field in fields(kind))), *rows])


def _write_tfds_metadata(place: Place, plan: Plan, reports: Reports) -> None:
    """The files that `tfds.builder_from_directory` reads, dataset_info.json last."""
    identity = tfds.core.dataset_info.DatasetIdentity(
        name=plan.name,
        version=tfds.core.Version(plan.version),
        data_dir=place.address,
        module_name="videomae_jax.data.prepare",
    )
    description = "Videos stored for reading clips at random; see README.md and card.json."
    info = tfds.core.DatasetInfo(
        builder=identity, description=description, features=make_features(plan), disable_shuffling=True
    )
    info.set_file_format("array_record")
    info.set_splits(tfds.core.SplitDict([_split_info(place, plan, split, reports) for split in plan.splits]))
    with beside(place.scratch / "metadata") as made:
        made.mkdir()
        info.write_to_directory(made)
        for file in sorted(made.iterdir(), key=lambda file: file.name == "dataset_info.json"):
            place.put(file, file.name)


def _split_info(place: Place, plan: Plan, split: str, reports: Reports) -> tfds.core.SplitInfo:
    ours = [report for shard, report in reports if shard.split == split]
    template = tfds.core.ShardedFileTemplate(
        dataset_name=plan.name, data_dir=place.address, split=split, filetype_suffix="array_record"
    )
    return tfds.core.SplitInfo(
        name=split,
        shard_lengths=[len(report.stored) for report in ours],
        num_bytes=sum(report.example_bytes for report in ours),
        filename_template=template,
    )


def _readme(card: dict[str, Any]) -> str:
    """The data card for people."""
    storage = card["storage"]
    lines = [
        f"# {card['name']} {card['version']}",
        "",
        "Videos stored for reading clips at random. `tfds.builder_from_directory` on this folder reads them.",
        "",
        "| split | videos | left out | damaged | frames | hours | MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for split, s in card["splits"].items():
        left_out = sum(s["bad"].values())
        size, hours = f"{s['bytes'] / 1e6:.1f}", f"{s['seconds'] / 3600:.3f}"
        numbers = [s["stored"], left_out, s["damaged"], s["frames"], hours, size]
        lines.append(f"| {split} | " + " | ".join(map(str, numbers)) + " |")
    lines += ["", "What was left out, and why, is in `bad.csv`; every stored video is in `videos.csv`.", ""]
    lines += ["Checksums, classes and counts: `card.json`.", "", "## Settings", ""]
    lines += [f"* {name}: {value}" for name, value in storage.items()]
    lines += [f"* videos_per_shard: {card['videos_per_shard']}"]
    lines += [f"* {name} {version}" for name, version in card["written_with"].items()]
    return "\n".join(lines) + "\n"
