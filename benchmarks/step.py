"""Our training and inference step beside Hugging Face's VideoMAE in PyTorch, with the same weights and loss.

    python benchmarks/step.py cpu --out FOLDER [--cores 1|all] [--cases CASE ...] [--against eager compiled]
    python benchmarks/step.py gpu --out FOLDER [--minutes 9] [--cases CASE ...] [--dry-run]
    python benchmarks/step.py depth                       seconds to compile a ViT-L train step, by depth
    python benchmarks/step.py table --out FOLDER          the tables of what is in the folder

A case is TASK-SIZE-DTYPE-BATCH, such as pretrain-base-float32-2; tasks are pretrain and finetune (loss,
gradient and AdamW) and classify (logits). Ours starts from uint8 clips on the device, theirs from normalised
ones. Each implementation has a process of its own. On a CPU all are alive and take a step in turn; --cores 1
pins them to one core and counts processor seconds. On a GPU one runs at a time, the most telling first, while
minutes are left, and what is done so far is always on disk; --dry-run takes the same way with tiny models on
one core. Before anything is timed, the first loss (or the mean square of the logits) must agree.

On a GPU ours computes attention as "auto" does, in plain XLA ("ours-xla") and by tokamax where that is
installed; theirs as PyTorch chooses and, from Ampere on, by cuDNN ("-cudnn"). GPUs without bfloat16, such as
a T4, have cases of their own, in float16 with a scaled loss on both sides.

Writes step-cpu.json or step-gpu.json; cases already there are replaced, the others stay.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median
from typing import Any

from step_case import Case
from step_table import tables

from videomae_jax.hardware import peak_flops

CPU_CASES = (
    "pretrain-small-float32-2", "pretrain-base-float32-2", "classify-base-float32-1",
    "finetune-small-float32-1", "finetune-base-float32-1", "pretrain-large-float32-1",
    "classify-base-bfloat16-1", "pretrain-small-bfloat16-2",
)  # fmt: skip
GPU_CASES = {
    "pretrain-base-bfloat16-64": "compiled",
    "pretrain-large-bfloat16-32": "blocks",
    "finetune-large-bfloat16-16": "blocks",
    "pretrain-small-bfloat16-128": "compiled",
    "finetune-base-bfloat16-32": "compiled",
    "pretrain-huge-bfloat16-32": "blocks",
}
"""The most telling first, and how theirs is compiled: whole models of 24 layers and more take minutes."""
OLD_GPU_CASES = {
    "pretrain-base-float16-16": "compiled",
    "finetune-base-float16-8": "compiled",
    "pretrain-small-float16-32": "compiled",
    "pretrain-large-float16-8": "blocks",
}
"""On GPUs before Ampere, whose memory is small too."""
DRY_CASES = {"pretrain-tiny-bfloat16-2": "compiled", "finetune-tiny-float16-2": "blocks"}
TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2, "float16": 5e-3}
CPU_ROUNDS, CHUNKS, CHUNK_STEPS = 5, 5, 4


class Worker:
    """A process with one implementation; dies with its `seconds`."""

    def __init__(self, implementation: str, case: Case, folder: Path, seconds: float, *core: str) -> None:
        script = str(Path(__file__).with_name("step_worker.py"))
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, script, implementation, case.name, str(folder), *core],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self._timer = threading.Timer(seconds, self._process.kill)
        self._timer.start()

    def answer(self) -> dict[str, Any]:
        """The next line of JSON; raises RuntimeError with the process's last words when there is none."""
        line = self._process.stdout.readline() if self._process.stdout else ""
        if line:
            return json.loads(line)
        status = self._process.wait()
        self._timer.cancel()
        self._log.seek(0)
        raise RuntimeError(f"ended with {status}: {self._log.read()[-2000:]}")

    def steps(self, count: int) -> dict[str, Any]:
        assert self._process.stdin
        print(count, file=self._process.stdin, flush=True)
        return self.answer()

    def finish(self) -> dict[str, Any]:
        assert self._process.stdin
        self._process.stdin.close()
        last = self.answer()
        self._process.wait()
        self._timer.cancel()
        return last

    def kill(self) -> None:
        self._timer.cancel()
        self._process.kill()
        self._process.wait()


def last_core() -> tuple[str, ...]:
    return (str(max(os.sched_getaffinity(0))),)


def disagreement(case: Case, numbers: dict[str, float]) -> str | None:
    """What is wrong where the first numbers of two sides differ by more than rounding."""
    ours = numbers.get("ours", next(iter(numbers.values())))
    for name, theirs in numbers.items():
        if abs(ours - theirs) > TOLERANCE[case.dtype] * abs(theirs):
            return f"{case.name}: ours gives {ours}, {name} {theirs}: they do not compute the same"
    return None


def run_cpu(case: Case, names: list[str], cores: str, rounds: int, folder: Path) -> dict[str, Any]:
    """All implementations alive, a step of each in turn."""
    core = last_core() if cores == "1" else ()
    workers: dict[str, Worker] = {}
    try:
        found: dict[str, dict[str, Any]] = {}
        for name in names:  # One after the other: the first writes the weights that the others read.
            workers[name] = Worker(name, case, folder / case.task / case.size, 3600, *core)
            found[name] = workers[name].answer() | {"steps": []}
        if complaint := disagreement(case, {name: each["number"] for name, each in found.items()}):
            raise SystemExit(complaint)
        loads = [os.getloadavg()[0]]
        for _ in range(rounds):
            for name, worker in workers.items():
                found[name]["steps"].append(worker.steps(1))
            loads.append(os.getloadavg()[0])
        for name, worker in workers.items():
            found[name] |= worker.finish()
    finally:
        for worker in workers.values():
            worker.kill()
    kind = "cpu" if cores == "1" else "seconds"
    for each in found.values():
        each["step_s"] = median(step[kind] for step in each["steps"])
    return {"cores": cores, "load": [min(loads), max(loads)], "found": found}


def turns(cases: dict[str, str], with_cudnn: bool) -> list[tuple[str, str]]:
    """Cases and sides in the order of a run: those that are compared first of all, the others, and the first
    again in the opposite order, so that a device that warms up favours no side."""
    first = [
        (name, side)
        for name, compiled in cases.items()
        for side in ("ours", *([f"{compiled}-cudnn"] if with_cudnn else []), compiled)
    ]
    others = [
        (name, side) for name in cases for side in ("ours-xla", *(["ours-tokamax"] if with_cudnn else []))
    ]
    return first + others + first[::-1]


def run_gpu(
    order: list[tuple[str, str]], minutes: float, folder: Path, core: tuple[str, ...], save: Any
) -> None:
    """Each implementation alone on the device; one for which too little time is left is named as left out."""
    end = time.monotonic() + 60 * minutes
    results: dict[str, dict[str, Any]] = {name: {"found": {}, "left_out": []} for name, _ in order}
    took: dict[tuple[str, str], float] = {}
    for name, side in order:
        left, result = end - time.monotonic(), results[name]
        if any(said.startswith(f"{side}:") for said in result["left_out"]):
            continue  # It has failed before.
        if left < 1.2 * took.get((name, side), 20):
            again = " a second time" if (name, side) in took else ""
            result["left_out"].append(f"{side}{again}: no time was left")
        else:
            begin = time.monotonic()
            _gpu_turn(Case.parse(name), side, folder, left, core, result)
            took[name, side] = time.monotonic() - begin
        save(name, result)


def _gpu_turn(
    case: Case, side: str, folder: Path, seconds: float, core: tuple[str, ...], result: dict[str, Any]
) -> None:
    """One life of one implementation; what went wrong is written down, and the next has its turn."""
    worker = Worker(side, case, folder / case.task / case.size, seconds, *core)
    try:
        ready = worker.answer()
        steps = [worker.steps(CHUNK_STEPS) for _ in range(CHUNKS)]
        ready |= worker.finish()
    except RuntimeError as error:
        result["left_out"].append(f"{side}: {error}")
        return
    finally:
        worker.kill()
    each = result["found"].setdefault(side, ready | {"steps": []})
    each["steps"] += steps
    each["step_s"] = median(step["seconds"] for step in each["steps"])
    each["clips_s"] = case.batch / each["step_s"]
    peak = peak_flops(each["device"])
    each["mfu"] = each["clips_s"] * case.flops_per_clip / peak if peak else None
    numbers = {name: found["number"] for name, found in result["found"].items()}
    if complaint := disagreement(case, numbers):
        result["left_out"].append(complaint)


def depth() -> None:
    """Seconds of processor time to trace and compile a ViT-L train step with fewer and more layers."""
    from step_ours import compile_seconds

    for layers in (6, 12, 24, 48):
        print(f"{layers:3} encoder layers  {compile_seconds(layers):6.1f} s", flush=True)


def multiplies_bfloat16() -> bool:
    """Whether the GPU here does: from compute capability 8.0 on, where cuDNN has its attention too."""
    command = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(found.stdout.split()[0]) >= 8


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.machine())
    return f"{model}, {os.cpu_count()} cores"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=("cpu", "gpu", "depth", "table"))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--cores", choices=("1", "all"), default="1")
    parser.add_argument("--cases", nargs="+")
    parser.add_argument("--against", nargs="+", default=["eager"], choices=("eager", "compiled", "blocks"))
    parser.add_argument("--rounds", type=int, default=CPU_ROUNDS)
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--dry-run", action="store_true")
    args = parser.parse_args()
    if args.out is None and args.what != "depth":
        parser.error(f"{args.what} needs --out FOLDER")
    return args


def measure(args: argparse.Namespace, weights: Path) -> None:
    """Run the cases and write each result as it comes."""
    args.out.mkdir(parents=True, exist_ok=True)
    file = args.out / f"step-{args.what}.json"
    record = json.loads(file.read_text()) if file.exists() else {"machine": machine(), "cases": {}}

    def save(key: str, result: dict[str, Any]) -> None:
        record["cases"][key] = result
        file.write_text(json.dumps(record, indent=1) + "\n")

    if args.what == "cpu":
        for name in args.cases or CPU_CASES:
            result = run_cpu(Case.parse(name), ["ours", *args.against], args.cores, args.rounds, weights)
            save(f"{name} cores {args.cores}", result)
        return
    os.environ.setdefault("XLA_CLIENT_MEM_FRACTION", "0.92")
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", f"{weights}/compiled")
    new = args.dry_run or multiplies_bfloat16()
    known = DRY_CASES if args.dry_run else GPU_CASES if new else OLD_GPU_CASES
    cases = {name: known.get(name, "compiled") for name in args.cases or known}
    run_gpu(turns(cases, new), args.minutes, weights, last_core() if args.dry_run else (), save)


def main() -> None:
    args = parse()
    if args.what == "depth":
        depth()
        return
    if args.what != "table":
        with tempfile.TemporaryDirectory() as weights:
            measure(args, Path(weights))
    print(tables(args.out))


if __name__ == "__main__":
    main()
