"""The command `prepare`: settles a plan, writes the shards that are missing, finishes the set."""

import json
import logging
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from videomae_jax.data.loading.map_processes import crashed, map_in_processes
from videomae_jax.data.overlap import describe_overlap
from videomae_jax.data.prepare.metadata import finish
from videomae_jax.data.prepare.plan import CARD, PLAN, WORK_FOLDER, Plan, Shard, check_same, resolve_run
from videomae_jax.data.prepare.recode import Recode, Recoded
from videomae_jax.data.prepare.settings import Prepare
from videomae_jax.data.prepare.shards import make_features, read_report, write_shard
from videomae_jax.data.video import VideoError
from videomae_jax.errors import InputError, RunError
from videomae_jax.files import locked_folder, remove, write_json

log = logging.getLogger(__name__)


def prepare(args: Prepare) -> int:
    """Prepare a set, or finish one that was begun; 130 when stopped by Ctrl-C, else 0."""
    began = time.monotonic()
    _check_free(args.out)
    plan = resolve_run(args)
    others = {split: videos for split, videos in plan.splits.items() if split != "train"}
    if overlap := describe_overlap(plan.splits["train"], others):
        log.warning("%s", overlap)
    if card := _finished_card(args.out, plan):
        print(f"{args.out} is complete already")
        _print_summary(args.out, card)
        return 0
    work = args.out / WORK_FOLDER
    try:
        with locked_folder(work, "--out"):
            _begin(work / PLAN, plan, args.out)
            _write_missing(args, plan)
            card = _finish(args.out, plan)
        # Not before: network file systems keep a name in the folder for a lock that is open.
        shutil.rmtree(work, ignore_errors=True)
    except KeyboardInterrupt:
        print(f"\nstopped; the same command continues from the shards in {args.out}")
        return 130
    _print_summary(args.out, card)
    print(f"took {time.monotonic() - began:.0f} s")
    return 0


def _finished_card(out: Path, plan: Plan) -> dict[str, Any] | None:
    """The card of a complete set, or None; what a kill right after the card left behind is removed."""
    if not (out / CARD).exists():
        return None
    card = json.loads((out / CARD).read_text("utf-8"))
    splits = {name: {k: s[k] for k in ("videos", "list_sha256")} for name, s in card["splits"].items()}
    check_same(plan, card | {"splits": splits}, out)
    shutil.rmtree(out / WORK_FOLDER, ignore_errors=True)
    return card


def _check_free(out: Path) -> None:
    """Raise InputError unless a set is begun or complete in a folder, or nothing else is there."""
    begun = (out / WORK_FOLDER / PLAN).exists() or (out / CARD).exists()
    if not begun and out.exists() and any(entry.name != WORK_FOLDER for entry in out.iterdir()):
        raise InputError(f"{out} holds other files; choose an empty or new folder")


def _begin(path: Path, plan: Plan, out: Path) -> None:
    """Write down the plan, or check that the one begun here is the same."""
    if path.exists():
        check_same(plan, json.loads(path.read_text("utf-8")), out)
    else:
        write_json(path, plan.as_json())


def _write_missing(args: Prepare, plan: Plan) -> None:
    """Write every shard that is not there yet, here or on Beam."""
    for left_over in (args.out / WORK_FOLDER).glob(".partial-*"):
        remove(left_over)
    shards = plan.shards
    missing = [shard for shard in shards if read_report(args.out, shard) is None]
    if len(missing) < len(shards):
        print(f"continuing: {len(shards) - len(missing)} of {len(shards)} shards are there")
    if args.beam:
        from videomae_jax.data.prepare.beam import write_shards

        write_shards(args.out, plan, missing, args.beam)
        return
    features = make_features(plan)
    results = _recode_all(missing, plan, args.num_workers)
    for shard in missing:
        write_shard(args.out, shard, features, islice(results, len(shard.videos)))


def _recode_all(shards: Sequence[Shard], plan: Plan, workers: int) -> Iterator[Recoded | VideoError]:
    """All videos of these shards in order, with a progress bar."""
    videos = [video for shard in shards for video in shard.videos]
    bad: Counter[str] = Counter()
    with tqdm(total=len(videos), desc="preparing", unit="video") as bar:
        for result in map_in_processes(Recode(plan.storage), videos, workers, crashed):
            if isinstance(result, VideoError):
                bad[result.reason] += 1
                bar.set_postfix_str(f"{bad.total()} bad", refresh=False)
            bar.update()
            yield result


def _finish(out: Path, plan: Plan) -> dict[str, Any]:
    reports = []
    for shard in plan.shards:
        report = read_report(out, shard)
        if report is None:
            raise RunError(f"{out / shard.file} was not written; run the same command again")
        reports.append((shard, report))
    for split in plan.splits:
        if not any(report.stored for shard, report in reports if shard.split == split):
            reasons = Counter(video.reason for shard, r in reports if shard.split == split for video in r.bad)
            told = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
            raise RunError(f"no video of the split {split} can be stored: {told}")
    return finish(out, plan, reports)


def _print_summary(out: Path, card: dict[str, Any]) -> None:
    for split, s in card["splits"].items():
        bad = sum(s["bad"].values())
        told = f" ({', '.join(f'{count} {reason}' for reason, count in s['bad'].items())})" if bad else ""
        print(
            f"{split}: {s['stored']} of {s['videos']} videos, {s['frames']} frames, {s['seconds']:.0f} s, "
            f"{s['bytes'] / 1e6:.1f} MB; {bad} left out{told}, {s['damaged']} damaged"
        )
    print(f"the set: {out}; what was left out and why: {out / 'bad.csv'}")
