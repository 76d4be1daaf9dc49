"""Runs on several hosts, each a process here: how they join and leave, what they refuse, what kills do."""

import random
import re
import signal
import socket
import time
from pathlib import Path

import pytest

from videomae_jax.checkpoints.orbax import list_steps
from videomae_jax.training.multihost.hosts import HEARTBEAT_TIMEOUT_SECONDS


class Group:
    """Starts, disturbs and compares runs of several hosts on this machine."""

    def __init__(self, runs, video_list: Path) -> None:
        self._runs, self._held_out = runs, str(video_list.with_name("held_out.txt"))
        self.log, self.rows = runs.log, runs.rows

    def start(self, workdir: Path, hosts: int, devices: int, *arguments: str) -> list:
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        # Compiling is most of the time, and half of it without optimizations.
        settings = {"JAX_NUM_CPU_DEVICES": str(devices), "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
        self._runs._environment |= settings
        arguments = ("--data.val", self._held_out, "--log.no-tensorboard", *arguments)
        join = ("--coordinator", f"localhost:{port}", "--num-hosts", str(hosts), "--host-index")
        return [
            self._runs.start(workdir, *arguments, *((*join, str(host)) if hosts > 1 else ()))
            for host in range(hosts)
        ]

    def wait_until(self, started: list, workdir: Path, reached) -> None:
        """Return as soon as something has happened in a run."""
        self._runs.wait_until(started[0], workdir, reached)

    def wait_for_row(self, started: list, workdir: Path, step: int) -> None:
        self.wait_until(started, workdir, lambda: any(row["step"] >= step for row in self.rows(workdir)))

    def end(self, started: list, workdir: Path, code: int) -> None:
        for process in started:
            self._runs.end(process, workdir, code)

    def kill(self, started: list, workdir: Path, host: int) -> float:
        """Kill one host, see the other end with a message, and return after how many seconds it did."""
        began = time.monotonic()
        started[host].send_signal(signal.SIGKILL)
        self._runs.end(started[host], workdir, -signal.SIGKILL)
        assert started[1 - host].wait(HEARTBEAT_TIMEOUT_SECONDS + 30) not in (0, -signal.SIGKILL)
        took = time.monotonic() - began
        said = rf"videomae-jax: .*host {host} (of 2 )?is gone.*Start all hosts again with the same command"
        wait_for_text(Path(f"{workdir}.log"), said)
        return took

    def results(self, workdir: Path) -> tuple[list, list, list]:
        """Steps, skipped videos, losses and validation losses."""
        rows = self.rows(workdir)
        losses = [row["loss"] for row in rows] + [row["val_loss"] for row in rows if "val_loss" in row]
        counts = [(row["step"], row["skipped"], row.get("val_skipped")) for row in rows]
        return counts, self.rows(workdir, "skipped.jsonl"), losses

    def compare(self, workdir: Path, undisturbed: Path) -> None:
        counts, skipped, losses = self.results(workdir)
        expected_counts, expected_skipped, expected_losses = self.results(undisturbed)
        assert counts == expected_counts
        assert skipped == expected_skipped
        assert losses == pytest.approx(expected_losses, rel=1e-5)


def wait_for_text(log: Path, pattern: str) -> None:
    """What a host that was ended has left to say is written by another process."""
    give_up = time.monotonic() + 10
    while not re.search(pattern, log.read_text()):
        assert time.monotonic() < give_up, log.read_text()
        time.sleep(0.01)


@pytest.fixture(scope="module")
def group(runs, video_list):
    return Group(runs, video_list)


def test_two_hosts_of_which_one_is_stopped_end_like_one(group, tmp_path):
    length = ("--epochs", "8", "--checkpoint.every-steps", "5", "--log.val-every-steps", "6")  # 16 steps.
    alone, together = tmp_path / "alone", tmp_path / "together"
    group.end(group.start(alone, 1, 1, *length), alone, 0)

    started = group.start(together, 2, 2, *length)
    group.wait_for_row(started, together, 8)
    started[1].terminate()
    group.end(started, together, 128 + signal.SIGTERM)
    stopped = list_steps(together)[-1]
    assert stopped == group.rows(together)[-1]["step"] < 16

    group.end(group.start(together, 2, 2, *length), together, 0)
    assert f"continuing from step {stopped}\n" in group.log(together)
    group.compare(together, alone)
    assert group.log(together).count("finished at step 16 of 16") == 1


@pytest.mark.parametrize("joined_by", ["flags", "slurm"])
def test_hosts_find_each_other_and_leave_with_one_message_each(runs, tmp_path, monkeypatch, joined_by):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    slurm = {"SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2"}
    slurm |= {"JAX_COORDINATOR_PORT": port}
    flags = ("--coordinator", f"localhost:{port}", "--num-hosts", "2", "--host-index")
    started = []
    for host in "01":
        own = slurm | {"SLURM_PROCID": host, "SLURM_LOCALID": host} if joined_by == "slurm" else {}
        monkeypatch.setattr(runs, "_environment", runs._environment | {"JAX_NUM_CPU_DEVICES": "1"} | own)
        arguments = (*flags, host) if joined_by == "flags" else ()
        started.append(runs.start(tmp_path / "run", "--mesh.fsdp", "3", *arguments))
    for process in started:
        runs.end(process, tmp_path / "run", 2)
    assert runs.log(tmp_path / "run").count("mesh.fsdp=3 does not divide the 2 devices") == 2
    assert "was ended" not in runs.log(tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("command", "on_host_1", "said"),
    [
        ("pretrain", ("--data.train", "good.txt"), r"videos to train on \(11 on host 0, 8 on host 1\)"),
        ("pretrain", ("--seed", "5"), r"seed \(0 on host 0, 5 on host 1\)"),
        ("finetune", ("--data.classes", "turned.txt"), r"classes \(4 on host 0, as many, but others"),
    ],
)
def test_hosts_with_other_videos_classes_or_settings_are_refused(
    runs, video_list, tmp_path, monkeypatch, command, on_host_1, said
):
    folder = video_list.parent
    (folder / "classes.txt").write_text("run\nwalk\njump\nbend\n")
    (folder / "turned.txt").write_text("walk\nrun\njump\nbend\n")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    monkeypatch.setattr(runs, "_environment", runs._environment | {"JAX_NUM_CPU_DEVICES": "1"})
    join = ("--coordinator", f"localhost:{port}", "--num-hosts", "2", "--host-index")
    classes = ("--data.classes", str(folder / "classes.txt")) if command == "finetune" else ()
    other = tuple(str(folder / each) if each.endswith(".txt") else each for each in on_host_1)
    started = [
        runs.start(tmp_path / "run", *own, *join, str(host), command=command)
        for host, own in enumerate((classes, (*classes, *other)))
    ]
    for process in started:
        runs.end(process, tmp_path / "run", 2)
    told = rf"videomae-jax: host 1 does not have the same as host 0: {said}.*?Give all hosts the same lists"
    assert len(re.findall(told, runs.log(tmp_path / "run"))) == 2, runs.log(tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def undisturbed(group, tmp_path_factory):
    """40 steps of batches of 8 on one host."""
    workdir = tmp_path_factory.mktemp("undisturbed") / "run"
    group.end(group.start(workdir, 1, 1, *LONG), workdir, 0)
    return workdir


LONG = ("--epochs", "40", "--batch-size", "8", "--checkpoint.every-steps", "5", "--log.val-every-steps", "16")


def saving(workdir: Path) -> bool:
    return any((workdir / "checkpoints").glob("*.orbax-checkpoint-tmp"))


@pytest.mark.chaos
@pytest.mark.parametrize("repeat", range(2))
def test_five_kills_at_random_moments_and_a_stop_change_nothing(group, undisturbed, tmp_path, repeat):
    workdir, chance, took = tmp_path / "disturbed", random.Random(repeat), []
    during_a_save = chance.randrange(5)
    for number in range(5):
        row = len(group.rows(workdir)) + chance.randint(1, 6)
        started = group.start(workdir, 2, 4, *LONG)
        if number == during_a_save:
            group.wait_until(started, workdir, lambda: not saving(workdir))
            group.wait_until(started, workdir, lambda: saving(workdir))
        else:
            group.wait_for_row(started, workdir, row)
        took.append((host := chance.randrange(2), round(group.kill(started, workdir, host), 2)))
    print(f"killed host and seconds until the other ended: {took}")
    started = group.start(workdir, 2, 4, *LONG)
    group.wait_for_row(started, workdir, len(group.rows(workdir)) + 2)
    began = time.monotonic()
    started[chance.randrange(2)].terminate()
    group.end(started, workdir, 128 + signal.SIGTERM)
    print(f"seconds from SIGTERM to one host until both had saved and left: {time.monotonic() - began:.2f}")
    group.end(group.start(workdir, 2, 4, *LONG), workdir, 0)
    group.compare(workdir, undisturbed)


@pytest.mark.chaos
@pytest.mark.parametrize(
    "shapes",
    [
        [(2, 4, 1), (1, 8, 1), (4, 2, 1)],
        [(1, 8, 1), (2, 4, 8), (1, 8, 8), (4, 2, 2)],
    ],
    ids=["2x4-1x8-4x2", "fsdp-1-8-8-2"],
)
def test_a_run_continues_on_other_hosts_and_meshes(group, undisturbed, tmp_path, shapes):
    """Each shape is hosts, devices of each, and devices over which the state is split."""
    workdir = tmp_path / "elastic"
    for number, (hosts, devices, fsdp) in enumerate(shapes):
        started = group.start(workdir, hosts, devices, *LONG, "--mesh.fsdp", str(fsdp))
        if number < len(shapes) - 1:
            group.wait_for_row(started, workdir, 40 * (number + 1) // len(shapes))
            started[-1].terminate()
        group.end(started, workdir, 0 if number == len(shapes) - 1 else 128 + signal.SIGTERM)
    group.compare(workdir, undisturbed)
