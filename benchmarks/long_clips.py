"""What a training clip of an hour-long file costs, with and without what is kept of its packets.

    python benchmarks/long_clips.py FOLDER [CLIPS]      (default 12 clips of each file)

Draws 30 s of 320x240 pixels, 25 frames a second (x264, B-frames, at most 250 frames from keyframe to
keyframe), and writes them 120 times one after the other, as MP4 and Matroska; packets are filled up with
bytes that the decoder passes over, in the large file with many. Beside them is a video of 10 s. Clips are 16
frames, 4 apart, drawn over the file. Seconds of processor time, and what the process asks the system to read
(which Linux counts), medians over the clips. Prints a table in Markdown, and needs 3 GB in FOLDER.
"""

import os
import statistics
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from data import texture

from videomae_jax.data.video import kept_packets, open_video, passes

FPS, PIECE, TIMES, FRAMES, RATE = 25, 30, 120, 16, 4
FILLER = 12
"""The kind of a unit of H.264 that decoders pass over."""
KINDS = {"ten seconds.mp4": (1, 0), "hour.mp4": (TIMES, 200), "hour.mkv": (TIMES, 200)}
KINDS["large hour.mp4"] = (TIMES, 40_000)


def write_piece(path: Path, seconds: int) -> None:
    """A camera that pans over a texture."""
    image = texture(np.random.default_rng(0), 480, 640)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(FPS))
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for t in range(seconds * FPS):
            y, x = int(120 + 110 * np.sin(t / 70)), int(160 + 150 * np.sin(t / 90))
            frame = av.VideoFrame.from_ndarray(image[y : y + 240, x : x + 320].copy(), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def write_file(path: Path, piece: Path, times: int, filler: int) -> None:
    """The piece so many times, with up to `filler` bytes more in each packet."""
    rng = np.random.default_rng(1)
    with av.open(str(piece)) as source, av.open(str(path), "w") as container:
        stream = source.streams.video[0]
        out = container.add_stream_from_template(stream)
        found = [(bytes(p), p.pts, p.dts, p.is_keyframe) for p in source.demux(stream) if p.size]
        step = found[1][2] - found[0][2]
        for part in range(times):
            for content, pts, dts, is_keyframe in found:
                unit = bytes([FILLER]) + b"\xff" * int(rng.integers(0, filler + 1)) + b"\x80"
                more = len(unit).to_bytes(4, "big") + unit if filler else b""
                packet = av.Packet(content + more)
                packet.pts, packet.dts = (each + part * len(found) * step for each in (pts, dts))
                packet.time_base, packet.stream, packet.is_keyframe = stream.time_base, out, is_keyframe
                container.mux(packet)


def read_clips(path: Path, count: int, long: float) -> tuple[float, float]:
    """Seconds of processor time and megabytes read for a clip, the medians of so many."""
    passes.LONG = long
    rng, seconds, megabytes = np.random.default_rng(0), [], []
    for _ in range(count):
        began, read = time.process_time(), bytes_read()
        with open_video(path) as video:
            start = int(rng.integers(len(video.timestamps) - FRAMES * RATE))
            video.frames(range(start, start + FRAMES * RATE, RATE))
        seconds.append(time.process_time() - began)
        megabytes.append((bytes_read() - read) / 1e6)
    return statistics.median(seconds), statistics.median(megabytes)


def bytes_read() -> int:
    return int(Path("/proc/self/io").read_text().split()[1])


def main(folder: Path, count: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    write_piece(folder / "piece.mp4", PIECE)
    write_piece(folder / "short.mp4", 10)
    for name, (times, filler) in KINDS.items():
        write_file(folder / name, folder / ("short.mp4" if times == 1 else "piece.mp4"), times, filler)
    time.sleep(kept_packets._SECONDS_AT_REST + 1)
    print("| file | MB | read anew, CPU s | MB read | first, CPU s | kept, CPU s | MB read | kept, KB |")
    print(f"|{'---|' * 8}")
    for name in KINDS:
        path = folder / name
        anew = read_clips(path, count, float("inf"))
        first, _ = read_clips(path, 1, kept_packets.LONG)
        kept = read_clips(path, count, kept_packets.LONG)
        place = kept_packets._place(str(path))
        size = f"{place.stat().st_size / 1e3:.0f}" if place.exists() else ""
        told = [name, f"{path.stat().st_size / 1e6:.1f}", f"{anew[0]:.3f}", f"{anew[1]:.1f}"]
        told += [f"{first:.3f}", f"{kept[0]:.3f}", f"{kept[1]:.1f}", size]
        print("|", " | ".join(told), "|", flush=True)
    print(f"load {os.getloadavg()[0]:.0f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 12)
