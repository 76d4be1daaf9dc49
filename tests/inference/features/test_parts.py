"""Features that are made in parts: by several hosts, and over any number of stops, the same bytes."""

import random
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from videomae_jax.errors import InputError
from videomae_jax.files import parts_folder
from videomae_jax.inference.features import parts as in_parts
from videomae_jax.inference.features.clip_encoder import ClipEncoder
from videomae_jax.inference.features.command import ExtractFeatures, extract_features
from videomae_jax.inference.features.files import read_features

SCRIPT = Path(__file__).with_name("in_small_parts.py")


@pytest.fixture
def settings(videos, pretrained, tmp_path, monkeypatch):
    """Eight videos in parts of two, and one that is missing."""
    lines = (videos / "val.csv").read_text().splitlines()
    (videos / "nine.csv").write_text("\n".join([*lines[:3], "missing.mp4 0", *lines[3:]]))
    monkeypatch.setattr(in_parts, "_MOST_VIDEOS", 2)
    out = tmp_path / "whole" / "out.npz"
    return ExtractFeatures((str(videos / "nine.csv"),), str(pretrained), out, num_workers=0)


@pytest.fixture
def whole(settings) -> bytes:
    assert extract_features(settings) == 1
    assert [each.name for each in settings.out.parent.iterdir()] == ["out.npz"]
    return settings.out.read_bytes()


def command(settings, out, *more, wait=0.0):
    arguments = ["features", *settings.videos, "--checkpoint", settings.checkpoint, "--num-workers", "0"]
    return [sys.executable, SCRIPT, str(wait), *arguments, "--out", str(out), *more]


def finished_parts(out: Path) -> int:
    return len(list(parts_folder(out).glob("[0-9]*.json")))


def wait_for_parts(process, out, count):
    until = time.monotonic() + 300
    while finished_parts(out) < count and process.poll() is None and time.monotonic() < until:
        time.sleep(0.05)


@pytest.mark.parametrize("batches", [1, 3])
def test_a_stopped_run_continues_to_the_same_bytes(settings, whole, tmp_path, monkeypatch, batches, capsys):
    args, encode = replace(settings, out=tmp_path / "out.npz", batch_size=2), ClipEncoder.encode_batches
    args_whole = replace(settings, out=tmp_path / "small.npz", batch_size=2)
    assert extract_features(args_whole) == 1

    def some(encoder, clips):
        for number, encoded in enumerate(encode(encoder, clips)):
            if number == batches:
                raise KeyboardInterrupt
            yield encoded

    with monkeypatch.context() as patched:
        patched.setattr(ClipEncoder, "encode_batches", some)
        with pytest.raises(KeyboardInterrupt):
            extract_features(args)
    assert not args.out.exists()
    assert finished_parts(args.out) == batches
    with pytest.raises(InputError, match=r"\.out\.npz\.parts was made otherwise \(what .*--overwrite"):
        extract_features(replace(args, layer=1))
    capsys.readouterr()
    assert extract_features(args) == 1
    assert capsys.readouterr().err.count("missing.mp4: missing") == 1
    assert args.out.read_bytes() == args_whole.out.read_bytes()
    np.testing.assert_allclose(
        read_features(args.out).features, read_features(settings.out).features, atol=1e-6
    )
    assert not parts_folder(args.out).exists()


def test_a_damaged_part_is_made_again(settings, whole, tmp_path, monkeypatch):
    args = replace(settings, out=tmp_path / "out.npz")
    with monkeypatch.context() as patched:
        patched.setattr(in_parts, "open_features", lambda path: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            extract_features(args)
    first = parts_folder(args.out) / "000001.npy"
    content = bytearray(first.read_bytes())
    content[-3] ^= 1
    first.write_bytes(content)
    assert extract_features(args) == 1
    assert args.out.read_bytes() == whole


@pytest.mark.chaos
def test_two_hosts_of_which_one_is_killed_and_one_that_goes_on_give_the_same_bytes(settings, whole, tmp_path):
    out = tmp_path / "out.npz"
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    join = ("--coordinator", f"localhost:{port}", "--num-hosts", "2", "--host-index")
    started = [
        subprocess.Popen(command(settings, out, *join, host, wait=wait), stderr=subprocess.PIPE, text=True)
        for host, wait in (("0", 0), ("1", 60))
    ]
    try:
        wait_for_parts(started[1], out, 4)
        started[1].kill()
        said = started[0].communicate(timeout=300)[1]
    finally:
        for process in started:
            process.kill()
    assert started[0].returncode not in (0, 2), said
    assert finished_parts(out) == 4, "all of host 0 and the first of host 1"
    assert not out.exists()
    assert subprocess.run(command(settings, out), capture_output=True, timeout=300).returncode == 1
    assert out.read_bytes() == whole


def test_two_hosts_make_one_file(settings, whole, tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    join = ("--coordinator", f"localhost:{port}", "--num-hosts", "2", "--host-index")
    out = tmp_path / "out.npz"
    started = [
        subprocess.Popen(command(settings, out, *join, host), stderr=subprocess.PIPE, text=True)
        for host in ("0", "1")
    ]
    try:
        said = [process.communicate(timeout=300)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [1, 1], said
    assert "".join(said).count("missing.mp4: missing") == 1
    assert out.read_bytes() == whole


@pytest.mark.chaos
def test_kills_at_random_moments_change_nothing(settings, whole, tmp_path):
    chance, out, kills = random.Random(0), tmp_path / "out.npz", 0
    while kills < 8:  # What is left to do may take longer than the time before each of them.
        process = subprocess.Popen(command(settings, out, wait=0.3), stderr=subprocess.DEVNULL)
        wait_for_parts(process, out, min(4, finished_parts(out) + chance.randrange(2)))
        time.sleep(chance.random())
        process.send_signal(signal.SIGKILL)
        if process.wait() != -signal.SIGKILL:
            break
        kills += 1
    else:
        assert subprocess.run(command(settings, out), stderr=subprocess.DEVNULL).returncode == 1
    print(f"{kills} kills")
    assert out.read_bytes() == whole
