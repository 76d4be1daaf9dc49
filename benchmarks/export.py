"""Exported classifiers beside JAX and PyTorch on real clips: logits, sizes, seconds for a clip.

    python benchmarks/export.py --out FOLDER VIDEO [VIDEO ...]        # 4 videos or a multiple; needs extras
                                                                      # export and parity
Makes classifiers of 400 classes with random weights of the sizes asked for, writes each in all formats, and
scores the middle clips of the videos: four at a time over all of them, and the first of each four alone. All
five, JAX and transformers' model (eager) among them, take turns in one process on the CPU, so that what else
the machine does falls on all alike: compare the ratios. Normalisation counts everywhere. Prints a table.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import jax
import numpy as np
import torch
from transformers import VideoMAEForVideoClassification as TheirClassifier

from videomae_jax import VideoMAEForVideoClassification
from videomae_jax.config import SIZES
from videomae_jax.data.sources import read_videos
from videomae_jax.inference.clip import read_clip
from videomae_jax.inference.export.formats import FORMS
from videomae_jax.inference.export.stablehlo import classifier
from videomae_jax.inference.normalization import Normalization, read_normalization

Score = Callable[[np.ndarray], np.ndarray]
CLASSES, TOGETHER = 400, 4


def write_checkpoint(folder: Path, size: str) -> None:
    """A classifier whose random head tells clips apart; transformers loads it too."""
    config = SIZES[size].changed(id2label=tuple(f"class {n}" for n in range(CLASSES)), num_labels=CLASSES)
    model = VideoMAEForVideoClassification(config)
    params = jax.jit(model.init_params)(jax.random.key(0))
    params |= {"head": jax.tree.map(lambda leaf: 1e3 * leaf, params["head"])}
    model.save_pretrained(folder, params)


def theirs(folder: Path, normalization: Normalization) -> Score:
    """transformers' model, eager, with the threads that torch takes by default."""
    model = TheirClassifier.from_pretrained(folder).eval()
    mean, std = (torch.tensor(each, dtype=torch.float32) for each in (normalization.mean, normalization.std))

    @torch.inference_mode()
    def score(clips: np.ndarray) -> np.ndarray:
        pixels = (torch.from_numpy(clips).float() * normalization.scale - mean) / std
        return model(pixels.permute(0, 1, 4, 2, 3)).logits.numpy()

    return score


def runners(folder: Path, shape: tuple[int, ...]) -> tuple[dict[str, Score], dict[str, float]]:
    """What scores clips, by name, and megabytes of files."""
    model, params = VideoMAEForVideoClassification.from_pretrained(folder, dtype="float32")
    normalization = read_normalization(folder)
    jitted = jax.jit(classifier(model.config, normalization))
    found: dict[str, Score] = {"JAX": lambda clips: np.asarray(jitted(params, clips))}
    found["PyTorch"] = theirs(folder, normalization)
    sizes = {}
    for form, about in FORMS.items():
        file = folder / f"model.{form}"
        writer = import_module(f"videomae_jax.inference.export.{form}")
        writer.write(file, model.config, normalization, params, shape)
        sizes[form] = file.stat().st_size / 1e6
        names = {"FILE": str(file)}
        exec(about.example, names)
        found[form] = names["score"]  # type: ignore[assignment]
    return found, sizes


def measure(found: dict[str, Score], clips: np.ndarray) -> tuple[dict, dict]:
    """Logits of all clips by name, and seconds by name and clips at a time, a list over turns."""
    for score in found.values():  # Compiling, and what the first call sets up, does not count.
        for count in (TOGETHER, 1):
            score(clips[:count])
    logits: dict[str, list[np.ndarray]] = {name: [] for name in found}
    seconds: dict[str, dict[int, list[float]]] = {name: {TOGETHER: [], 1: []} for name in found}
    for start in range(0, len(clips), TOGETHER):
        for count in (TOGETHER, 1):
            for name, score in found.items():
                began = time.perf_counter()
                result = score(clips[start : start + count])
                seconds[name][count].append((time.perf_counter() - began) / count)
                if count == TOGETHER:
                    logits[name].append(result)
    return {name: np.concatenate(each) for name, each in logits.items()}, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("videos", nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", nargs="+", default=["small", "base"])
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    print("| size | run by | largest difference | same best | MB | s, 1 | s, 4 | ratio, 1 | ratio, 4 |")
    print("|---" * 9 + "|")
    for size in args.size:
        folder, config, load = args.out / size, SIZES[size], os.getloadavg()[0]
        write_checkpoint(folder, size)
        videos = read_videos(args.videos, split=None)
        clips = np.stack([read_clip(video, config) for video in videos])
        assert len(clips) % TOGETHER == 0, f"{len(clips)} clips are not a multiple of {TOGETHER}"
        found, sizes = runners(folder, clips.shape[1:])
        logits, seconds = measure(found, clips)
        wanted = logits["JAX"]
        for name in found:
            difference = float(np.abs(logits[name] - wanted).max())
            same = int((logits[name].argmax(1) == wanted.argmax(1)).sum())
            medians = [statistics.median(seconds[name][count]) for count in (1, TOGETHER)]
            ratios = [
                statistics.median(np.divide(seconds[name][count], seconds["JAX"][count]))
                for count in (1, TOGETHER)
            ]
            cells = [f"{difference:.1e}", f"{same} of {len(clips)}", f"{sizes.get(name, 0):.1f}"]
            cells += [*(f"{each:.2f}" for each in medians), *(f"{each:.2f}" for each in ratios)]
            print(f"| {size} | {name} |", " | ".join(cells), "|", flush=True)
        largest = float(np.abs(wanted).max())
        winners = len(set(wanted.argmax(1).tolist()))
        print(f"\nlargest logit {largest:.2g}, {winners} classes are best, load {load:.1f}\n", flush=True)
        (args.out / f"{size}.json").write_text(json.dumps(seconds))


if __name__ == "__main__":
    main()
