"""How fast clips come from files and from prepared sets, beside the published way of reading them.

    python benchmarks/data.py speed [--videos FOLDER] [--out FOLDER]    clips per second, sizes, and a profile
    python benchmarks/data.py feed  [--videos FOLDER] [--out FOLDER]    waiting for data in a simulated run

Without --videos it draws videos like those of Kinetics: 340x256, 10 s, 30 frames a second, a keyframe at most
every 250 frames, textures that move. Prepared sets are kept in --out and used again. One core: this process
pinned to one, in seconds of its processor time, ways in turn; all cores: worker processes, seconds of the
clock. Needs torch; decord where it can be installed, else PyAV decodes for the published way as well. Prints
tables in Markdown, and writes speed.json or feed.json to --out.
"""

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from data_reference import DECODER, ReferenceClips, loader, to_uint8
from PIL import Image

from videomae_jax.config import SIZES, DataConfig
from videomae_jax.data.clips.plane_readers import PretrainPlanes, place_clips, write_planes
from videomae_jax.data.clips.readers import PretrainClips
from videomae_jax.data.clips.sampling import draw_start, pretrain_indices
from videomae_jax.data.cropping import draw_box
from videomae_jax.data.loading.batches import batches
from videomae_jax.data.prepare.command import Prepare, prepare
from videomae_jax.data.records import VideoRecord
from videomae_jax.data.sets import open_record, read_set
from videomae_jax.data.video import open_video

MODEL = SIZES["base"]
CORES = len(os.sched_getaffinity(0))
BATCH = 8
REFERENCE = "published way"
# What prepare is told; the rates are its --sampling-rate, with --phases.
FORMS = {
    "kinetics": {},
    "rate 4, all": {"sampling_rate": 4},
    "rate 4, first": {"sampling_rate": 4, "phases": "first"},
    "small (JPEG)": {"preset": "small"},
    # Crops of two thirds of 224 pixels are enlarged by half: detail is given up.
    "rate 4, first, 224 pixels, crf 23": {
        "sampling_rate": 4,
        "phases": "first",
        "short_side": 224,
        "crf": 23,
    },
}
# Clips per second that an H100 would take: calculated from a roofline and a goal for its use, not measured.
H100 = {"ViT-S": 3100, "ViT-B": 1490, "ViT-L": 410}


def texture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Colours whose detail falls off as in photographs."""
    spectrum = np.fft.rfft2(rng.standard_normal((height, width, 3)), axes=(0, 1))
    distance = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    distance[0, 0] = 1
    image = np.fft.irfft2(spectrum / distance[..., None], s=(height, width), axes=(0, 1))
    image = (image - image.mean((0, 1))) / image.std((0, 1))
    return np.clip(120 + 45 * image, 0, 255).astype(np.uint8)


def draw_frames(seed: int) -> Iterator[np.ndarray]:
    """300 frames of a camera that pans over a texture, three others that cross it, and a little noise."""
    rng = np.random.default_rng(seed)
    back, patches, turns = texture(rng, 512, 680), [texture(rng, 96, 80) for _ in range(3)], rng.random(8) * 6
    for t in range(300):
        y, x = int(128 + 100 * np.sin(turns[0] + t / 70)), int(170 + 150 * np.sin(turns[1] + t / 90))
        frame = back[y : y + 256, x : x + 340].copy()
        for n, patch in enumerate(patches):
            y = int(160 * (0.5 + 0.5 * np.sin(turns[2 + n] + t / (14 + 5 * n))))
            x = int(260 * (0.5 + 0.5 * np.sin(turns[5 + n] + t / (11 + 4 * n))))
            frame[y : y + 96, x : x + 80] = patch
        noise = rng.integers(-3, 4, (256, 340, 1), np.int16)
        yield np.clip(frame + noise, 0, 255).astype(np.uint8)


def draw_videos(folder: Path, count: int) -> Path:
    """Write the drawn videos that are not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(count):
        path = folder / f"drawn{seed:03d}.mp4"
        if path.exists():
            continue
        partial = path.with_suffix(".partial")
        with av.open(str(partial), "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=30, options={"crf": "23", "g": "250"})
            stream.width, stream.height, stream.pix_fmt = 340, 256, "yuv420p"
            for frame in draw_frames(seed):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode(None))
        partial.rename(path)
    return folder


@dataclass(frozen=True)
class Way:
    """A way to make clips of videos."""

    name: str
    records: tuple[VideoRecord, ...]
    read: Callable[[VideoRecord, tuple[int, ...]], object]
    clips_per_video: int
    megabytes: float
    pixels: str = "rgb"


def size_of(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


def make_ways(videos: Path, out: Path) -> list[Way]:
    """The published way, and ours from files and every prepared form, one and four clips per decode."""
    records = tuple(VideoRecord(str(path), path.name) for path in sorted(videos.iterdir()))
    reference = ReferenceClips([r.path for r in records], 0, MODEL.num_frames, MODEL.frame_size)
    read = lambda record, key: reference.clip(record.path, key)  # noqa: E731
    ways, sources = [Way(REFERENCE, records, read, 1, size_of(videos))], [("files", records, videos, 4)]
    for name, options in FORMS.items():
        folder = out / ("set_" + "".join(c if c.isalnum() else "_" for c in name))
        with contextlib.redirect_stdout(sys.stderr):
            prepare(Prepare((str(videos),), folder, **options))
        rate = 1 if options.get("phases") == "first" else 4
        sources.append((name, read_set(folder)[0], folder, rate))
    for name, records, folder, rate in sources:
        for clips in (1, 4):
            data = DataConfig(sampling_rate=rate, num_sample=clips)
            ways.append(Way(name, records, PretrainClips(MODEL, data), clips, size_of(folder)))
            if "JPEG" not in name:  # Images have no planes, but are converted to some.
                read = PretrainPlanes(MODEL, data)
                ways.append(Way(name, records, read, clips, size_of(folder), "planes"))
    return ways


def one_core(ways: list[Way], rounds: int) -> list[float]:
    """Milliseconds of processor time per clip, median of rounds over all videos, ways in turn on one core."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    found: list[list[float]] = [[] for _ in ways]
    for turn in range(rounds + 1):
        for way, times in zip(ways, found, strict=True):
            began = time.process_time()
            for place, record in enumerate(way.records):
                way.read(record, (turn, 0, place, 0))
            spent = time.process_time() - began
            if turn:  # The first round warms up.
                times.append(1e3 * spent / len(way.records) / way.clips_per_video)
    os.sched_setaffinity(0, allowed)
    return [statistics.median(times) for times in found]


def all_cores(way: Way, steps: int) -> float:
    """Clips per second of the clock with a worker process for each core; buffers are full at both ends."""
    warm = 2 * CORES
    count = warm + steps + 2 * CORES
    if way.name == REFERENCE:
        paths = [record.path for record in way.records]
        dataset = ReferenceClips(paths, count * BATCH, MODEL.num_frames, MODEL.frame_size)
        source = iter(loader(dataset, BATCH, CORES))
    else:
        source = read_batches(way, count)
    for _ in range(warm):
        next(source)
    began = time.perf_counter()
    for _ in range(steps):
        next(source)
    spent = time.perf_counter() - began
    del source
    return steps * BATCH * way.clips_per_video / spent


def read_batches(way: Way, steps: int) -> Generator[object, None, None]:
    """Batches of a way of ours."""
    return batches(
        way.records, way.read, seed=0, batch_size=BATCH, num_workers=CORES, start_step=0, stop_step=steps
    )


def profile(way: Way) -> dict[str, float]:
    """Milliseconds of processor time per clip for opening, decoding, and cropping with scaling and colour."""
    read, spent = way.read, {"open": 0.0, "decode": 0.0, "crop": 0.0}
    shape = MODEL.num_frames, read.data.sampling_rate
    for place, record in enumerate(way.records):
        rng = np.random.default_rng(place)
        moments = [time.process_time()]
        with open_record(record) as video:
            count = len(video.timestamps)
            moments.append(time.process_time())
            clip = pretrain_indices(count, *shape, draw_start(rng, count, *shape)).tolist()
            frames = dict(video.read_frames(sorted(set(clip))))
            moments.append(time.process_time())
            shape_of_box = *frames[clip[0]].shape, MODEL.frame_size, read.data.crop_scales
            boxes = [draw_box(rng, *shape_of_box) for _ in range(way.clips_per_video)]
            hand_over(way, frames, clip, boxes)
            moments.append(time.process_time())
        for stage, time_spent in zip(spent, np.diff(moments), strict=True):
            spent[stage] += 1e3 * time_spent / len(way.records) / way.clips_per_video
    return spent


def hand_over(way: Way, frames: dict, clip: list[int], boxes: list) -> None:
    """Crop, or copy planes, as the reader of a way does it."""
    if way.pixels == "rgb":
        for box in boxes:
            for index in clip:
                frames[index].crop(box, MODEL.frame_size)
        return
    arrays, canvas = way.read.blank(), way.read.canvas
    place = place_clips(frames[clip[0]], [(box, False) for box in boxes], canvas, MODEL.frame_size)
    for index in dict.fromkeys(clip):
        write_planes(arrays, np.array(clip) == index, place.cut(frames[index]), canvas)


def verify(ways: list[Way]) -> dict[str, float]:
    """Mean grey levels between what the ways make of the same frames; raises where they are not."""
    ours = next(way for way in ways if way.name == "files")
    apart = [
        np.abs(
            to_uint8(ways[0].read(record, (9, 0, n, 0))).astype(int)
            - ours.read(record, (9, 0, n, 0))["video"][0]
        )
        for n, record in enumerate(ours.records)
    ]
    found = {f"{REFERENCE} and files, same clips": float(np.mean(apart))}
    for name in FORMS:
        stored = next(way for way in ways if way.name == name)
        found[f"{name} and files, same frames"] = compare_stored(ours.records[0], stored.records[0])
    worst = max(found, key=lambda name: found[name])
    assert found[worst] < 10, f"not the same frames: {worst}: {found[worst]:.1f} grey levels"
    return found


def compare_stored(source: VideoRecord, stored: VideoRecord) -> float:
    """Mean grey levels between frames of a prepared video and those of its source at the same times."""
    with open_record(stored) as video, open_video(source.path) as original:
        wanted = np.linspace(0, len(video.timestamps) - 1, 9).astype(int)
        at = np.searchsorted(original.timestamps, video.timestamps[wanted] - 1e-5)
        np.testing.assert_allclose(original.timestamps[at], video.timestamps[wanted], atol=1e-5)
        images, originals = video.frames(wanted), original.frames(at)
    size = images.shape[2], images.shape[1]
    scaled = [
        np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)) for image in originals
    ]
    return float(np.abs(np.stack(scaled).astype(int) - images).mean())


def measure_speed(ways: list[Way], rounds: int, steps: int) -> dict:
    """Everything that `speed` tells."""
    found = {"same frames": verify(ways)}
    milliseconds = one_core(ways, rounds)
    rows = []
    for way, spent in zip(ways, milliseconds, strict=True):
        row = {
            "way": way.name,
            "hands over": way.pixels if way.name != REFERENCE else "floats",
            "clips per decode": way.clips_per_video,
            "MB": round(way.megabytes, 1),
            "clips/s, one core": round(1e3 / spent, 1),
            "ratio": round(milliseconds[0] / spent, 2),
        }
        stages = {} if way.name == REFERENCE else profile(way)
        rows.append(row | {f"{stage}, ms": round(value, 2) for stage, value in stages.items()})
    if steps:
        rates = [all_cores(way, steps) for way in ways]
        for row, rate in zip(rows, rates, strict=True):
            row[f"clips/s, {CORES} cores"] = round(rate, 1)
            row["ratio, all cores"] = round(rate / rates[0], 2)
    cores = [
        {name: row[name] for name in ("way", "hands over", "clips per decode")}
        | {name: int(np.ceil(rate / row["clips/s, one core"])) for name, rate in H100.items()}
        for row in rows
    ]
    return found | {"rows": rows, "cores per H100 (rates calculated, not measured)": cores}


def measure_feed(way: Way, steps: int) -> dict:
    """The share of time that a step of fixed time waits for its batch, up to and beyond the ceiling."""
    ceiling = all_cores(way, steps)
    rows = []
    for share in (0.5, 0.7, 0.8, 0.9, 1.0, 1.2):
        step, waited = BATCH * way.clips_per_video / (share * ceiling), []
        source = read_batches(way, steps + 2 * CORES)
        next(source)
        began = 0.0
        for number in range(steps + 2):
            asked = time.perf_counter()
            if number == 2:
                began = asked
            next(source)
            waited.append(time.perf_counter() - asked)
            time.sleep(step)
        whole = time.perf_counter() - began
        rate = steps * BATCH * way.clips_per_video / whole
        rows.append(
            {
                "wanted / ceiling": share,
                "step, ms": round(1e3 * step, 1),
                "clips/s": round(rate, 1),
                "wait, %": round(100 * sum(waited[2:]) / whole, 1),
            }
        )
        source.close()
    return {
        "way": way.name,
        "hands over": way.pixels,
        "clips per decode": way.clips_per_video,
        "ceiling": round(ceiling, 1),
        "rows": rows,
    }


def print_table(rows: list[dict]) -> None:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    print("\n| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    for row in rows:
        print("| " + " | ".join(str(row.get(column, "")) for column in columns) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("speed", "feed"))
    parser.add_argument("--videos", type=Path)
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()) / "videomae_jax_data")
    parser.add_argument("--number", type=int, default=12, help="videos drawn")
    parser.add_argument("--rounds", type=int, default=5, help="rounds over all videos on one core")
    parser.add_argument(
        "--steps", type=int, default=16, help="batches of 8 videos with all cores, 0 for none"
    )
    args = parser.parse_args()
    videos = args.videos or draw_videos(args.out / "videos", args.number)
    out = args.out / (videos.name if args.videos else "drawn")
    ways = make_ways(videos, out)
    facts = {"videos": str(args.videos or "drawn"), "cores": CORES, "decoder": DECODER}
    facts["load before"] = [round(load, 1) for load in os.getloadavg()]
    if args.what == "speed":
        result = measure_speed(ways, args.rounds, args.steps)
        tables = [value for value in result.values() if isinstance(value, list)]
    else:
        runs = [measure_feed(way, args.steps) for way in ways if way.name == "kinetics"]
        result = {"runs": runs}
        tables = [
            [
                {k: run[k] for k in ("way", "hands over", "clips per decode", "ceiling")} | row
                for row in run["rows"]
            ]
            for run in runs
        ]
    facts["load after"] = [round(load, 1) for load in os.getloadavg()]
    (out / f"{args.what}.json").write_text(json.dumps(facts | result, indent=1))
    print(facts)
    print(result.get("same frames", ""))
    for table in tables:
        print_table(table)


if __name__ == "__main__":
    main()
