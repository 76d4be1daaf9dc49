"""The command `videomae-jax demo`: the whole paper in miniature, on a CPU.

Videos are generated, a tiny model is pre-trained on them without labels, its reconstructions are drawn, and
it is fine-tuned on a few labelled ones, beside a model of the same size that starts from scratch.
"""

import shlex
import time
from dataclasses import dataclass, replace
from pathlib import Path
from signal import Signals

from videomae_jax.checkpoints.orbax import find_step_folder
from videomae_jax.config import FinetuneConfig, PretrainConfig, load_config
from videomae_jax.data.synthetic import MOTIONS, write_synthetic_videos
from videomae_jax.errors import InputError, RunError
from videomae_jax.files import locked_folder
from videomae_jax.inference.evaluation.command import Evaluate, evaluate_checkpoint
from videomae_jax.inference.evaluation.evaluate import Evaluation
from videomae_jax.inference.reconstruction.command import ReconstructVideo, draw_reconstructions
from videomae_jax.inference.report.command import REPORT, Report, write_report
from videomae_jax.training.loop import train
from videomae_jax.training.reporting.curve import draw_curves
from videomae_jax.training.run_folder import METRICS, read_rows

PRETRAIN, FINETUNE = "moving_shapes", "moving_shapes_finetune"
NUM_TRAIN, NUM_FEW = 100, 16
"""Clips of each motion to pre-train on, and those of them that have a label."""


@dataclass(frozen=True)
class Demo:
    """Generate videos, pre-train, reconstruct, fine-tune and evaluate a tiny model, on a CPU."""

    workdir: Path = Path("runs/demo")
    """Folder for the videos, the runs and the pictures. What is there already is not done again."""


def demo(args: Demo) -> int:
    """Do all of it, or the rest of it, and say where to look; returns the exit code."""
    with locked_folder(args.workdir, "--workdir"):
        return _demo(args)


def _demo(args: Demo) -> int:
    """As `demo`, once no other demo writes there."""
    began = time.monotonic()
    videos, pretrained = args.workdir / "videos", args.workdir / "pretrained"
    _videos(videos)
    print(f"\n2. Pre-training without labels (recipe {PRETRAIN}); Ctrl-C stops, the same command goes on\n")
    if signal := _pretrain(videos, pretrained):
        return 128 + signal
    print("\n3. Reconstructing validation clips, one of each class\n")
    clips = tuple(str(videos / "val" / f"{motion}_000.mp4") for motion in MOTIONS)
    drawn = draw_reconstructions(ReconstructVideo(clips, str(pretrained), args.workdir / "pictures"))
    for motion, found in zip(MOTIONS, drawn, strict=True):
        if isinstance(found, InputError):
            raise found
        result, _ = found
        print(f"{motion:>13}  loss {result.loss:.4f}, squared pixel error {result.pixel_error:.4f}")
    evaluations = []
    for number, (name, init_from) in enumerate((("finetuned", str(pretrained)), ("scratch", None)), 4):
        start = "from the pre-trained weights" if init_from else "from scratch, for comparison"
        print(f"\n{number}. Fine-tuning on a few labelled clips, {start} (recipe {FINETUNE})\n")
        if signal := _finetune(videos, args.workdir / name, init_from):
            return 128 + signal
        evaluations.append(_evaluate(videos, args.workdir / name))
    write_report([args.workdir / "pretrained"], args.workdir / "pretrained" / REPORT, Report.samples)
    fine = [args.workdir / name for name in ("finetuned", "scratch")]
    write_report(fine, args.workdir / REPORT, Report.samples)
    print("\n".join(["", *_summary(args.workdir, evaluations, time.monotonic() - began)]))
    return 0


def _videos(folder: Path) -> None:
    """The videos and their lists; the list that is written last says that all are there."""
    if (folder / "val.csv").exists():
        print(f"1. Using the videos in {folder}")
        return
    print(f"1. Writing videos of {len(MOTIONS)} motions to {folder} ...", flush=True)
    began = time.monotonic()
    write_synthetic_videos(folder, train_per_class=NUM_TRAIN, few_per_class=NUM_FEW, side=32)
    print(f"   {len(list(folder.rglob('*.mp4')))} mp4 files in {time.monotonic() - began:.0f} s")


def _pretrain(videos: Path, workdir: Path) -> Signals | None:
    config = load_config(PRETRAIN)
    assert isinstance(config, PretrainConfig)
    data = replace(config.data, train=(str(videos / "train.csv"),), val=(str(videos / "val.csv"),))
    outcome = train(replace(config, data=data), workdir)
    draw_curves(workdir)
    return outcome.signal


def _finetune(videos: Path, workdir: Path, init_from: str | None) -> Signals | None:
    config = load_config(FINETUNE)
    assert isinstance(config, FinetuneConfig)
    data = replace(
        config.data,
        train=(str(videos / "few.csv"),),
        val=(str(videos / "val.csv"),),
        classes=str(videos / "classes.txt"),
    )
    # Learning slower towards the input protects what was learned there: from scratch there is nothing.
    layer_decay = config.layer_decay if init_from else 1.0
    outcome = train(replace(config, data=data, init_from=init_from, layer_decay=layer_decay), workdir)
    draw_curves(workdir)
    return outcome.signal


def _evaluate(videos: Path, workdir: Path) -> Evaluation:
    """The accuracy of the last step: the best one would be chosen by the very clips it is tested on."""
    return evaluate_checkpoint(
        Evaluate(
            (str(videos / "val.csv"),),
            str(find_step_folder(workdir)),
            classes=str(videos / "classes.txt"),
            num_workers=2,
            out=workdir / "test",
        )
    )


def _summary(workdir: Path, evaluations: list[Evaluation], seconds: float) -> list[str]:
    """What came out, where to look, and what to run next."""
    scores = [row for row in read_rows(workdir / "pretrained" / METRICS) if row.get("val_loss") is not None]
    if not scores:
        raise RunError(
            f"{workdir / 'pretrained'} has no validation loss; remove {workdir} and run the demo again"
        )
    loss, zero = scores[-1]["val_loss"], scores[-1]["val_zero_loss"]
    finetuned, scratch = (each.top1 for each in evaluations)
    chance = 1 / len(MOTIONS)
    checkpoint = shlex.quote(str(workdir / "finetuned"))
    video = shlex.quote(str(workdir / "videos" / "val" / "grow_001.mp4"))
    return [
        f"Done in {seconds:.0f} s.",
        f"Loss on the masked patches of validation clips: {loss:.4f}; predicting zero scores {zero:.4f}.",
        f"Accuracy on {finetuned.read} validation clips, with {NUM_FEW} labelled ones of each motion:",
        f"  pre-trained {finetuned.share:.1%}, from scratch {scratch.share:.1%}, chance {chance:.1%}",
        "  (as many steps of fine-tuning for both; how far seeds differ: docs/learning.md)",
        "",
        f"Look at  {workdir / 'pictures'}  (original | masked | reconstruction, as PNG and GIF)",
        f"         {workdir / 'pretrained' / REPORT}, {workdir / REPORT}  (curves, hours, samples, settings)",
        f"         {workdir / 'finetuned' / 'test' / 'confusion.png'}  (which motion is taken for which)",
        "",
        "Run next",
        f"  videomae-jax classify {video} --checkpoint {checkpoint}",
        f"  videomae-jax reconstruct {video} --checkpoint {shlex.quote(str(workdir / 'pretrained'))}",
        f"  videomae-jax pretrain {PRETRAIN} --data.train FOLDER_OF_YOUR_VIDEOS --workdir runs/mine",
    ]
