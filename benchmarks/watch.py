"""`videomae-jax watch` on a file that is written at the pace of its frames, beside windows of the whole file.

    python benchmarks/watch.py play --size small [--minutes 10] [--stride FRAMES] --out FOLDER
    python benchmarks/watch.py pace --size small base --out FOLDER

`play` makes a classifier of 400 classes with random weights and a video of 25 frames a second, writes it
again as fast as it would be shown, and watches it meanwhile. It says how far each window's scores are from
those of the same frames of the whole file, memory every 10 seconds, and how long after its last frame a
window's line came. `pace` watches a finished file of 20 seconds, windows 16 frames apart: decisions per
second, and seconds of a core for each.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import av
import jax
import numpy as np

from videomae_jax import VideoMAEForVideoClassification
from videomae_jax.config import SIZES
from videomae_jax.data.cropping import centre_crop
from videomae_jax.data.video import open_video
from videomae_jax.inference.features.windows import Windows, read_clips
from videomae_jax.inference.predictor import Predictor, rows

FPS, HEIGHT, WIDTH, RATE, CLASSES = 25, 240, 320, 4, 400


def write_checkpoint(folder: Path, size: str) -> None:
    """A classifier whose random head tells clips apart."""
    config = SIZES[size].changed(id2label=tuple(f"class {n}" for n in range(CLASSES)), num_labels=CLASSES)
    model = VideoMAEForVideoClassification(config)
    params = jax.jit(model.init_params)(jax.random.key(0))
    params |= {"head": jax.tree.map(lambda leaf: 3e4 * leaf, params["head"])}
    model.save_pretrained(folder, params)


def write_stream(path: Path, minutes: float) -> None:
    """An MPEG transport stream: stripes that drift, and a square that wanders."""
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    with av.open(str(path), "w", format="mpegts") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"preset": "ultrafast", "crf": "23"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(round(60 * minutes * FPS)):
            grey = 128 + 60 * np.sin((x + 2 * number) / 19 + y / (15 + number % 977 / 30))
            image = np.rint(grey).astype(np.uint8)[..., None].repeat(3, -1)
            top, left = number * 3 % (HEIGHT - 50), number * 7 % (WIDTH - 50)
            image[top : top + 50, left : left + 50] = number % 256, 255 - number % 256, number // 9 % 256
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))


def play(whole: Path, growing: Path, seconds: float) -> None:
    """Write the bytes of one file to another, evenly over so many seconds."""
    content, began, written = whole.read_bytes(), time.monotonic(), 0
    with growing.open("ab", buffering=0) as file:
        while written < len(content):
            time.sleep(0.2)
            due = min(1.0, (time.monotonic() - began) / seconds)
            file.write(content[written : (written := int(due * len(content)))])


def watched(source: Path, checkpoint: Path, stride: int) -> tuple[subprocess.Popen, Iterator[dict]]:
    """The command in a process of its own, and its lines, each with the time at which it came."""
    words = [source, "--checkpoint", checkpoint, "--stride", stride, "--sampling-rate", RATE, "--json"]
    words = ["watch", *words, "--top-k", CLASSES, "--patience", 5]
    process = subprocess.Popen(
        [sys.executable, "-m", "videomae_jax.cli", *map(str, words)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, (json.loads(line) | {"came": time.monotonic()} for line in process.stdout)


def resident(process: subprocess.Popen) -> float:
    """Megabytes that a process holds."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1e3


def processor_seconds(process: subprocess.Popen) -> float:
    """What a process has used so far, in all its threads."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def offline(whole: Path, checkpoint: Path, stride: int) -> np.ndarray:
    """Scores (n, classes) of the windows of a file that is at hand."""
    predictor = Predictor.from_pretrained(checkpoint)
    config = predictor.config
    windows = Windows(config.num_frames, config.num_frames * RATE, stride)
    with open_video(whole) as video:
        indices = windows.indices(0, len(video.timestamps))
        clips = read_clips(video, indices, partial(centre_crop, size=config.frame_size))
        return np.concatenate([rows(predictor.start(clip[None])) for clip in clips])


def measure_playing(args: argparse.Namespace) -> None:
    folder = args.out / args.size[0]
    folder.mkdir(parents=True, exist_ok=True)
    whole, growing = folder / "whole.ts", folder / "growing.ts"
    write_checkpoint(folder / "classifier", args.size[0])
    write_stream(whole, args.minutes)
    growing.write_bytes(b"")
    began = time.monotonic()
    writer = threading.Thread(target=play, args=(whole, growing, 60 * args.minutes))
    writer.start()
    process, lines = watched(growing, folder / "classifier", args.stride)
    memory, loads = [], []

    def look() -> None:
        while process.poll() is None:
            memory.append(resident(process))
            loads.append(os.getloadavg()[0])
            time.sleep(10)

    looker = threading.Thread(target=look)
    looker.start()
    found = list(lines)
    assert process.wait() == 0
    looker.join()
    writer.join()
    live = np.array([_by_number(row) for row in found])
    wanted = offline(whole, folder / "classifier", args.stride)
    first = found[0]["start"]
    late = [row["came"] - began - (row["end"] - first) for row in found]
    middle = len(memory) // 2
    report = {
        "size": args.size[0],
        "minutes": args.minutes,
        "stride": args.stride,
        "windows": [len(live), len(wanted)],
        "difference": float(np.abs(live - wanted).max()),
        "same_best": int((live.argmax(1) == wanted.argmax(1)).sum()),
        "classes_that_win": len(set(wanted.argmax(1).tolist())),
        "spread": float(np.ptp(wanted, axis=0).max()),  # By how much a score differs between windows.
        "memory_mb": [round(each) for each in memory],
        "memory_most_in_halves": [round(max(each)) for each in (memory[:middle], memory[middle:])],
        "seconds_late_median_most_last": [
            round(each, 2) for each in (statistics.median(late), max(late), late[-1])
        ],
        "load": [round(min(loads), 1), round(statistics.median(loads), 1), round(max(loads), 1)],
    }
    print(json.dumps(report))
    (folder / f"play_{args.stride}.json").write_text(json.dumps(report) + "\n")


def _by_number(row: dict) -> list[float]:
    return [each["score"] for each in sorted(row["predictions"], key=lambda each: each["number"])]


def measure_pace(args: argparse.Namespace) -> None:
    args.out.mkdir(parents=True, exist_ok=True)
    whole = args.out / "short.ts"
    write_stream(whole, 1 / 3)
    for size in args.size:
        write_checkpoint(args.out / size / "classifier", size)
        process, lines = watched(whole, args.out / size / "classifier", 16)
        came, used = [], []
        for row in lines:
            came.append(row["came"])
            used.append(processor_seconds(process))
        assert process.wait() == 0
        decisions = len(came) - 1
        print(
            f"{size}: {decisions / (came[-1] - came[0]):.2f} decisions a second over {decisions}, "
            f"{(used[-1] - used[0]) / decisions:.2f} s of a core each, load {os.getloadavg()[0]:.1f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("mode", choices=["play", "pace"])
    parser.add_argument("--size", nargs="+", choices=["small", "base"], required=True)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--stride", type=int, default=64)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    {"play": measure_playing, "pace": measure_pace}[args.mode](args)


if __name__ == "__main__":
    main()
