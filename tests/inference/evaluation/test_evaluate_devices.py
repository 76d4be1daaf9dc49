"""One device, eight, and two processes of four give the same scores, of videos that do not divide evenly."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from random_classifier import write_run

from videomae_jax.data.synthetic import write_synthetic_videos
from videomae_jax.inference.evaluation.command import Evaluate, evaluate_checkpoint

SCRIPT = Path(__file__).with_name("evaluate_run.py")


@pytest.fixture(scope="module")
def seven(tmp_path_factory) -> tuple[str, str]:
    """A list of seven videos, the fourth of which cannot be read, and a checkpoint."""
    folder = tmp_path_factory.mktemp("seven")
    write_synthetic_videos(folder, train_per_class=0, val_per_class=1, side=48)
    lines = (folder / "val.csv").read_text().splitlines()[:7]
    (folder / lines[3].split()[0]).write_text("no video")
    (folder / "seven.csv").write_text("\n".join(lines))
    return str(folder / "seven.csv"), str(write_run(folder / "run"))


@pytest.fixture(scope="module")
def others(seven, tmp_path_factory) -> list[dict]:
    """What the eight devices of one process found, then each of two processes with four."""
    out = tmp_path_factory.mktemp("out")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    shapes = [(8, 1, 0), (4, 2, 0), (4, 2, 1)]
    started = [
        subprocess.Popen(
            [sys.executable, SCRIPT, *map(str, (*shape, port)), *seven, str(out / str(number))],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number, shape in enumerate(shapes)
    ]
    try:
        ended = [process.communicate(timeout=600) for process in started]
    finally:
        for process in started:
            process.kill()
    assert all(process.returncode == 0 for process in started), "\n".join(errors for _, errors in ended)
    assert [(out / str(number) / "evaluation.json").exists() for number in range(3)] == [True, True, False]
    return [json.loads(said.splitlines()[-1]) for said, _ in ended]


def test_processes_with_other_lists_are_refused(seven, tmp_path):
    other = tmp_path / "six.csv"
    lines = Path(seven[0]).read_text().splitlines()
    other.write_text("".join(f"{Path(seven[0]).parent / line}\n" for line in lines[:6]))
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "videomae_jax.cli", "evaluate", "--checkpoint", seven[1]]
    command += ["--out", str(tmp_path / "out"), "--coordinator", f"localhost:{port}", "--num-hosts", "2"]
    started = [
        subprocess.Popen([*command, videos, "--host-index", host], stderr=subprocess.PIPE, text=True)
        for host, videos in (("0", seven[0]), ("1", str(other)))
    ]
    try:
        ended = [process.communicate(timeout=600)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [2, 2], ended
    said = (
        "host 1 does not have the same as host 0: videos (7 on host 0, 6 on host 1), the first that differs "
    )
    assert all(said in each for each in ended), ended
    assert not (tmp_path / "out").exists()


def test_every_number_of_devices_and_processes_gives_the_same(seven, others, tmp_path):
    one = evaluate_checkpoint(
        Evaluate((seven[0],), seven[1], num_segments=2, batch_size=16, num_workers=0, out=tmp_path)
    )
    assert one.top1.read == 6
    for other in others:
        assert other["devices"] == 8
        assert other["failures"] == {"3": "not-a-video"}
        assert other["top1"] == one.top1.correct
        np.testing.assert_allclose(other["scores"], one.scores, atol=1e-6)
    assert others[1]["scores"] == others[2]["scores"]
