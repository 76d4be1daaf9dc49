"""Small videos and a way to start, watch and stop runs from outside."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from videomae_jax.config import FinetuneConfig, PretrainConfig, load_config
from videomae_jax.data.video.writing import write_video

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def video_list(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list of eight videos of moving noise and three that cannot be read."""
    folder = tmp_path_factory.mktemp("videos")
    rng = np.random.default_rng(0)
    for number in range(8):
        still = rng.integers(0, 256, (1, 6, 8, 3), np.uint8).repeat(6, axis=1).repeat(6, axis=2)
        moving = np.concatenate([np.roll(still, 2 * t, axis=2) for t in range(20)])
        write_video(folder / f"{number}.mp4", moving, 10)
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("no video\n" * 99)
    names = [*(f"{number}.mp4" for number in range(8)), "empty.mp4", "text.mp4", "missing.mp4"]
    (folder / "list.txt").write_text("".join(f"{name} 0\n" for name in names))
    (folder / "good.txt").write_text("".join(f"{name} 0\n" for name in names[:8]))
    (folder / "labelled.txt").write_text("".join(f"{name} {n % 4}\n" for n, name in enumerate(names)))
    (folder / "held_out.txt").write_text("".join(f"{name} {n % 4}\n" for n, name in enumerate(names[3:9])))
    return folder / "list.txt"


@pytest.fixture(scope="session")
def tiny(video_list: Path) -> PretrainConfig:
    """The tiny recipe on the good videos, without TensorBoard."""
    config = load_config(str(ROOT / "configs/test/tiny.py"))
    return replace(
        config,
        data=replace(config.data, train=(str(video_list.with_name("good.txt")),)),
        log=replace(config.log, tensorboard=False),
    )


@pytest.fixture(scope="session")
def tiny_finetune(video_list: Path) -> FinetuneConfig:
    """The tiny recipe of a classifier on the good videos, which carry labels here, without TensorBoard."""
    config = load_config(str(ROOT / "configs/test/tiny_finetune.py"))
    assert isinstance(config, FinetuneConfig)
    held_out = str(video_list.with_name("held_out.txt"))
    data = replace(
        config.data,
        train=(str(video_list.with_name("labelled.txt")),),
        val=(held_out,),
        max_failed_share=0.9,
    )
    return replace(config, data=data, log=replace(config.log, tensorboard=False))


class Runs:
    """Starts `videomae-jax` training in processes of their own; none outlives the tests."""

    def __init__(self, video_list: Path) -> None:
        self._list = video_list
        self._environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
        self._started: list[subprocess.Popen[str]] = []

    def start(self, workdir: Path, *arguments: str, command: str = "pretrain") -> "subprocess.Popen[str]":
        """Pre-train, or fine-tune with validation videos, by the tiny recipe."""
        recipe, videos = "tiny", self._list
        if command == "finetune":
            recipe, videos = "tiny_finetune", self._list.with_name("labelled.txt")
            arguments = ("--data.val", str(self._list.with_name("held_out.txt")), *arguments)
        line = [sys.executable, "-m", "videomae_jax.cli", command, str(ROOT / f"configs/test/{recipe}.py")]
        line += ["--data.train", str(videos), "--workdir", str(workdir), "--data.max-failed-share", "0.9"]
        with Path(f"{workdir}.log").open("a") as log:
            process = subprocess.Popen(
                [*line, *arguments], env=self._environment, cwd=ROOT, stdout=log, stderr=log, text=True
            )
        self._started.append(process)
        return process

    def end(self, process: "subprocess.Popen[str]", workdir: Path, code: int) -> None:
        """Wait for the process and check its exit code."""
        assert process.wait(timeout=600) == code, self.log(workdir)

    def log(self, workdir: Path) -> str:
        """What all processes of a work folder have printed."""
        return Path(f"{workdir}.log").read_text()

    def rows(self, workdir: Path, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
        """Rows of a JSON-lines file that is perhaps being written."""
        if not (workdir / name).exists():
            return []
        lines = (workdir / name).read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def wait_until(
        self, process: "subprocess.Popen[str]", workdir: Path, reached: Callable[[], bool]
    ) -> None:
        """Return as soon as something has happened in a running process."""
        give_up = time.monotonic() + 600
        while not reached():
            assert process.poll() is None, self.log(workdir)
            assert time.monotonic() < give_up, self.log(workdir)
            time.sleep(0.0005)

    def close(self) -> None:
        for process in self._started:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.wait()


@pytest.fixture(scope="module")
def runs(video_list: Path) -> Iterator[Runs]:
    started = Runs(video_list)
    yield started
    started.close()
