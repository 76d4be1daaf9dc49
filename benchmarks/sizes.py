"""Clips of other sizes than the weights were trained on: what is lost, and what is kept.

    python benchmarks/sizes.py loss --checkpoint RUN --out OUT VIDEO [VIDEO ...]
    python benchmarks/sizes.py similarity --checkpoint RUN --out OUT VIDEO VIDEO [VIDEO ...]
    python benchmarks/sizes.py probe --checkpoint RUN --out OUT        # RUN: the demo's pre-training
    python benchmarks/sizes.py commands --checkpoint RUN --videos DEMO/videos --out OUT
    python benchmarks/sizes.py flops [--compiled SIZE [SIZE ...]]
    python benchmarks/sizes.py time [--rounds N]

`loss` is the masked loss over ratios, kinds of mask, lengths and sizes of clips. `similarity` is the cosine
between the features of a clip as trained and at other sizes, less their mean over all clips. `probe` draws
the demo's clips at other lengths and sizes, and trains linear probes on the features. All three are with
resized positions and with a fresh table, as the original code has it; they print tables as Markdown and write
sizes_*.png into OUT. `commands` fine-tunes the demo's weights at other sizes, goes on from an earlier state,
evaluates, exports and classifies. `flops` counts the operations of a pre-training clip with every kind of
decoder, and compiles its gradient for this CPU where asked to; `time` takes gradients with one decoder after
the other.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from sizes_commands import FRAME_SIZES, FRAMES, study_commands
from sizes_cost import print_table, study_flops, study_time

from videomae_jax import VideoMAEConfig, VideoMAEForPreTraining, VideoMAEModel
from videomae_jax.checkpoints.processing_json import read_processing
from videomae_jax.data.synthetic import MOTIONS, draw_look, draw_phases, render
from videomae_jax.inference.clip import read_clip
from videomae_jax.inference.probe.choice import Method, measure
from videomae_jax.inference.probe.features import HeldFeatures, ProbeSet
from videomae_jax.models.masking import MASKS, sample_mask
from videomae_jax.models.pixels import normalize
from videomae_jax.models.pretrained import fit, load_weights
from videomae_jax.models.pretraining import masked_losses
from videomae_jax.processing import Processing
from videomae_jax.sizes import SIZES

RATIOS = (0.25, 0.5, 0.75, 0.9, 0.95)
TABLES = ("resized", "fresh")
BATCH = 32
Weights = tuple[VideoMAEConfig, dict[str, np.ndarray]]


def at_size(weights: Weights, frames: int, size: Any, table: str = "resized") -> VideoMAEConfig:
    """The configuration of clips of another size, with the table of positions resized or built anew."""
    config = replace(weights[0], num_frames=frames, image_size=size, dtype="float32")
    return replace(config, position_grid=config.grid if table == "fresh" else weights[0].learned_grid)


def in_words(size: Any) -> str:
    return "x".join(map(str, size)) if isinstance(size, tuple) else f"{size}x{size}"


def sizes_around(config: VideoMAEConfig) -> tuple[tuple[int, ...], tuple[Any, ...]]:
    """Numbers of frames and sizes of frames, those of the weights among them, one not square."""
    frames = tuple(sorted({config.num_frames, 8, 12, 16, 24}))
    height, width = config.frame_size
    patch = config.patch_size
    larger = tuple((round(side * 1.5) // patch) * patch for side in (height, width))
    sizes = (config.image_size, larger, (height, larger[1]), (2 * height, 2 * width))
    return frames, tuple(
        size[0] if isinstance(size, tuple) and len(set(size)) == 1 else size for size in sizes
    )


class Losses:
    """The masked loss of some videos, and that of predicting zero, in one setting after the other."""

    def __init__(self, checkpoint: str, videos: Sequence[str]) -> None:
        self.weights, self.videos = load_weights(checkpoint), videos
        said = read_processing(checkpoint) or Processing()
        self.rate, self.kind, self.ratio = (
            said.sampling_rate or 4,
            said.mask_type or "tube",
            said.mask_ratio or 0.9,
        )

    def of(self, config: VideoMAEConfig, kind: Any, ratio: float) -> tuple[float, float] | None:
        """Means over the videos; None where the ratio masks nothing or all."""
        model = VideoMAEForPreTraining(config)
        params = fit("the checkpoint", model, self.weights[1])
        loss = jax.jit(partial(masked_losses, model))
        found = []
        for number, video in enumerate(self.videos):
            clip = read_clip(video, config, self.rate)[None]
            try:
                mask = sample_mask(kind, jax.random.key(number), clip, config.grid, ratio)
            except ValueError:
                return None
            found.append([float(value[0]) for value in loss(params, jnp.asarray(clip), mask)])
        mean, zero = np.mean(found, axis=0)
        return float(mean), float(zero)


def study_loss(args: argparse.Namespace) -> None:
    study = Losses(args.checkpoint, args.videos)
    trained = study.weights[0]
    print(
        f"{len(args.videos)} videos; trained with {trained.clip_in_words}, {study.kind} masks of "
        f"{study.ratio:.0%}"
    )
    as_trained = at_size(study.weights, trained.num_frames, trained.image_size)
    by_mask = {kind: [study.of(as_trained, kind, ratio) for ratio in RATIOS] for kind in MASKS}
    frames, sizes = sizes_around(trained)

    def over(settings: Sequence[tuple[int, Any]]) -> dict[str, list[tuple[float, float] | None]]:
        return {
            f"{table} table": [
                study.of(at_size(study.weights, n, size, table), study.kind, study.ratio)
                for n, size in settings
            ]
            for table in TABLES
        }

    by_frames = over([(n, trained.image_size) for n in frames])
    by_size = over([(trained.num_frames, size) for size in sizes])
    panels = [
        ("masked loss (of zeros)", [f"{ratio:.0%}" for ratio in RATIOS], by_mask),
        (f"frames of {in_words(trained.image_size)}", [str(n) for n in frames], by_frames),
        (f"{trained.num_frames} frames of", [in_words(size) for size in sizes], by_size),
    ]
    figure = Figure(figsize=(13, 4), dpi=120, layout="constrained")
    for axis, (title, columns, rows) in zip(figure.subplots(1, 3), panels, strict=True):
        cells = {k: [f"{e[0]:.4f} ({e[1]:.4f})" if e else "" for e in found] for k, found in rows.items()}
        print_table(title, columns, cells)
        for name, found in rows.items():
            shown = [(column, each[0]) for column, each in zip(columns, found, strict=True) if each]
            axis.plot([column for column, _ in shown], [loss for _, loss in shown], marker="o", label=name)
        axis.set(xlabel=title.replace("masked loss (of zeros)", "share masked"), ylabel="masked loss", ylim=0)
        axis.legend()
    save(figure, args.out / "sizes_loss.png")


def save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    print(f"Wrote {path}")


def features_of(weights: Weights, config: VideoMAEConfig) -> Callable[[np.ndarray], np.ndarray]:
    """What makes of clips the mean of their tokens after the encoder's last norm."""
    tensors = {name: each for name, each in weights[1].items() if name.startswith("encoder.")}
    tensors = {name: each for name, each in tensors.items() if not name.startswith("encoder_to_decoder")}
    model = VideoMAEModel(replace(config, use_mean_pooling="encoder.norm.weight" not in tensors))
    params = fit("the checkpoint", model, tensors)

    @jax.jit
    def mean(clips: jax.Array) -> jax.Array:
        return model.apply({"params": params}, normalize(clips)).last_hidden_state.mean(1)

    def batches(clips: np.ndarray) -> Iterator[np.ndarray]:
        for first in range(0, len(clips), BATCH):
            yield np.asarray(mean(jnp.asarray(clips[first : first + BATCH])))

    return lambda clips: np.concatenate(list(batches(clips)))


def study_similarity(args: argparse.Namespace) -> None:
    weights = load_weights(args.checkpoint)
    trained = weights[0]
    span = trained.num_frames * ((read_processing(args.checkpoint) or Processing()).sampling_rate or 4)
    frames, sizes = sizes_around(trained)

    def vectors(n: int, size: Any, table: str) -> np.ndarray:
        config, rate = at_size(weights, n, size, table), max(1, span // n)
        return features_of(weights, config)(
            np.stack([read_clip(video, config, rate) for video in args.videos])
        )

    reference = vectors(trained.num_frames, trained.image_size, "resized")
    middle = reference.mean(axis=0)  # What all clips have in common says nothing.

    def similarity(found: np.ndarray) -> float:
        one, other = (each - middle for each in (found, reference))
        lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
        return float(np.mean((one * other).sum(axis=1) / lengths))

    figure = Figure(figsize=(10, 4), dpi=120, layout="constrained")
    for axis, table in zip(figure.subplots(1, 2, sharey=True), TABLES, strict=True):
        rows = {in_words(s): [similarity(vectors(n, s, table)) for n in frames] for s in sizes}
        print_table(
            f"cosine, {table} table",
            [f"{n} frames" for n in frames],
            {k: [f"{v:.3f}" for v in r] for k, r in rows.items()},
        )
        for name, row in rows.items():
            axis.plot(frames, row, marker="o", label=name)
        axis.set(
            title=f"{table} table",
            xlabel="frames, of at most the same stretch",
            ylabel="cosine with the clip as trained",
        )
        axis.legend()
    save(figure, args.out / "sizes_similarity.png")


def drawn(split: int, per_class: int, frames: int, rate: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """The demo's clips at another length and size: the same looks, motions and speeds a frame."""
    videos = []
    for number, (label, motion) in product(range(per_class), enumerate(MOTIONS)):
        rng = np.random.default_rng((0, split, label, number))
        look, phases = draw_look(rng), draw_phases(rng, motion, 40)
        step = (phases[1] - phases[0] + 0.5) % 1 - 0.5
        span = (frames - 1) * rate + 1
        times = 20 - span // 2 + np.arange(0, span, rate)
        videos.append(render(look, (phases[0] + times[:, None] * step) % 1, side))
    return np.stack(videos), np.tile(np.arange(len(MOTIONS)), per_class)


CASES = ((8, 4, 32), (16, 2, 32), (16, 4, 32), (8, 4, 48), (8, 4, 64), (16, 2, 64))
"""Frames, every n-th of them, and the side of a frame; the first is what the demo trains with."""


def study_probe(args: argparse.Namespace) -> None:
    """Probes that keep what they learned at the weights' own size, and probes trained at each size."""
    weights = load_weights(args.checkpoint)
    own: ProbeSet | None = None
    rows: dict[str, list[float]] = {}
    for frames, rate, side in CASES:
        sets = [drawn(split, count, frames, rate, side) for split, count in ((0, args.per_class), (1, 40))]
        name = f"{frames} frames, every {rate}{'nd' if rate == 2 else 'th'}, {side}x{side}"
        for table in TABLES:
            encode = features_of(weights, at_size(weights, frames, side, table))
            train, test = (
                ProbeSet(HeldFeatures(encode(video)[:, None]), label, np.arange(len(label)))
                for video, label in sets
            )
            own = own or train
            method = Method(num_classes=len(MOTIONS))
            rows.setdefault(name, []).extend(
                measure(method, each, test).val_accuracy for each in (own, train)
            )
        print(name, rows[name], flush=True)
    print(f"trained with {weights[0].clip_in_words}; {args.per_class} labels of each class")
    columns = [
        f"{table} table, {probe}" for table in TABLES for probe in ("probe kept", "probe trained anew")
    ]
    print_table("linear probe", columns, {k: [f"{100 * v:.1f}" for v in r] for k, r in rows.items()})
    figure = Figure(figsize=(10, 4.5), dpi=120, layout="constrained")
    axis, places = figure.subplots(), np.arange(len(rows))
    for shift, (name, column) in enumerate(zip(columns, zip(*rows.values(), strict=True), strict=True)):
        axis.bar(places + 0.2 * shift - 0.3, column, 0.2, label=name)
    axis.axhline(1 / len(MOTIONS), color="tab:gray", ls=":", label="chance")
    axis.set_xticks(places, [name.replace(", ", "\n") for name in rows], fontsize=8)
    axis.set(ylabel="accuracy on 320 clips", ylim=(0, 1))
    axis.legend(fontsize=8, ncols=3)
    save(figure, args.out / "sizes_probe.png")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    studies = parser.add_subparsers(required=True)
    for name, work in (("loss", study_loss), ("similarity", study_similarity), ("probe", study_probe)):
        study = studies.add_parser(name)
        study.add_argument("--checkpoint", required=True)
        study.add_argument("--out", type=Path, default=Path("sizes"))
        if name == "probe":
            study.add_argument("--per-class", type=int, default=200)
        else:
            study.add_argument("videos", nargs="+")
        study.set_defaults(work=work)
    study = studies.add_parser("commands")
    study.add_argument("--checkpoint", required=True)
    study.add_argument("--videos", type=Path, required=True, help="the demo's: few.csv, val.csv, classes.txt")
    study.add_argument("--out", type=Path, default=Path("sizes"))
    study.add_argument("--frames", type=int, nargs="+", default=FRAMES)
    study.add_argument("--sizes", nargs="+", default=FRAME_SIZES)
    study.add_argument("--epochs", type=int, default=2)
    study.set_defaults(work=study_commands)
    study = studies.add_parser("flops")
    study.add_argument("--compiled", nargs="*", default=[], choices=list(SIZES))
    study.set_defaults(work=study_flops)
    study = studies.add_parser("time")
    study.add_argument("--rounds", type=int, default=9)
    study.set_defaults(work=study_time)
    args = parser.parse_args()
    args.work(args)


if __name__ == "__main__":
    main()
