"""The command `videomae-jax demo`: generate videos, train a tiny model on a CPU, see what it reconstructs."""

import shlex
import time
from dataclasses import dataclass, replace
from pathlib import Path

from videomae_jax.config import load_config
from videomae_jax.data.synthetic import MOTIONS, write_synthetic_videos
from videomae_jax.errors import RunError
from videomae_jax.inference.curve import draw_loss_curve
from videomae_jax.inference.view import ReconstructVideo, draw_reconstruction
from videomae_jax.training.loop import pretrain
from videomae_jax.training.workdir import METRICS, read_rows

RECIPE = "moving_shapes"


@dataclass(frozen=True)
class Demo:
    """Generate small videos, pre-train a tiny model on them on a CPU, and draw what it reconstructs."""

    workdir: Path = Path("runs/demo")
    """Folder for the videos, the run and the pictures. What is there already is not done again."""


def demo(args: Demo) -> int:
    """Do all of it, or the rest of it, and say where to look; returns the exit code."""
    began = time.monotonic()
    videos, run, pictures = (args.workdir / name for name in ("videos", "run", "pictures"))
    train, val = _videos(videos)
    config = load_config(RECIPE)
    config = replace(config, data=replace(config.data, train=(str(train),), val=(str(val),)))
    print(f"\n2. Pre-training on them (recipe {RECIPE}); Ctrl-C stops and saves, the same command goes on\n")
    outcome = pretrain(config, run)
    if outcome.exit_code:
        return outcome.exit_code
    print("\n3. Reconstructing held-out clips, one of each class\n")
    draw_loss_curve(run)
    for motion in MOTIONS:
        video = videos / "val" / f"{motion}_000.mp4"
        result, _ = draw_reconstruction(ReconstructVideo(video, str(run), pictures))
        print(f"{motion:>13}  loss {result.loss:.2f}, squared pixel error {result.pixel_error:.4f}")
    print("\n".join(["", *_summary(args.workdir, run, time.monotonic() - began)]))
    return 0


def _videos(folder: Path) -> tuple[Path, Path]:
    """The two lists, with the videos that they name written before them."""
    train, val = folder / "train.csv", folder / "val.csv"
    if val.exists():
        print(f"1. Using the videos in {folder}")
    else:
        print(f"1. Writing videos of {len(MOTIONS)} motions to {folder} ...", flush=True)
        began = time.monotonic()
        train, val = write_synthetic_videos(folder)
        print(f"   {len(list(folder.rglob('*.mp4')))} mp4 files in {time.monotonic() - began:.0f} s")
    return train, val


def _summary(workdir: Path, run: Path, seconds: float) -> list[str]:
    """What came out, where to look, and what to run next."""
    scores = [row for row in read_rows(run / METRICS) if row.get("val_loss") is not None]
    if not scores:
        raise RunError(f"{run / METRICS} has no held-out loss; remove {run} and run the demo again")
    loss, zero = scores[-1]["val_loss"], scores[-1]["val_zero_loss"]
    folder = shlex.quote(str(run))
    video = shlex.quote(str(workdir / "videos" / "val" / "grow_001.mp4"))
    return [
        f"Done in {seconds:.0f} s. Loss on the hidden patches of held-out clips: {loss:.4f}.",
        f"Predicting zero scores {zero:.4f} on them: the model's loss is {loss / zero:.2f} of it.",
        "",
        f"Look at  {workdir / 'pictures'}  (original | masked | reconstruction, as PNG and GIF)",
        f"         {run / 'loss.png'}  (the loss curve)",
        "",
        "Run next",
        f"  videomae-jax reconstruct {video} --checkpoint {folder} --mask-ratio 0.5",
        f"  videomae-jax pretrain {RECIPE} --data.train FOLDER_OF_YOUR_VIDEOS --workdir runs/mine",
        "  videomae-jax pretrain --help",
    ]


__all__ = ["Demo", "demo"]
