"""Does it learn? Pre-training against learning from scratch, on generated and on real clips.

    python benchmarks/learning.py shapes --out runs/learning            # the demo's motions; no files needed
    python benchmarks/learning.py real --out runs/learning --data FOLDER [FOLDER ...]
    python benchmarks/learning.py report --out runs/learning            # tables and plots of what is there

Every measurement is a file in OUT/results, so that a stopped study goes on where it was, and several
processes can share one: `--share 0/2` and `--share 1/2`, or `--only motion`. FOLDER holds videos, and their
labels and folds in `groups.csv` (columns path, label and fold...).
"""

import argparse
import csv
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from videomae_jax.config import AugmentConfig, FinetuneConfig, OptimConfig, PretrainConfig, VideoMAEConfig
from videomae_jax.data.synthetic import MOTIONS, draw_look, draw_phases, render
from videomae_jax.data.video import open_video
from videomae_jax.inference.probe.choice import Method, measure
from videomae_jax.inference.probe.features import HeldFeatures, ProbeSet
from videomae_jax.models.classification import VideoMAEForVideoClassification
from videomae_jax.models.encoder import VideoMAEModel
from videomae_jax.models.pixels import normalize
from videomae_jax.training.objectives.finetuning import Finetuning
from videomae_jax.training.objectives.objective import Objective
from videomae_jax.training.objectives.pretraining import Pretraining
from videomae_jax.training.optimizer import warmup_cosine
from videomae_jax.training.sharding import make_mesh
from videomae_jax.training.state import create_state
from videomae_jax.training.step import make_train_step

Params = Any
BATCH = 32


@dataclass(frozen=True, eq=False)
class Clips:
    """Whole videos in memory, all as long: `video` (n F S S 3) uint8, and their labels."""

    video: np.ndarray
    label: np.ndarray

    def only(self, rows: np.ndarray) -> "Clips":
        return Clips(self.video[rows], self.label[rows])

    def middle(self, config: VideoMAEConfig, rate: int) -> np.ndarray:
        span = (config.num_frames - 1) * rate + 1
        start = (self.video.shape[1] - span) // 2
        return self.video[:, start : start + span : rate]


@dataclass(frozen=True)
class Study:
    """What is held alike in all measurements of one data set."""

    model: VideoMAEConfig
    rate: int
    pretrain_steps: int
    finetune_steps: int
    augment: AugmentConfig
    lr: float = 2e-3
    finetune_lr: float = 1e-3


SHAPES = Study(
    model=VideoMAEConfig(
        image_size=32,
        patch_size=8,
        num_frames=8,
        hidden_size=64,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=256,
        decoder_hidden_size=64,
        decoder_num_hidden_layers=2,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=256,
        norm_pix_loss=False,
    ),
    rate=4,
    pretrain_steps=800,
    finetune_steps=300,
    augment=AugmentConfig(
        rand_num_ops=0,
        crop_scale=(0.6, 1.0),
        crop_ratio=(0.9, 1.1),
        flip=False,
        erase_prob=0,
        mixup=0,
        cutmix=0,
    ),
)


def fit(objective: Objective, clips: Clips, params: Params, steps: int, rate: int, seed: int) -> Params:
    """Train on random clips of the videos; returns the parameters after the last step."""
    config, mesh = objective.config, make_mesh(devices=jax.devices()[:1])
    span = (config.model.num_frames - 1) * rate + 1
    schedule = warmup_cosine(config.optim, config.batch_size, 1, steps)
    state = create_state(objective, mesh, jax.random.key(seed), params)
    step_of = cache(lambda part: make_train_step(part, mesh, schedule))
    rng, order = np.random.default_rng(seed), np.zeros(0, int)
    side = clips.video.shape[2]
    for number in range(steps):
        while len(order) < config.batch_size:
            order = np.concatenate([order, rng.permutation(len(clips.video))])
        rows, order = order[: config.batch_size], order[config.batch_size :]
        starts = rng.integers(0, clips.video.shape[1] - span + 1, len(rows))
        video = np.stack(
            [clips.video[row, start : start + span : rate] for row, start in zip(rows, starts, strict=True)]
        )
        box = np.tile(np.int32([side, side, 0]), (len(rows), 1))
        arrays = {"video": video, "box": box, "label": clips.label[rows].astype(np.int32)}
        wanted = ("video",) if isinstance(config, PretrainConfig) else arrays
        placed = {name: jnp.asarray(arrays[name]) for name in wanted}
        state, _ = step_of(objective.at(number, steps))(state, placed, jax.random.key(seed + 1000))
    return state.params


def optimizer(lr: float, steps: int, betas: tuple[float, float]) -> OptimConfig:
    per_256 = 256 / BATCH
    return OptimConfig(
        base_lr=lr * per_256,
        min_lr=0.01 * lr * per_256,
        warmup_epochs=steps // 20,
        betas=betas,
        clip_grad=5.0,
    )


def pretrain(
    study: Study,
    clips: Clips,
    seed: int,
    mask: str,
    ratio: float,
    depth: int,
    decoder: str = "self",
    cell: float = 0.0,
    earlier: tuple[float, ...] = (),
) -> Params:
    steps = study.pretrain_steps
    config = PretrainConfig(
        model=replace(study.model, decoder_num_hidden_layers=depth, decoder_type=decoder),
        optim=optimizer(study.lr, steps, (0.9, 0.95)),
        mask_type=mask,  # type: ignore[arg-type]
        mask_ratio=ratio,
        decoder_mask_ratio=cell,
        earlier_mask_ratios=earlier,
        batch_size=BATCH,
    )
    return fit(Pretraining(config), clips, None, steps, study.rate, seed)


def finetune(
    study: Study, clips: Clips, encoder: Params, seed: int, classes: int, steps: int
) -> Callable[[np.ndarray], np.ndarray]:
    """Train a classifier, from `encoder` where there is one; returns what names the class of clips."""
    config = FinetuneConfig(
        model=replace(study.model, num_labels=classes),
        augment=study.augment,
        optim=optimizer(study.finetune_lr, steps, (0.9, 0.999)),
        layer_decay=0.75 if encoder else 1.0,
        batch_size=BATCH,
    )
    task = Finetuning(config)
    params = task.init_params(jax.random.key(seed))
    if encoder:
        params = params | {"encoder": {name: encoder["encoder"][name] for name in params["encoder"]}}
    params = fit(task, clips, params, steps, study.rate, seed)
    return partial(_classes, VideoMAEForVideoClassification(config.model), params)


@partial(jax.jit, static_argnums=0)
def _logits(model: VideoMAEForVideoClassification, params: Params, clips: jax.Array) -> jax.Array:
    return model.apply({"params": params}, normalize(clips)).logits


@partial(jax.jit, static_argnums=0)
def _tokens(model: VideoMAEModel, params: Params, clips: jax.Array) -> jax.Array:
    return model.apply({"params": params}, normalize(clips)).last_hidden_state


def _in_batches(function: Callable[[jax.Array], jax.Array], clips: np.ndarray) -> np.ndarray:
    """The function's rows for all clips, with one shape of batch."""
    parts = []
    for first in range(0, len(clips), BATCH):
        part = clips[first : first + BATCH]
        filled = np.concatenate([part, np.zeros((BATCH - len(part), *part.shape[1:]), np.uint8)])
        parts.append(np.asarray(function(jnp.asarray(filled)))[: len(part)])
    return np.concatenate(parts)


def _classes(model: VideoMAEForVideoClassification, params: Params, clips: np.ndarray) -> np.ndarray:
    return _in_batches(partial(_logits, model, params), clips).argmax(1)


def probe(
    study: Study, params: Params, kind: str, train: Clips, test: Clips, classes: int, seed: int
) -> float:
    """Accuracy of a probe on the tokens of a frozen encoder with its last norm."""
    model = VideoMAEModel(replace(study.model, use_mean_pooling=False))

    def features(clips: Clips) -> ProbeSet:
        tokens = _in_batches(
            partial(_tokens, model, {"encoder": params["encoder"]}), clips.middle(study.model, study.rate)
        )
        values = tokens if kind == "attentive" else tokens.mean(1)
        held = HeldFeatures(values[:, None].astype(np.float32))
        return ProbeSet(held, clips.label, np.arange(len(clips.label)))

    method = Method(classes, study.model.num_attention_heads, kind=kind, seed=seed)  # type: ignore[arg-type]
    return measure(method, features(train), features(test)).val_accuracy


def shapes(per_class: int, split: int) -> Clips:
    """Generated clips, one of each class after the other, so that the first n times 8 are n of each."""
    videos, names = [], list(MOTIONS)
    for number in range(per_class):
        for label, motion in enumerate(names):
            rng = np.random.default_rng((0, split, label, number))
            videos.append(render(draw_look(rng), draw_phases(rng, motion, 40), SHAPES.model.image_size))
    return Clips(np.stack(videos), np.tile(np.arange(len(names)), per_class))


SETTINGS = {
    "frame 0.5": ("frame", 0.5, 2),
    "tube 0.5": ("tube", 0.5, 2),
    "random 0.5": ("random", 0.5, 2),
    "motion 0.5": ("motion", 0.5, 2),
    "tube 0.75": ("tube", 0.75, 2),
    "tube 0.9": ("tube", 0.9, 2),
    "tube 0.95": ("tube", 0.95, 2),
    "frame 0.5, decoder 1": ("frame", 0.5, 1),
    "frame 0.5, decoder 4": ("frame", 0.5, 4),
    "frame 0.25, then 0.5": ("frame", 0.5, 2, "self", 0.0, (0.25,)),
    "frame 0.5, running cell": ("frame", 0.5, 2, "self", 0.5),
    "frame 0.5, cross-attention": ("frame", 0.5, 2, "cross"),
    "tube 0.9, running cell": ("tube", 0.9, 2, "self", 0.5),
    "tube 0.9, cross-attention": ("tube", 0.9, 2, "cross"),
}
"""Kind of mask, share masked, layers of the decoder, and where they are others its kind, what it skips, and
the share masked in the first half of the steps."""
BUDGETS = (2, 4, 8, 40)
LONGER = 4
"""How much longer learning from scratch also gets: as many clips as pre-training and fine-tuning see."""


def study_shapes(args: argparse.Namespace) -> Iterator[tuple[str, Callable[[], dict[str, float]]]]:
    """Every measurement on the generated clips, by name."""
    loaded: dict[str, Clips] = {}

    def data(split: str) -> Clips:
        if split not in loaded:
            loaded[split] = shapes(*{"train": (200, 0), "test": (40, 1)}[split])
        return loaded[split]

    def accuracy(encoder: Params, budget: int, seed: int, steps: int) -> float:
        few = data("train").only(np.arange(budget * len(MOTIONS)))
        name = finetune(SHAPES, few, encoder, seed, len(MOTIONS), steps)
        test = data("test")
        return float(np.mean(name(test.middle(SHAPES.model, SHAPES.rate)) == test.label))

    def scratch(seed: int, times: int) -> dict[str, float]:
        return {f"finetune {n}": accuracy(None, n, seed, times * SHAPES.finetune_steps) for n in BUDGETS}

    def pretrained(setting: str, seed: int) -> dict[str, float]:
        params = pretrain(SHAPES, data("train"), seed, *SETTINGS[setting])
        found = {}
        for n in (8, 40, 200):
            few = data("train").only(np.arange(n * len(MOTIONS)))
            found[f"linear {n}"] = probe(SHAPES, params, "linear", few, data("test"), len(MOTIONS), seed)
        budgets = BUDGETS if setting == "frame 0.5" else (8,)
        return found | {f"finetune {n}": accuracy(params, n, seed, SHAPES.finetune_steps) for n in budgets}

    def one_frame(seed: int) -> dict[str, float]:
        """A classifier that sees the middle frame of each clip, repeated."""
        for split in ("train", "test"):
            still = data(split).video[:, 20:21].repeat(40, axis=1)
            loaded[split] = Clips(still, data(split).label)
        found = {"finetune 200": accuracy(None, 200, seed, SHAPES.finetune_steps)}
        loaded.clear()
        return found

    main, *others = SETTINGS
    for seed in range(args.seeds):
        yield f"{main}, seed {seed}", partial(pretrained, main, seed)
        yield f"scratch, seed {seed}", partial(scratch, seed, 1)
        yield f"scratch, {LONGER} times as long, seed {seed}", partial(scratch, seed, LONGER)
    for seed in range(args.seeds):
        for setting in others:
            yield f"{setting}, seed {seed}", partial(pretrained, setting, seed)
        yield f"one frame, seed {seed}", partial(one_frame, seed)


def read_real(folder: Path, study: Study, frames: int) -> tuple[Clips, np.ndarray, int]:
    """All videos as `frames` frames from their middle, squashed to a square, their folds and classes."""
    side, videos, labels, folds = study.model.image_size, [], [], []
    with (folder / "groups.csv").open() as file:
        rows = list(csv.DictReader(file))
    fold_name = next(name for name in rows[0] if name.startswith("fold"))
    for row in rows:
        with open_video(folder / row["path"]) as video:
            count = len(video.timestamps)
            wanted = np.clip(np.arange(frames) + (count - frames) // 2, 0, count - 1)
            read = video.frames(wanted)
        videos.append([np.asarray(Image.fromarray(frame).resize((side, side), 2)) for frame in read])
        labels.append(int(row["label"]))
        folds.append(row[fold_name])
    return Clips(np.array(videos, np.uint8), np.array(labels)), np.array(folds), len(set(labels))


REAL = replace(
    SHAPES,
    model=replace(SHAPES.model, norm_pix_loss=True),
    pretrain_steps=600,
    finetune_steps=200,
    augment=AugmentConfig(rand_num_ops=0, crop_scale=(0.6, 1.0), erase_prob=0, mixup=0, cutmix=0),
)


def study_real(args: argparse.Namespace) -> Iterator[tuple[str, Callable[[], dict[str, float]]]]:
    """Every fold of every data set: pre-training sees the clips of the other folds only, without labels."""
    for folder in args.data:
        clips, folds, classes = read_real(folder, REAL, 40)

        def one_fold(fold: str, seed: int, clips=clips, folds=folds, classes=classes) -> dict[str, float]:
            train, test = clips.only(folds != fold), clips.only(folds == fold)
            params = pretrain(REAL, train, seed, "tube", 0.75, 2)
            fresh = Pretraining(PretrainConfig(REAL.model)).init_params(jax.random.key(seed))
            found: dict[str, float] = {"videos": len(test.label)}
            for start, encoder in (("pre-trained", params), ("random", fresh)):
                for kind in ("linear", "attentive"):
                    found[f"{kind}, {start}"] = probe(REAL, encoder, kind, train, test, classes, seed)
            for start, encoder in (("pre-trained", params), ("scratch", None)):
                name = finetune(REAL, train, encoder, seed, classes, REAL.finetune_steps)
                middle = test.middle(REAL.model, REAL.rate)
                found[f"fine-tuned, {start}"] = float(np.mean(name(middle) == test.label))
            return found

        for seed in range(args.seeds):
            for fold in sorted(set(folds)):
                yield f"{folder.name}, fold {fold}, seed {seed}", partial(one_fold, fold, seed)


def run(args: argparse.Namespace, study: Callable[..., Iterator]) -> None:
    """Do this process's share of the measurements that are not there yet."""
    results = args.out / "results"
    results.mkdir(parents=True, exist_ok=True)
    part, parts = map(int, args.share.split("/"))
    for number, (name, measurement) in enumerate(study(args)):
        file = results / f"{args.command} {name.replace(', ', ' - ')}.json"
        wanted = not args.only or any(word in name for word in args.only)
        if number % parts != part or not wanted or file.exists():
            continue
        began = time.monotonic()
        found = measurement()
        row = {"name": name, "found": found, "seconds": round(time.monotonic() - began, 1)}
        partial_file = file.with_suffix(".partial")
        partial_file.write_text(json.dumps(row))
        partial_file.rename(file)
        scores = ", ".join(f"{what} {value:.3f}" for what, value in found.items())
        print(f"{name}: {scores} ({row['seconds']:.0f} s)", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["shapes", "real", "report"])
    parser.add_argument("--out", type=Path, default=Path("runs/learning"))
    parser.add_argument("--data", type=Path, nargs="+", default=[], help="folders of real data sets")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--share", default="0/1", help="this process's share of the work: NUMBER/PROCESSES")
    parser.add_argument("--only", nargs="+", default=[], help="measurements whose names hold one of these")
    args = parser.parse_args()
    if args.command == "report":
        from learning_report import report

        report(args.out)
    else:
        run(args, {"shapes": study_shapes, "real": study_real}[args.command])


if __name__ == "__main__":
    main()
