"""What a trainer can take from its workers, and what long lists cost.

    python benchmarks/loading.py ceiling [--seconds N]     clips per second from workers that cost nothing
    python benchmarks/loading.py lists [--rows N ...]      reading lists, and starting workers

`ceiling`: workers that write nothing answer for batches of 32 videos, which are put on the device (a CPU);
next to it the former way, in turns: each clip is copied out of shared memory into a fresh batch, without the
messages that came with it. `lists`: a list of N videos with labels is read in a process of its own, and
workers that read nothing give the first batch: seconds, memory of the parent, mean PSS of the workers.
Prints tables in Markdown.
"""

import argparse
import json
import mmap
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
from loading_case import Nothing

from videomae_jax.data.clips.readers import Arrays
from videomae_jax.data.records import VideoRecord

PLACES = 32
KINDS = {"pre-training": (16, 224, 224, 3), "fine-tuning": (16, 320, 426, 3)}
"""Frames of a clip, and those of a canvas for fine-tuning."""


def former(shape: tuple[int, ...]) -> Iterator[Arrays]:
    """Batches as they were put together: fresh arrays, into which each clip is copied."""
    size = int(np.prod(shape))
    buffers = [np.frombuffer(mmap.mmap(-1, size), np.uint8).reshape(1, *shape) for _ in range(8)]
    for buffer in buffers:
        buffer[:] = 1
    while True:
        video = np.zeros((PLACES, 1, *shape), np.uint8)
        for place in range(PLACES):
            video[place] = buffers[place % 8]
        yield {"video": video.reshape(-1, *shape)}


def rates(
    batches: Iterator[Arrays], place: Callable[[np.ndarray], object], seconds: float
) -> tuple[float, float]:
    """Clips that reach the device, per second of the clock and of this process's processor time."""
    for _ in range(6):
        place(next(batches)["video"])
    count, began, spent = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - began < seconds:
        place(next(batches)["video"])
        count += PLACES
    return count / (time.perf_counter() - began), count / (time.process_time() - spent)


def measure_ceiling(seconds: float, rounds: int = 5) -> list[dict]:
    import jax

    from videomae_jax.data.loading.batches import batches
    from videomae_jax.data.loading.workers import Workers
    from videomae_jax.training.sharding import batch_sharding, make_mesh

    to_device = partial(jax.make_array_from_process_local_data, batch_sharding(make_mesh()))
    videos = tuple(VideoRecord(f"/videos/{n}.mp4", "", n % 400) for n in range(100_000))
    rows = []
    for kind, shape in KINDS.items():
        with closing(Workers(2)) as workers:
            steps = {"start_step": 0, "stop_step": 10**9}
            source = batches(
                videos, Nothing(shape), seed=0, batch_size=PLACES, num_workers=0, workers=workers, **steps
            )
            ours, theirs = [], []
            with closing(source):
                made, before = (batch.arrays for batch in source), former(shape)
                for _ in range(rounds):
                    ours.append(rates(made, to_device, seconds))
                    theirs.append(rates(before, to_device, seconds))
        row: dict[str, object] = {"clips": kind}
        for number, unit in enumerate(("clips/s", "clips per CPU second")):
            pairs = [(a[number], b[number]) for a, b in zip(ours, theirs, strict=True)]
            now, then = (round(statistics.median(each)) for each in zip(*pairs, strict=True))
            ratio = statistics.median(a / b for a, b in pairs)
            row |= {f"{unit}": now, f"{unit}, former way": then, f"ratio of {unit}": round(ratio, 1)}
        rows.append(row)
    return rows


def write_list(path: Path, rows: int) -> None:
    with path.open("w") as file:
        for n in range(rows):
            file.write(
                f"train/class_{n % 400:03d}/video_{n * 7919 % 10**9:09d}_000012_000022.mp4 {n % 400}\n"
            )


def pss(pid: int) -> float:
    """Megabytes of a process, shared ones by halves."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1e3
    return 0.0


def measure_list(path: str, counts: list[int]) -> None:
    """In a process of its own: prints one line of JSON."""
    from videomae_jax.data.labels import read_labelled
    from videomae_jax.data.loading.batches import batches
    from videomae_jax.data.loading.workers import Workers

    before = pss(os.getpid())
    began = time.process_time()
    videos, _ = read_labelled([path])
    found: dict[str, float] = {"rows": len(videos), "read, CPU s": time.process_time() - began}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    found |= {"list, MB": pss(os.getpid()) - before, "peak, MB": peak}
    steps = {"start_step": 0, "stop_step": 100}
    for count in counts:
        began, spent = time.perf_counter(), time.process_time()
        with closing(Workers(count)) as workers:
            reader = Nothing((2, 8, 8, 3))
            with closing(
                batches(videos, reader, seed=0, batch_size=64, num_workers=0, workers=workers, **steps)
            ) as read:
                next(read)
                found[f"{count} workers, s"] = time.perf_counter() - began
                found[f"{count} workers, trainer's CPU s"] = time.process_time() - spent
                memory = [pss(worker.process.pid) for worker in workers._workers]
                found[f"{count} workers, MB each"] = statistics.mean(memory)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    found["CPU s per worker"] = (children.ru_utime + children.ru_stime) / sum(counts)
    print(json.dumps(found))


def measure_lists(sizes: list[int], counts: list[int]) -> list[dict]:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for size in sizes:
            write_list(path := Path(folder) / f"{size}.csv", size)
            command = [sys.executable, __file__, "one", "--list", str(path), "--workers", *map(str, counts)]
            said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            rows.append({name: round(value, 2) for name, value in json.loads(said).items()})
            path.unlink()
    return rows


def print_table(rows: list[dict]) -> None:
    columns = list(rows[0])
    print("\n| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    for row in rows:
        print("| " + " | ".join(str(row[column]) for column in columns) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("ceiling", "lists", "one"))
    parser.add_argument("--seconds", type=float, default=2.0, help="of each of five turns")
    parser.add_argument("--rows", type=int, nargs="+", default=[250_000, 1_000_000, 10_000_000])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--list", default="")
    args = parser.parse_args()
    if args.what == "one":
        measure_list(args.list, args.workers)
        return
    print(f"cores: {len(os.sched_getaffinity(0))}, load before: {os.getloadavg()[0]:.1f}")
    print_table(
        measure_ceiling(args.seconds) if args.what == "ceiling" else measure_lists(args.rows, args.workers)
    )
    print(f"\nload after: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
