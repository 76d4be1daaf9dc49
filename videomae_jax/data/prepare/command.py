"""The command `prepare`: settles a plan, writes the shards that are missing, finishes the set."""

import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from tqdm import tqdm

from videomae_jax.data.loading.map_processes import crashed, map_in_processes
from videomae_jax.data.overlap import describe_overlap
from videomae_jax.data.prepare.metadata import finish
from videomae_jax.data.prepare.place import Place
from videomae_jax.data.prepare.plan import CARD, PLAN, Plan, Shard, check_same, resolve_run
from videomae_jax.data.prepare.recode import Recode, Recoded
from videomae_jax.data.prepare.settings import Prepare
from videomae_jax.data.prepare.shards import make_features, read_reports, write_shard
from videomae_jax.data.video import VideoError
from videomae_jax.errors import InputError, RunError
from videomae_jax.files import locked_folder, write_json

log = logging.getLogger(__name__)


def prepare(args: Prepare) -> int:
    """Prepare a set, or finish one that was begun; 130 when stopped by Ctrl-C, else 0."""
    began, place = time.monotonic(), Place.of(args.out)
    if not (place.read_json(CARD) or place.read_json(PLAN) or place.is_free()):
        raise InputError(f"{place} holds other files; choose an empty or new folder")
    plan = resolve_run(args, place)
    others = {split: videos for split, videos in plan.splits.items() if split != "train"}
    if overlap := describe_overlap(plan.splits["train"], others):
        log.warning("%s", overlap)
    if card := _finished_card(place, plan):
        print(f"{place} is complete already")
        _print_summary(place, card)
        return 0
    try:
        with locked_folder(place.scratch, "--out"):
            _begin(place, plan)
            _write_missing(args, place, plan)
            card = _finish(place, plan)
        # Not before: network file systems keep a name in the folder for a lock that is open.
        place.clear()
    except KeyboardInterrupt:
        print(f"\nstopped; the same command continues from the shards in {place}")
        return 130
    _print_summary(place, card)
    print(f"took {time.monotonic() - began:.0f} s")
    return 0


def _finished_card(place: Place, plan: Plan) -> dict[str, Any] | None:
    """The card of a complete set, or None; what a kill right after the card left behind is removed."""
    card: dict[str, Any] | None = place.read_json(CARD)
    if card is None:
        return None
    splits = {name: {k: s[k] for k in ("videos", "list_sha256")} for name, s in card["splits"].items()}
    check_same(plan, card | {"splits": splits}, place)
    place.clear()
    return card


def _begin(place: Place, plan: Plan) -> None:
    """Write down the plan, or check that the one begun here is the same."""
    if (begun := place.read_json(PLAN)) is not None:
        check_same(plan, begun, place)
        return
    with place.making(PLAN) as made:
        write_json(made, plan.as_json())


def _write_missing(args: Prepare, place: Place, plan: Plan) -> None:
    """Write every shard that is not there yet, here or on Beam."""
    place.remove_left_over()
    shards = plan.shards
    found = read_reports(place, shards)
    missing = [shard for shard, report in zip(shards, found, strict=True) if report is None]
    if len(missing) < len(shards):
        print(f"continuing: {len(shards) - len(missing)} of {len(shards)} shards are there")
    if args.beam:
        from videomae_jax.data.prepare.beam import write_shards

        write_shards(place, plan, missing, args.beam)
        return
    features = make_features(plan)
    results = _recode_all(missing, Recode(plan.storage, place.scratch), args.num_workers)
    for shard in missing:
        write_shard(place, shard, features, islice(results, len(shard.videos)))


def _recode_all(shards: Sequence[Shard], recode: Recode, workers: int) -> Iterator[Recoded | VideoError]:
    """All videos of these shards in order, with a progress bar."""
    videos = [video for shard in shards for video in shard.videos]
    bad: Counter[str] = Counter()
    with tqdm(total=len(videos), desc="preparing", unit="video") as bar:
        for result in map_in_processes(recode, videos, workers, crashed):
            if isinstance(result, VideoError):
                bad[result.reason] += 1
                bar.set_postfix_str(f"{bad.total()} bad", refresh=False)
            bar.update()
            yield result


def _finish(place: Place, plan: Plan) -> dict[str, Any]:
    reports, shards = [], plan.shards
    for shard, report in zip(shards, read_reports(place, shards), strict=True):
        if report is None:
            raise RunError(f"{place}/{shard.file} was not written; run the same command again")
        reports.append((shard, report))
    for split in plan.splits:
        if not any(report.stored for shard, report in reports if shard.split == split):
            reasons = Counter(video.reason for shard, r in reports if shard.split == split for video in r.bad)
            told = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
            raise RunError(f"no video of the split {split} can be stored: {told}")
    return finish(place, plan, reports)


def _print_summary(place: Place, card: dict[str, Any]) -> None:
    for split, s in card["splits"].items():
        bad = sum(s["bad"].values())
        told = f" ({', '.join(f'{count} {reason}' for reason, count in s['bad'].items())})" if bad else ""
        print(
            f"{split}: {s['stored']} of {s['videos']} videos, {s['frames']} frames, {s['seconds']:.0f} s, "
            f"{s['bytes'] / 1e6:.1f} MB; {bad} left out{told}, {s['damaged']} damaged"
        )
    print(f"the set: {place}; what was left out and why: {place}/bad.csv")
