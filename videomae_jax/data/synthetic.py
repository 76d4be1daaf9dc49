"""A small labelled data set of real mp4 files in which only motion tells the classes apart.

A clip shows one striped shape over a background of one colour. Its place (on a torus), angle and size have
phases, each drawn evenly from a circle; the class says which of them then runs, and in which sense. An evenly
drawn phase stays so however it runs, hence every single frame has the same distribution in every class.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from videomae_jax.data.video.writing import write_video
from videomae_jax.files import write_text

MOTIONS = {
    "left": (-1, 0, 0, 0),
    "right": (1, 0, 0, 0),
    "up": (0, -1, 0, 0),
    "down": (0, 1, 0, 0),
    "anticlockwise": (0, 0, -1, 0),
    "clockwise": (0, 0, 1, 0),
    "shrink": (0, 0, 0, -1),
    "grow": (0, 0, 0, 1),
}
"""Each class and the sense in which (x, y, angle, size) runs."""

_TURNS = (0.7, 0.7, 0.35, 0.7)
"""Turns of x, y, angle and size in a clip; each clip goes at 0.7 to 1.3 times this speed."""
_RADII = (0.16, 0.42)
"""Smallest and largest radius, as shares of the frame's side; a full-grown shape starts small again."""


@dataclass(frozen=True)
class Look:
    """Everything about a clip that does not move: drawn alike for every class."""

    background: UInt8[np.ndarray, " 3"]
    shape_colours: UInt8[np.ndarray, "2 3"]
    """Its two colours; every channel differs by at least 90 between them."""
    shape_waves: float
    """Stripes across the shape."""
    corners: int
    """3 to 6, or 0 for a disc."""


def draw_look(rng: np.random.Generator) -> Look:
    return Look(
        background=rng.integers(30, 110, 3).astype(np.uint8),
        shape_colours=np.stack([rng.integers(0, 80, 3), rng.integers(170, 256, 3)]).astype(np.uint8),
        shape_waves=rng.uniform(0.6, 1.0),
        corners=int(rng.choice([0, 3, 4, 5])),
    )


def draw_phases(rng: np.random.Generator, motion: str, num_frames: int) -> Float[np.ndarray, "T 4"]:
    """Phases of x, y, angle and size in turns: all start anywhere, and the class's own one runs."""
    speed = np.array(MOTIONS[motion]) * _TURNS * rng.uniform(0.7, 1.3)
    return (rng.uniform(size=4) + np.outer(np.arange(num_frames) / num_frames, speed)) % 1.0


def render(look: Look, phases: Float[np.ndarray, "T 4"], side: int) -> UInt8[np.ndarray, "T {side} {side} 3"]:
    """Draw a clip: a shape that may leave at one edge and come in at the other."""
    y, x = (np.mgrid[:side, :side] + 0.5) / side
    centre_x, centre_y, turn, growth = (column[:, None, None] for column in phases.T)
    radius = _RADII[0] * (_RADII[1] / _RADII[0]) ** growth
    u, v = ((grid - centre + 0.5) % 1.0 - 0.5 for grid, centre in ((x, centre_x), (y, centre_y)))
    angle = 2 * np.pi * turn
    u, v = (u * np.cos(angle) + v * np.sin(angle)) / radius, (v * np.cos(angle) - u * np.sin(angle)) / radius
    inside = np.clip(0.5 + (1 - _reach(u, v, look.corners)) * radius * side, 0, 1)[..., None]
    low, high = look.shape_colours.astype(np.float64)
    stripes = 0.5 + 0.5 * np.sin(2 * np.pi * (look.shape_waves * u / 2 + 0.25))
    front = low + (high - low) * stripes[..., None]
    return np.rint(look.background + inside * (front - look.background)).astype(np.uint8)


def _reach(
    u: Float[np.ndarray, "*grid"], v: Float[np.ndarray, "*grid"], corners: int
) -> Float[np.ndarray, "*grid"]:
    """1 on the outline of a disc or a regular polygon of unit radius, less inside, more outside."""
    distance = np.hypot(u, v)
    if corners == 0:
        return distance
    half = np.pi / corners
    folded = (np.arctan2(v, u) + half) % (2 * half) - half
    return distance * np.cos(folded) / np.cos(half)


def write_synthetic_videos(
    folder: str | Path,
    train_per_class: int = 200,
    val_per_class: int = 40,
    few_per_class: int = 8,
    side: int = 64,
    num_frames: int = 40,
    fps: int = 16,
    seed: int = 0,
) -> tuple[Path, Path]:
    """Write mp4 files in `folder`/train and val, `classes.txt`, and the lists `train.csv` and `val.csv`.

    `few.csv` names the first `few_per_class` of each class to train on. Lists have V1's form (`path label`),
    paths relative to the folder. Every frame drawn is a function of the arguments. Returns the two lists.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "classes.txt", "".join(f"{name}\n" for name in MOTIONS))

    def write(split: str, label: int, number: int) -> str:
        motion = list(MOTIONS)[label]
        rng = np.random.default_rng((seed, ("train", "val").index(split), label, number))
        frames = render(draw_look(rng), draw_phases(rng, motion, num_frames), side)
        name = f"{split}/{motion}_{number:03d}.mp4"
        write_video(folder / name, frames, fps)
        return f"{name} {label}\n"

    lists = []
    for split, count in (("train", train_per_class), ("val", val_per_class)):
        (folder / split).mkdir(exist_ok=True)
        jobs = [(split, label, number) for number in range(count) for label in range(len(MOTIONS))]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            lines = list(pool.map(lambda job: write(*job), jobs))
        lists.append(folder / f"{split}.csv")
        write_text(lists[-1], "".join(lines))
        if split == "train":
            write_text(folder / "few.csv", "".join(lines[: few_per_class * len(MOTIONS)]))
    return lists[0], lists[1]
