"""What every writer relies on: whole files or none, one writer at a time, nothing left beside them."""

import ast
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from videomae_jax import files
from videomae_jax.errors import InputError
from videomae_jax.files import beside, locked_file, locked_folder, replacing, write_text


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_seen_whole_or_as_it_was(tmp_path):
    target = tmp_path / "new" / "a.json"
    write_text(target, "old")
    with replacing(target) as partial:
        partial.write_text("new")
        assert (partial.suffix, target.read_text()) == (".json", "old")
    assert target.read_text() == "new"

    def fail():
        with replacing(target) as partial:
            partial.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert target.read_text() == "new"
    assert names(target.parent) == ["a.json"]


def test_two_writers_share_no_name(tmp_path):
    with beside(tmp_path / "a") as one, beside(tmp_path / "a") as other:
        assert one != other


def test_a_long_name_has_room_beside_it(tmp_path):
    for target in (tmp_path / ("ä" * 120 + ".npz"), tmp_path / ("a" * 250 + ".npz")):
        with locked_file(target, "--out"):
            write_text(target, "")
    assert len(names(tmp_path)) == 2


@pytest.mark.parametrize("lock", [locked_file, locked_folder])
def test_a_second_writer_is_refused_in_a_sentence(tmp_path, lock):
    said = f"another process is writing to {tmp_path}/out; wait for it, stop it, or choose another --out"
    with (
        lock(tmp_path / "out", "--out"),
        pytest.raises(InputError) as caught,
        lock(tmp_path / "out", "--out"),
    ):
        pass
    assert str(caught.value) == said
    with lock(tmp_path / "out", "--out"):
        pass
    assert names(tmp_path) == (["out"] if lock is locked_folder else [])


def test_a_second_writer_can_wait_for_the_first(tmp_path):
    target, began = tmp_path / "a", threading.Event()

    def write(first):
        with locked_file(target, "--out", wait=True):
            began.set()
            if first:
                time.sleep(0.3)
            elif target.exists():
                return "there"
            write_text(target, "")
        return "written"

    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(write, True)
        began.wait()
        other = pool.submit(write, False)
    assert (one.result(), other.result()) == ("written", "there")


KILLED = """
import os, signal, sys
from pathlib import Path
from videomae_jax.files import beside, locked_file
target = Path(sys.argv[1])
with locked_file(target, "--out"), beside(target) as partial:
    partial.mkdir()
    (partial / "rows").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_next_writer_removes_what_a_killed_one_left(tmp_path):
    target = tmp_path / "a.npz"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(target)], check=False)
    assert killed.returncode == -signal.SIGKILL
    with beside(tmp_path / "another a.npz") as other:
        other.touch()
        assert len(names(tmp_path)) == 3  # What was half-written, its lock, and what another is writing.
        with locked_file(target, "--out"):
            write_text(target, "whole")
        assert names(tmp_path) == sorted([other.name, "a.npz"])


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(InputError, match="is a file; name a folder"),
        locked_folder(tmp_path / "file", "--out"),
    ):
        pass
    with pytest.raises(InputError, match="cannot be made"), locked_folder(tmp_path / "file" / "a", "--out"):
        pass


def test_no_writer_takes_an_address_for_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for lock in (locked_file, locked_folder):
        with (
            pytest.raises(InputError, match=r"^--out gs://bucket/a is an address"),
            lock(Path("gs://bucket/a"), "--out"),
        ):
            pass
    with pytest.raises(InputError, match=r"s3://bucket/a is an address"):
        write_text(Path("s3://bucket/a"), "")
    assert not names(tmp_path)
    write_text(tmp_path / "10:30" / "a:b", "")  # Names with a colon are no addresses.


WRITES = {"write_text", "write_bytes", "savefig", "save_file", "imsave"}
ALLOWED = {
    "files.py",
    "plan/compile.py",  # Into a temporary folder of its own.
    "plan/compiler.py",  # Into the same one.
    "checkpoints/hugging_face.py",  # Into a folder that is then moved.
    "inference/features/files.py",  # As well.
    "training/reporting/curve.py",  # To what `replacing` gives.
    "inference/evaluation/confusion.py",
    "inference/export/stablehlo.py",
    "inference/export/onnx.py",
    "inference/export/tflite.py",
    "inference/report/charts.py",  # Into memory.
}


def test_no_writer_goes_past_this_module():
    package = Path(files.__file__).parent
    found = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in WRITES
            ):
                found.add(str(path.relative_to(package)))
    assert found <= ALLOWED
