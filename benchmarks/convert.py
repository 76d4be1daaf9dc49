"""Time and peak memory of converting a random ViT-L (343M parameters) into every form.

    python benchmarks/convert.py [small|base|large]     (large needs 6 GB of disk)

Limits for large: 60 s and three times the size of the weights.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from videomae_jax.checkpoints.architecture import expected_shapes
from videomae_jax.config import SIZES


def write_random(size: str, file: Path) -> int:
    """Write an original-style pre-training file of random weights; returns their bytes."""
    rng = np.random.default_rng(0)
    shapes = expected_shapes(SIZES[size], "pretraining")
    draw = {name: np.float32(0.02) * rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    for name, value in draw.items():
        if "norm" in name and name.endswith("weight"):
            value += 1
    torch.save({"model": {name: torch.from_numpy(value) for name, value in draw.items()}, "epoch": 0}, file)
    return sum(value.nbytes for value in draw.values())


def convert(*arguments: str) -> tuple[float, int]:
    """Seconds and peak resident bytes of one conversion in a process of its own."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "videomae_jax.cli", "convert", *arguments])
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(process.returncode)
    return time.perf_counter() - start, usage.ru_maxrss * 1024


def main(size: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        total = write_random(size, place / "source.pth")
        print(f"{size}: {total / 4e6:.0f}M parameters, {total / 1e9:.2f} GB")
        rows = []
        for source, target, form in (
            ("source.pth", "hf", "hf"),
            ("hf", "orbax", "orbax"),
            ("orbax", "back.pth", "torch"),
            ("source.pth", "orbax2", "orbax"),
        ):
            model = ["--model", size] if source == "source.pth" else []
            seconds, peak = convert(str(place / source), str(place / target), "--to", form, *model)
            rows.append(
                f"{source:10} -> {form:5} {seconds:6.1f} s  peak {peak / 1e9:5.2f} GB = {peak / total:.2f} x"
            )
        print("\n".join(rows))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "large")
