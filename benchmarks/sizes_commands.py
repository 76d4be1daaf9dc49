"""Fine-tuning at sizes that the weights were not trained at: the study `commands` of sizes.py."""

import argparse
import contextlib
import io
import json
import re
import shutil
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from sizes_cost import print_table

from videomae_jax import cli

FRAMES, FRAME_SIZES = (4, 8, 16, 32), ("32", "48", "32x64")


def command(*words: object) -> str:
    """Run a command of videomae-jax; returns what it printed, and raises SystemExit where it failed."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            code = cli.main([str(word) for word in words])
        except SystemExit as end:
            code = end.code
    if code:
        raise SystemExit(f"exit code {code}\n{said.getvalue()}")
    return said.getvalue()


def study_commands(args: argparse.Namespace) -> None:
    """Each size by itself; a case that fails is printed with what the command said."""
    rows = {}
    for frames, size in product(args.frames, args.sizes):
        try:
            rows[f"{frames} frames of {size}"] = one_size(args, frames, size)
        except SystemExit as failed:
            rows[f"{frames} frames of {size}"] = [f"FAILED: {failed}"]
        print(rows[f"{frames} frames of {size}"], flush=True)
    columns = ["steps, resumed at", "loss again", "top-1", "class of the run", "of the export"]
    print_table("from one checkpoint", columns, rows)
    try:
        fine_tune(args, args.out / "wrong", 6, "30x40")
    except SystemExit as refused:
        print(refused)


def fine_tune(args: argparse.Namespace, run: Path, frames: int, size: str) -> str:
    recipe, videos = "moving_shapes_finetune", args.videos
    words = ["--data.train", videos / "few.csv", "--data.val", videos / "val.csv"]
    words += ["--data.classes", videos / "classes.txt", "--model.image-size", size]
    words += ["--model.num-frames", frames, "--data.sampling-rate", max(1, 32 // frames)]
    words += ["--checkpoint.every-steps", 6, "--checkpoint.keep-last", 2, "--epochs", args.epochs]
    words += ["--optim.warmup-epochs", 1, "--data.num-workers", 0]
    return command("finetune", recipe, "--init-from", args.checkpoint, "--workdir", run, *words)


def one_size(args: argparse.Namespace, frames: int, size: str) -> Sequence[str]:
    """Fine-tune, lose the last state, go on from the one before, evaluate, export and classify."""
    run = args.out / f"{frames}x{size}"
    shutil.rmtree(run, ignore_errors=True)
    fine_tune(args, run, frames, size)
    first = losses(run)
    last = max(int(path.name) for path in (run / "checkpoints").iterdir() if path.name.isdecimal())
    shutil.rmtree(run / "checkpoints" / str(last))
    resumed = re.search(r"continuing from step \d+", fine_tune(args, run, frames, size))
    again = losses(run)
    lists = ["--classes", args.videos / "classes.txt", "--num-workers", 0]
    command("evaluate", args.videos / "val.csv", "--checkpoint", run, "--out", run / "test", *lists)
    scores = json.loads((run / "test/evaluation.json").read_text())
    exported = args.out / f"{run.name}-hf"
    shutil.rmtree(exported, ignore_errors=True)
    command("convert", run, exported, "--to", "hf")
    video, found = sorted((args.videos / "val").glob("*.mp4"))[0], []
    for weights in (run, exported):
        best = json.loads(command("classify", video, "--checkpoint", weights, "--json"))["predictions"][0]
        found.append(f"{best['label']} {best['score']:.4f}")
    same = f"{again[last]:.4f} = {first[last]:.4f}" if again == first else f"{again} is not {first}"
    return [
        f"{last}, {resumed[0] if resumed else 'not resumed'}",
        same,
        f"{scores['top1']['share']:.1%}",
        *found,
    ]


def losses(run: Path) -> dict[int, float]:
    rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return {row["step"]: row["loss"] for row in rows if "loss" in row}
