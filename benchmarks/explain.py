"""Whether maps lie on the moving shape: generated clips that no choice was made on, beside other weights.

    videomae-jax demo
    python benchmarks/explain.py --checkpoint runs/demo/finetuned [--clips 20] [--seed 1]

Draws that many clips of every motion, as the demo does but of other seeds than its videos, and explains each
with the checkpoint and with the same weights in another order. A token is the shape's where the shape covers
half of it or more, and background where it covers a twentieth or less. Prints for every map the chance that a
token of the shape is brighter than one of the background (AUC), the same with shuffled weights, and the rank
correlation of the two maps. "Colour" uses no model: how far a token's mean colour is from that of the clip.
"""

import argparse

import jax
import numpy as np
from jaxtyping import Bool, Float, UInt8

from videomae_jax.checkpoints.processing_json import read_processing
from videomae_jax.data.synthetic import MOTIONS, Look, draw_look, draw_phases, render
from videomae_jax.inference.explain.explainer import Explainer, rank_correlation
from videomae_jax.inference.features.clip_encoder import load_model
from videomae_jax.inference.normalization import read_normalization
from videomae_jax.model_config import VideoMAEConfig
from videomae_jax.models.maps import randomized

FRAMES = 40
Grid = Float[np.ndarray, "t h w"]


def tokens_of(pixels: Float[np.ndarray, "T H W *c"], config: VideoMAEConfig) -> Float[np.ndarray, "t h w *c"]:
    """Means over tubelets."""
    t, h, w = config.grid
    parts = pixels.reshape(
        t, config.tubelet_size, h, config.patch_size, w, config.patch_size, *pixels.shape[3:]
    )
    return parts.mean(axis=(1, 3, 5))


def draw(
    motion: str, rng: np.random.Generator, config: VideoMAEConfig, rate: int
) -> tuple[UInt8[np.ndarray, "T H W 3"], Grid]:
    """The middle clip of a generated video, and how much of each token the shape covers."""
    look, phases = draw_look(rng), draw_phases(rng, motion, FRAMES)
    span = (config.num_frames - 1) * rate + 1
    phases = phases[(FRAMES - span) // 2 :][:span:rate]
    white = Look(np.zeros(3, np.uint8), np.full((2, 3), 255, np.uint8), look.shape_waves, look.corners)
    covered = render(white, phases, config.image_size)[..., 0] / 255
    return render(look, phases, config.image_size), tokens_of(covered, config)


def auc(grid: Grid, shape: Bool[np.ndarray, "t h w"], background: Bool[np.ndarray, "t h w"]) -> float:
    """The chance that a value on the shape is above one on the background; ties count half."""
    inside, outside = grid[shape][:, None], grid[background][None]
    return float((inside > outside).mean() + (inside == outside).mean() / 2)


def maps(
    explainer: Explainer, clip: UInt8[np.ndarray, "T H W 3"], label: int | None
) -> dict[str, np.ndarray]:
    found = explainer.explain(clip, label)
    assert found.class_map is not None, "name a classifier"
    return {"rollout": found.rollout, "class map": found.class_map, "token PCA": found.pca}


def localization(name: str, grid: np.ndarray, *where: np.ndarray) -> float:
    """Of a principal component the sign says nothing, so the best of three and of both signs counts."""
    if name != "token PCA":
        return auc(grid, *where)
    each = [auc(grid[..., component], *where) for component in range(grid.shape[-1])]
    return max(max(value, 1 - value) for value in each)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--clips", type=int, default=20, help="of each of the eight motions")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    model, params = load_model(args.checkpoint, None, "float32")
    normalization, config = read_normalization(args.checkpoint), model.config
    processing = read_processing(args.checkpoint)
    rate = processing.sampling_rate if processing and processing.sampling_rate else 4
    trained = Explainer(model, params, normalization)
    shuffled = Explainer(model, randomized(params, jax.random.key(args.seed)), normalization)
    rows: dict[str, list[tuple[float, float, float]]] = {}
    colour = []
    for label, motion in enumerate(MOTIONS):
        for number in range(args.clips):
            rng = np.random.default_rng((1_000_003, args.seed, label, number))
            clip, covered = draw(motion, rng, config, rate)
            where = covered >= 0.5, covered <= 0.05
            if not (where[0].any() and where[1].any()):
                continue
            means = tokens_of(clip.astype(np.float64), config)
            colour.append(auc(np.abs(means - means.mean(axis=(0, 1, 2))).sum(axis=-1), *where))
            found = maps(trained, clip, None)
            other = maps(shuffled, clip, None)
            for name, grid in found.items():
                same = rank_correlation(grid, other[name])
                row = localization(name, grid, *where), localization(name, other[name], *where), same
                rows.setdefault(name, []).append(row)
    print(f"{len(colour)} clips; colour: AUC {np.mean(colour):.2f} ± {np.std(colour):.2f}\n")
    print("| map | AUC | AUC with shuffled weights | rank correlation of the two |\n|---|---|---|---|")
    for name, values in rows.items():
        (good, bad, same), (spread, other, _) = np.mean(values, axis=0), np.std(values, axis=0)
        print(f"| {name} | {good:.2f} ± {spread:.2f} | {bad:.2f} ± {other:.2f} | {same:.2f} |")


if __name__ == "__main__":
    main()
