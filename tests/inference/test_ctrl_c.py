"""Ctrl-C ends a command that reads videos with one line, exit code 130, and no process left behind."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from random_classifier import write_run

# Workers that never start, so that every command waits for them when the signal comes.
COMMAND = """
import sys
from videomae_jax import cli
from videomae_jax.data.loading import process
process._START = "import os; os.read(0, 1)"
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run"))


def read(path):
    """What a file of /proc says; nothing where the process or thread is gone."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def workers_of(pid):
    """The processes, by their number, that a process has started and that wait."""
    children = b" ".join(read(task / "children") for task in Path(f"/proc/{pid}/task").iterdir()).split()
    return [int(child) for child in children if b"os.read(0, 1)" in read(Path(f"/proc/{int(child)}/cmdline"))]


def interrupt(arguments, folder, workers):
    """Run a command, interrupt it once so many workers wait: its exit code, what it said, the workers."""
    command = subprocess.Popen(
        [sys.executable, "-c", COMMAND, *map(str, arguments)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while len(found := workers_of(command.pid)) < workers:
        assert command.poll() is None, command.communicate()
        time.sleep(0.02)
    os.killpg(command.pid, signal.SIGINT)
    output, errors = command.communicate(timeout=300)
    return command.returncode, output + errors, found


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's /proc to see processes")
@pytest.mark.parametrize("name", ["check-data", "prepare", "features", "evaluate", "classify", "probe"])
def test_ctrl_c(videos, run, tmp_path, name):
    lists, checkpoint = [videos / "val.csv"], ["--checkpoint", run]
    rest, flag = {
        "check-data": ([], "--num-workers"),
        "prepare": (["--out", tmp_path / "out" / "set"], "--num-workers"),
        "features": ([*checkpoint, "--out", tmp_path / "out" / "a.npz"], "--num-workers"),
        "evaluate": ([*checkpoint, "--out", tmp_path / "out"], "--num-workers"),
        "classify": (checkpoint, "--num-workers"),
        "probe": ([*checkpoint, "--out", tmp_path / "out"], "--num-workers"),
    }[name]
    if name == "probe":
        (tmp_path / "train.csv").write_text((videos / "val.csv").read_text().replace("val/", "train/"))
        shutil.copytree(videos / "val", tmp_path / "train")
        lists = ["--train", tmp_path / "train.csv", "--val", videos / "val.csv"]
    code, said, workers = interrupt([name, *lists, *rest, flag, 2], tmp_path, 2)
    assert code == 130, said
    assert "Traceback" not in said
    assert ("stopped; the same command continues" if name == "prepare" else "stopped by Ctrl-C") in said
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        time.sleep(0.02)  # One whose start was interrupted ends by itself, when its owner has.
    continues = {".prepare", ".a.npz.parts"}  # What the same command goes on with.
    left = [
        path for path in (tmp_path / "out").rglob("*") if path.is_file() and not continues & set(path.parts)
    ]
    assert not [path for path in left if ".lock" not in path.name]
