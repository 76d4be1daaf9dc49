"""The wheel with every extra: whether pip installs it, what that takes, and whether the extra works.

    python benchmarks/installs.py run --out ROWS.jsonl --venvs FOLDER [--pythons P ...] [--extras E ...]
    python benchmarks/installs.py table ROWS.jsonl

`run` builds the wheel, and for every Python installs it into an empty environment. For every extra it copies
that environment, installs the wheel with the extra into the copy, asks for `videomae-jax --help`, and tries
what the extra is for (`TRIALS`). Nothing comes from pip's cache. Seconds are those of the clock and of the
processor. Rows that are there already are kept, so that a run that was stopped goes on; FOLDER can be
removed afterwards.
`--constraint torch==2.13.0` is passed on to pip.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
EXTRAS = ["", *tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]]
CHECKPOINT = """
import dataclasses, jax
from videomae_jax import VideoMAEForPreTraining, VideoMAEForVideoClassification, load_config
from videomae_jax import write_synthetic_videos
config = load_config("tiny").model
for kind, name in ((VideoMAEForPreTraining, "pretrained"), (VideoMAEForVideoClassification, "classifier")):
    model = kind(dataclasses.replace(config, num_labels=8 if name == "classifier" else 0))
    model.save_pretrained(name, model.init_params(jax.random.key(0)))
write_synthetic_videos("videos", 2, 1, 1, side=32, num_frames=40)
"""
SERVE = """
import subprocess, sys, urllib.request
words = ["serve", "--port", "7999", "--checkpoint", "classifier", "pretrained"]
words = [sys.executable, "-m", "videomae_jax.cli", *words]
page = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
assert "Serving at" in page.stdout.readline()
assert b"videomae-jax" in urllib.request.urlopen("http://127.0.0.1:7999", timeout=60).read()
page.terminate()  # Ctrl-C does not reach what a shell has started in the background.
page.wait(60)
"""
NOTEBOOK = """
import nbformat
from nbclient import NotebookClient
cell = nbformat.v4.new_code_cell("import ipywidgets, psutil, videomae_jax; print(videomae_jax.__version__)")
book = nbformat.v4.new_notebook(cells=[cell])
NotebookClient(book, kernel_name="python3").execute()
assert book.cells[0].outputs[0].text
"""
CLOUD = """
import gcsfs, s3fs, videomae_jax
from etils import epath
epath.Path("s3://bucket/set").exists  # An s3fs of its own; the store is asked for nothing.
"""
COMMAND = "{bin}/videomae-jax"
TRIALS: dict[str, list[list[str]]] = {
    "": [[COMMAND, "reconstruct", "videos/val", "--checkpoint", "pretrained", "--out", "pictures"]],
    "tpu": [[COMMAND, "plan", "tiny", "--topology", "v5e:2x2"]],
    "cuda12": [["{python}", "-c", "import jax_cuda12_plugin, jax; print(jax.devices())"]],
    "cuda13": [["{python}", "-c", "import jax_cuda13_plugin, jax; print(jax.devices())"]],
    "gpu-plan": [
        ["{python}", "-m", "pip", "install", "-q", "--no-cache-dir", "--no-deps", "nvidia-cudnn-cu13"],
        [COMMAND, "plan", "tiny", "--topology", "h100:1"],
    ],
    "cloud": [["{python}", "-c", CLOUD]],
    "beam": [[COMMAND, "prepare", "videos/val.csv", "--out", "set", "--beam", "runner=DirectRunner"]],
    "test": [["{bin}/pytest", "-p", "no:cacheprovider", "{root}/tests/test_flags.py"]],
    "convert": [
        [COMMAND, "convert", "pretrained", "weights.pth", "--to", "torch"],
        [COMMAND, "convert", "weights.pth", "again", "--to", "hf", "--num-heads", "3", "--verify"],
    ],
    "demo": [["{python}", "-c", SERVE]],
    "export": [
        [COMMAND, "export", "videos/val", "--checkpoint", "classifier", "--to", to]
        for to in ("onnx", "tflite")
    ],
    "docs": [["{bin}/sphinx-build", "-q", "-W", "-c", "{root}/docs", "{root}", "site"]],
    "notebooks": [["{python}", "-c", NOTEBOOK]],
}
TRIALS["parity"] = TRIALS["convert"]
"""What is tried of each extra, in a folder with a tiny pre-trained model, a classifier and videos."""
ENVIRONMENT = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {
    "JAX_PLATFORMS": "cpu"
}


def call(words: list[str], cwd: Path) -> tuple[float, float]:
    """Seconds of the clock and of the processor that a command takes; raises RuntimeError where it fails."""
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    ended = subprocess.run(
        words, cwd=cwd, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if ended.returncode:
        raise RuntimeError(f"{' '.join(words[:4])}: exit code {ended.returncode}: {ended.stdout[-1500:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - began, used


def built_wheel(folder: Path) -> Path:
    """The wheel of this checkout, built anew."""
    shutil.rmtree(folder, ignore_errors=True)
    call([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), "."], ROOT)
    return next(folder.glob("*.whl"))


def megabytes(folder: Path) -> int:
    return int(subprocess.check_output(["du", "-sm", str(folder)], text=True).split()[0])


class Place:
    """A folder with the environment that commands run in, a copy of it without extras, and what is tried."""

    def __init__(self, folder: Path, wheel: Path, constraints: list[str]) -> None:
        self.folder, self.wheel, self.venv = folder, wheel, folder / "venv"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "constraints.txt").write_text("".join(f"{each}\n" for each in constraints))

    def run(self, words: list[str], cwd: Path) -> tuple[float, float]:
        own = {"{bin}": f"{self.venv}/bin", "{python}": f"{self.venv}/bin/python", "{root}": str(ROOT)}
        for mark, path in own.items():
            words = [word.replace(mark, path) for word in words]
        return call(words, cwd)

    def install(self, extra: str) -> tuple[float, float]:
        what = f"videomae-jax[{extra}]" if extra else "videomae-jax"
        pip = ["{python}", "-m", "pip", "install", "-q", "--no-cache-dir", "-c", "constraints.txt"]
        return self.run([*pip, f"{what} @ file://{self.wheel}"], self.folder)

    def without_extras(self, python: str) -> Path:
        """The copy of a Python's environment, made if it is not there."""
        copy = self.folder / Path(python).resolve().name / "venv"
        if not copy.exists():
            shutil.rmtree(self.venv, ignore_errors=True)
            call([python, "-m", "venv", str(self.venv)], self.folder)
            seconds = self.install("")
            copy.parent.mkdir(exist_ok=True)
            (copy.parent / "seconds.json").write_text(json.dumps(seconds))
            call(["cp", "-al", str(self.venv), str(copy)], self.folder)
        return copy

    def given(self) -> Path:
        """Tiny models and videos, written by the environment in use."""
        given = self.folder / "given"
        if not given.exists():
            given.mkdir()
            self.run(["{python}", "-c", CHECKPOINT], given)
        return given


def measured(python: str, extra: str, place: Place) -> dict:
    """A row: seconds and megabytes of an extra on top of what is there without, and whether it works."""
    row: dict = {"extra": extra, "python": python, "load": os.getloadavg()[0]}
    trial = place.folder / "trial"
    try:
        copy = place.without_extras(python)
        row["version"] = subprocess.check_output([python, "-V"], text=True).split()[1]
        shutil.rmtree(place.venv, ignore_errors=True)
        call(["cp", "-al", str(copy), str(place.venv)], place.folder)
        if extra:
            row["seconds"], row["processor_seconds"] = place.install(extra)
        else:
            row["seconds"], row["processor_seconds"] = json.loads((copy.parent / "seconds.json").read_text())
        row["megabytes"] = megabytes(place.venv) - (megabytes(copy) if extra else 0)
        row["help_seconds"] = place.run([COMMAND, "--help"], place.folder)[0]
        shutil.rmtree(trial, ignore_errors=True)
        shutil.copytree(place.given(), trial)
        row["trial_seconds"] = sum(place.run(words, trial)[0] for words in TRIALS[extra])
        row["works"] = True
    except RuntimeError as error:
        row |= {"works": False, "error": str(error)}
    return row


def run(args: argparse.Namespace) -> None:
    rows = [json.loads(line) for line in args.out.read_text().splitlines()] if args.out.exists() else []
    done = {(row["python"], row["extra"]) for row in rows if row["works"]}
    place = Place(args.venvs, built_wheel(args.venvs / "wheel"), args.constraint)
    for python in args.pythons:
        for extra in args.extras:
            if (python, extra) not in done:
                row = measured(python, extra, place)
                print(json.dumps(row), flush=True)
                with args.out.open("a") as file:
                    file.write(json.dumps(row) + "\n")


def table(args: argparse.Namespace) -> None:
    """The rows as Markdown, the latest of each Python and extra."""
    rows = {(row["extra"], row["version"][:4]): row for row in map(json.loads, args.rows.open())}
    versions = sorted({version for _, version in rows})
    print("| extra |", " | ".join(f"{version}: s, MB" for version in versions), "| works on |")
    print("|---" * (len(versions) + 2) + "|")
    for extra in dict.fromkeys(extra for extra, _ in rows):
        found = {version: rows.get((extra, version)) for version in versions}
        cells = [
            f"{row['processor_seconds']:.0f}, {row['megabytes']:,}" if row and row["works"] else "—"
            for row in found.values()
        ]
        works = ", ".join(version for version, row in found.items() if row and row["works"])
        print(f"| {extra or 'none'} |", " | ".join(cells), f"| {works} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    modes = parser.add_subparsers(required=True)
    mode = modes.add_parser("run")
    mode.add_argument("--out", type=Path, required=True)
    mode.add_argument("--venvs", type=lambda text: Path(text).absolute(), required=True)
    mode.add_argument("--pythons", nargs="+", default=["python3.11", "python3.12", "python3.13"])
    mode.add_argument("--extras", nargs="+", default=EXTRAS, choices=EXTRAS)
    mode.add_argument("--constraint", action="append", default=[])
    mode.set_defaults(call=run)
    mode = modes.add_parser("table")
    mode.add_argument("rows", type=Path)
    mode.set_defaults(call=table)
    args = parser.parse_args()
    args.call(args)


if __name__ == "__main__":
    main()
