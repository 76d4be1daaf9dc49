"""Memory and speed of `features` with sliding windows over a video of two hours.

    python benchmarks/long_video.py [HOURS]      (default 2)

Writes a video of 96x64 pixels, 10 frames a second, slides windows of 16 frames over it, 4 frames apart, with
a tiny model, and compares 20 of the windows with the same frames decoded by themselves. The peak memory is
that of a process that extracts; it stands beside that for a video of a minute.
"""

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import jax
import numpy as np

from videomae_jax.config import load_config
from videomae_jax.data.video import open_video
from videomae_jax.inference.features.files import read_features
from videomae_jax.inference.features.video_encoder import VideoEncoder
from videomae_jax.inference.features.windows import fitted
from videomae_jax.models.encoder import VideoMAEModel

STRIDE, CHUNK, FPS = 4, 16, 10


def write_long_video(path: Path, frames: int) -> None:
    """Write a video frame by frame: stripes that drift, and a square that wanders."""
    y, x = np.mgrid[:64, :96]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            "libx264", rate=Fraction(FPS), options={"preset": "ultrafast", "crf": "23"}
        )
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for number in range(frames):
            grey = 128 + 60 * np.sin((x + number) / 9 + y / (5 + number % 977 / 100))
            image = np.rint(grey).astype(np.uint8)[..., None].repeat(3, -1)
            left, top = number * 7 % 80, number * 3 % 50
            image[top : top + 12, left : left + 12] = number % 256, 255 - number % 256, number // 256 % 256
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))


def extract(video: Path, checkpoint: Path, out: Path) -> tuple[float, int]:
    """Seconds and peak resident bytes of the command, in a process of its own."""
    flags = [
        "features",
        video,
        "--checkpoint",
        checkpoint,
        "--out",
        out,
        "--stride",
        STRIDE,
        "--chunk",
        CHUNK,
        "--batch-size",
        64,
    ]
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "videomae_jax.cli", *map(str, flags)])
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(process.returncode)
    return time.perf_counter() - start, usage.ru_maxrss * 1024


def compare(video: Path, checkpoint: Path, out: Path) -> float:
    """The largest difference between 20 windows' features and those of the same frames decoded alone."""
    found = read_features(out / "long.npz")
    encoder = VideoEncoder.from_pretrained(checkpoint)
    rows = np.sort(np.random.default_rng(0).choice(len(found.features), 20, replace=False))
    frames_of_clip = encoder.encoder.config.num_frames
    clips = []
    with open_video(video) as opened:
        for row in rows.tolist():
            frames = opened.frames(row * STRIDE + np.arange(frames_of_clip) * CHUNK // frames_of_clip)
            clips.append(
                np.stack([fitted(each, encoder.encoder.config.frame_size, "centre") for each in frames])
            )
            np.testing.assert_allclose(
                found.columns["seconds"][row], [row * STRIDE / FPS, (row * STRIDE + CHUNK) / FPS], atol=1e-6
            )
    alone = np.concatenate(list(encoder.encoder.encode(iter(clips))))
    return float(np.abs(alone - found.features[rows]).max())


def main(hours: float) -> None:
    config = replace(load_config("tiny").model, use_mean_pooling=False)
    model = VideoMAEModel(config)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        model.save_pretrained(place / "model", model.init_params(jax.random.key(0)))
        for name, frames in (("short", 60 * FPS), ("long", round(hours * 3600 * FPS))):
            video = place / f"{name}.mp4"
            start = time.perf_counter()
            write_long_video(video, frames)
            took = time.perf_counter() - start
            seconds, peak = extract(video, place / "model", place / "out")
            windows = (frames - CHUNK) // STRIDE + 1
            print(
                f"{name:5} {frames:6} frames, {video.stat().st_size / 1e6:.1f} MB, encoded in {took:.0f} s; "
                f"{windows} windows in {seconds:.1f} s, {windows / seconds:.0f} a second; "
                f"peak memory {peak / 1e6:.0f} MB"
            )
        print(
            f"20 windows against direct decoding: {compare(video, place / 'model', place / 'out'):.1e} apart"
        )


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 2)
