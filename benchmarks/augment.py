"""Augmentation on the device beside the published recipe on the host, with Pillow and torch.

    python benchmarks/augment.py speed [--videos FOLDER]     milliseconds per clip, in all and by operation
    python benchmarks/augment.py pillow --videos FOLDER      grey levels between each operation and Pillow's
    python benchmarks/augment.py order --videos FOLDER       grey levels between operating on full frames, as
                                                             the original does, and on the scaled canvas

FOLDER holds video files; `speed` takes drawn clips without one. Prints a table, then one line of JSON. Clips
have 16 frames on canvases of 256 x 341; `speed` takes 8 at a time in one process, both ways in turn.
"""

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from videomae_jax.config import AugmentConfig
from videomae_jax.data.synthetic import MOTIONS, draw_look, draw_phases, render
from videomae_jax.data.video import open_video
from videomae_jax.models.pixels import IMAGENET_MEAN, IMAGENET_STD
from videomae_jax.training.augmentation.augment import augment, resize_crop
from videomae_jax.training.augmentation.rand_augment import OPERATIONS

BATCH, FRAMES, CANVAS, SIZE = 8, 16, (256, 341), 224
GREY = (128, 128, 128)
LEVELS = (6.5, 7.0, 7.5)


def _transform(image: Image.Image, *matrix: float) -> Image.Image:
    return image.transform(
        image.size, Image.Transform.AFFINE, matrix, resample=Image.Resampling.BICUBIC, fillcolor=GREY
    )


def _add(image: Image.Image, amount: float) -> Image.Image:
    return image.point([min(255, value + int(amount)) if value < 128 else value for value in range(256)] * 3)


PILLOW: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "AutoContrast": lambda image, _: ImageOps.autocontrast(image),
    "Equalize": lambda image, _: ImageOps.equalize(image),
    "Invert": lambda image, _: ImageOps.invert(image),
    "Rotate": lambda image, a: image.rotate(a, resample=Image.Resampling.BICUBIC, fillcolor=GREY),
    "PosterizeIncreasing": lambda image, bits: ImageOps.posterize(image, int(bits)),
    "SolarizeIncreasing": lambda image, threshold: ImageOps.solarize(image, int(threshold)),
    "SolarizeAdd": _add,
    "ColorIncreasing": lambda image, factor: ImageEnhance.Color(image).enhance(factor),
    "ContrastIncreasing": lambda image, factor: ImageEnhance.Contrast(image).enhance(factor),
    "BrightnessIncreasing": lambda image, factor: ImageEnhance.Brightness(image).enhance(factor),
    "SharpnessIncreasing": lambda image, factor: ImageEnhance.Sharpness(image).enhance(factor),
    "ShearX": lambda image, a: _transform(image, 1, a, 0, 0, 1, 0),
    "ShearY": lambda image, a: _transform(image, 1, 0, 0, a, 1, 0),
    "TranslateXRel": lambda image, a: _transform(image, 1, 0, a * image.width, 0, 1, 0),
    "TranslateYRel": lambda image, a: _transform(image, 1, 0, 0, 0, 1, a * image.height),
}
"""Each operation as Pillow does it, for the amount that the level and the sign give."""


def amount(name: str, level: float, sign: float) -> float:
    return float(OPERATIONS[name].amount(jnp.float32(level), jnp.float32(sign)))


def operate_on_host(frames: np.ndarray, name: str, value: float) -> np.ndarray:
    return np.stack([np.asarray(PILLOW[name](Image.fromarray(frame), value)) for frame in frames])


def crop_on_host(frames: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    """A box of normalised frames, scaled by torch; T S S 3."""
    import torch

    top, left, height, width = box
    normal = torch.from_numpy((frames.astype(np.float32) / 255 - IMAGENET_MEAN) / IMAGENET_STD)
    cut = normal.permute(0, 3, 1, 2)[:, :, top : top + height, left : left + width]
    scaled = torch.nn.functional.interpolate(cut, (SIZE, SIZE), mode="bilinear", align_corners=False)
    return scaled.permute(0, 2, 3, 1).numpy()


def augment_on_host(frames: np.ndarray, rng: random.Random, config: AugmentConfig) -> np.ndarray:
    """The recipe for one clip (T H W 3), as it is done in a worker of a data loader."""
    for name in rng.choices(list(PILLOW), k=config.rand_num_ops):
        if rng.random() < 0.5:
            level = min(10, max(0, rng.gauss(config.rand_magnitude, config.rand_magnitude_std)))
            frames = operate_on_host(frames, name, amount_on_host(name, level, rng.choice((-1, 1))))
    clip = crop_on_host(frames, draw_crop_on_host(*frames.shape[1:3], rng, config))
    if rng.random() < 0.5:
        clip = clip[:, :, ::-1]
    if rng.random() < config.erase_prob:
        area, ratio = SIZE**2 * rng.uniform(0.02, 1 / 3), np.exp(rng.uniform(np.log(0.3), -np.log(0.3)))
        height, width = (min(SIZE - 1, round((area * x) ** 0.5)) for x in (ratio, 1 / ratio))
        top, left = rng.randint(0, SIZE - height), rng.randint(0, SIZE - width)
        clip = clip.copy()
        noise = np.random.default_rng(rng.getrandbits(32)).standard_normal(
            (FRAMES, height, width, 3), np.float32
        )
        clip[:, top : top + height, left : left + width] = noise
    return np.ascontiguousarray(clip)


def amount_on_host(name: str, level: float, sign: float) -> float:
    """The recipe's amounts, written a second time so that the host's way makes no call of the device."""
    share = level / 10
    if name.endswith(("XRel", "YRel")):
        return sign * share * 0.45
    fixed = {
        "Rotate": sign * share * 30,
        "ShearX": sign * share * 0.3,
        "ShearY": sign * share * 0.3,
        "PosterizeIncreasing": 4 - int(share * 4),
        "SolarizeIncreasing": 256 - int(share * 256),
        "SolarizeAdd": int(share * 110),
    }
    return fixed.get(name, 1 + sign * share * 0.9)


def draw_crop_on_host(
    height: int, width: int, rng: random.Random, config: AugmentConfig
) -> tuple[int, int, int, int]:
    low, high = np.log(config.crop_ratio)
    for _ in range(10):
        area, ratio = height * width * rng.uniform(*config.crop_scale), np.exp(rng.uniform(low, high))
        h, w = round((area / ratio) ** 0.5), round((area * ratio) ** 0.5)
        if 0 < h <= height and 0 < w <= width:
            return rng.randint(0, height - h), rng.randint(0, width - w), h, w
    side = min(height, width)
    return (height - side) // 2, (width - side) // 2, side, side


def read_clips(folder: str, count: int = FRAMES) -> list[np.ndarray]:
    """Every fourth frame of each video, at most `count`, as stored."""
    clips = []
    for path in sorted(Path(folder).iterdir()):
        with open_video(path) as video:
            indices = [min(4 * place, len(video.timestamps) - 1) for place in range(count)]
            clips.append(np.stack(list(video.frames(indices))))
    return clips


def on_canvas(frames: np.ndarray, height: int = CANVAS[0], width: int = CANVAS[1]) -> np.ndarray:
    """Frames scaled to a height and width."""
    images = (Image.fromarray(frame) for frame in frames)
    return np.stack(
        [np.asarray(image.resize((width, height), Image.Resampling.BILINEAR)) for image in images]
    )


def drawn_clips() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    motions = list(MOTIONS)[:BATCH]
    return [render(draw_look(rng), draw_phases(rng, motion, FRAMES), 320) for motion in motions]


def in_turn(ways: dict[str, Callable[[], object]], clips: int, rounds: int) -> dict[str, float]:
    """Median milliseconds per clip of each way, by the clock and of all cores, after one call of each."""
    times: dict[str, list[float]] = {f"{name} {kind}": [] for name in ways for kind in ("ms", "core ms")}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            start, start_cores = time.perf_counter(), time.process_time()
            jax.block_until_ready(way())
            if turn:
                times[f"{name} ms"].append(1000 * (time.perf_counter() - start) / clips)
                times[f"{name} core ms"].append(1000 * (time.process_time() - start_cores) / clips)
    return {name: statistics.median(taken) for name, taken in times.items()}


def speed(folder: str | None) -> list[dict[str, object]]:
    import torch

    torch.set_num_threads(1)  # As in a worker of a data loader.
    config = AugmentConfig()
    clips = (read_clips(folder) if folder else drawn_clips())[:BATCH]
    host = np.stack([on_canvas(clip) for clip in clips])
    canvases = jnp.asarray(host)
    box = jnp.tile(jnp.array([[*CANVAS, 0]], jnp.int32), (len(host), 1))
    ours = jax.jit(partial(augment, config=config, size=(SIZE, SIZE)))
    keys, rng = iter(jax.random.split(jax.random.key(0), 100)), random.Random(0)
    recipe = {
        "device": lambda: ours(next(keys), canvases, box),
        "host": lambda: [augment_on_host(clip, rng, config) for clip in host],
    }
    rows: list[dict[str, object]] = [{"what": "whole recipe", **in_turn(recipe, len(host), 20)}]
    frames, size = jnp.asarray(host[0].transpose(1, 2, 0, 3)), jnp.array(CANVAS)
    for name, operation in OPERATIONS.items():
        value = amount(name, 7, 1)
        ways = {
            "device": partial(jax.jit(operation.apply), frames, size, jnp.float32(value)),
            "host": partial(operate_on_host, host[0], name, value),
        }
        rows.append({"what": name, **in_turn(ways, 1, 5)})
    no, crop = jnp.array(False), (20, 30, 150, 200)
    resize = jax.jit(lambda frames: resize_crop(frames, tuple(map(jnp.asarray, crop)), (SIZE, SIZE), no, no))
    ways = {"device": partial(resize, frames), "host": partial(crop_on_host, host[0], crop)}
    return [*rows, {"what": "crop and resize", **in_turn(ways, 1, 5)}]


def pillow(folder: str) -> list[dict[str, object]]:
    """Differences on 4 frames of each video on a canvas, with noise beyond their valid part."""
    rng = np.random.default_rng(0)
    clips = [on_canvas(clip) for clip in read_clips(folder, 4)]
    size = jnp.array(CANVAS)
    rows = []
    for name, operation in OPERATIONS.items():
        apply, differences = jax.jit(operation.apply), []
        for clip in clips:
            canvas = rng.integers(0, 256, (len(clip), 272, 456, 3), np.uint8)
            canvas[:, : CANVAS[0], : CANVAS[1]] = clip
            for level in LEVELS:
                for sign in (-1, 1):
                    value = amount(name, level, sign)
                    ours = apply(jnp.asarray(canvas.transpose(1, 2, 0, 3)), size, jnp.float32(value))
                    ours = np.asarray(ours).transpose(2, 0, 1, 3)[:, : CANVAS[0], : CANVAS[1]].astype(int)
                    differences.append(np.abs(ours - operate_on_host(clip, name, value)))
        every = np.concatenate(differences)
        rows.append({"what": name, "largest": int(every.max()), "share": float((every > 0).mean())})
    return rows


def order(folder: str) -> list[dict[str, object]]:
    """Mean difference of final crops: the operation first, then the crop, on full frames and on canvases."""
    rng, config = random.Random(0), AugmentConfig()
    found: dict[str, list[float]] = {name: [] for name in ("none", *OPERATIONS)}
    for full in read_clips(folder, 3):
        scale = min(256 / min(full.shape[1:3]), 456 / max(full.shape[1:3]))
        small = on_canvas(full, round(full.shape[1] * scale), round(full.shape[2] * scale))
        for level in (*LEVELS, *LEVELS):
            box, sign = draw_crop_on_host(*small.shape[1:3], rng, config), rng.choice((-1, 1))
            top, left = round(box[0] / scale), round(box[1] / scale)
            height, width = round((box[0] + box[2]) / scale) - top, round((box[1] + box[3]) / scale) - left
            for name, differences in found.items():
                crops = []
                for frames, place in ((full, (top, left, height, width)), (small, box)):
                    if name != "none":
                        frames = operate_on_host(frames, name, amount_on_host(name, level, sign))
                    crops.append(crop_on_host(frames, place) * (255 * IMAGENET_STD))
                differences.append(float(np.abs(crops[0] - crops[1]).mean()))
    return [
        {"what": name, "mean": statistics.mean(each), "largest": max(each)} for name, each in found.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("part", choices=("speed", "pillow", "order"))
    parser.add_argument("--videos")
    args = parser.parse_args()
    if args.part != "speed" and not args.videos:
        parser.error(f"{args.part} needs --videos FOLDER")
    rows = {"speed": speed, "pillow": pillow, "order": order}[args.part](args.videos)
    print("".join(f"{name:>16}" if name != "what" else f"{'':32}" for name in rows[0]))
    for row in rows:
        print("".join(f"{v:32}" if isinstance(v, str) else f"{v:16.5g}" for v in row.values()))
    print(
        json.dumps({"device": str(jax.devices()[0]), "jax": jax.__version__, "part": args.part, "rows": rows})
    )


if __name__ == "__main__":
    main()
