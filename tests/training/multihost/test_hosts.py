"""Hosts that work as one: what they agree on, what each reads, and what a kill or a signal to one does."""

import random
import re
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import pytest
from jax._src import distributed
from jax._src.clusters import ClusterEnv, cloud_tpu_cluster

from videomae_jax.checkpoints.orbax import list_steps
from videomae_jax.data.loading.batches import batches
from videomae_jax.data.loading.filling import ClipBatch
from videomae_jax.data.loading.order import Failure, steps_per_epoch
from videomae_jax.data.records import VideoRecord
from videomae_jax.errors import InputError, RunError
from videomae_jax.training.multihost.facts import classes_fact, setting_fact, videos_fact
from videomae_jax.training.multihost.hosts import HEARTBEAT_TIMEOUT_SECONDS, HostLost, Hosts, connected, say
from videomae_jax.training.multihost.lockstep import Lockstep
from videomae_jax.training.multihost.signals import StopRequest


class Store:
    """The key-value store of JAX's coordination service, for hosts that are threads."""

    def __init__(self) -> None:
        self._values: dict[str, str] = {}
        self._changed = threading.Condition()

    def key_value_set(self, key: str, value: str) -> None:
        with self._changed:
            assert key not in self._values
            self._values[key] = value
            self._changed.notify_all()

    def blocking_key_value_get(self, key: str, milliseconds: int) -> str:
        with self._changed:
            if not self._changed.wait_for(lambda: key in self._values, milliseconds / 1000):
                raise jax.errors.JaxRuntimeError("DEADLINE_EXCEEDED")
            return self._values[key]

    def key_value_delete(self, key: str) -> None:
        with self._changed:
            del self._values[key]

    def __len__(self) -> int:
        return len(self._values)


def on_hosts(count: int, work) -> tuple[list, Store]:
    """What `work(hosts)` returns, or raises, on each of `count` hosts at the same time."""
    store = Store()

    def one(index: int):
        hosts = Hosts()
        hosts.index, hosts.count, hosts._client, hosts._place = index, count, store, "run"
        try:
            return work(hosts)
        except (InputError, RunError) as error:
            return error

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(one, range(count))), store


def test_all_hear_of_all_turn_after_turn_and_nothing_is_left_behind():
    def work(hosts: Hosts) -> list:
        return [hosts.share([turn, hosts.index]) for turn in range(5)]

    found, store = on_hosts(3, work)
    assert found == [[[[turn, 0], [turn, 1], [turn, 2]] for turn in range(5)]] * 3
    assert len(store) == 1


def test_what_fails_on_one_host_fails_on_all():
    def work(hosts: Hosts) -> str:
        def read() -> str:
            if hosts.index == 1:
                raise InputError("list.txt does not exist")
            return "read"

        return hosts.agree(read)

    found, _ = on_hosts(2, work)
    assert [type(each) for each in found] == [InputError, InputError]
    assert str(found[0]) == "host 1 of 2: list.txt does not exist"
    assert str(found[1]) == "list.txt does not exist"


def test_what_differs_between_hosts_is_named_on_all():
    def work(hosts: Hosts) -> None:
        names = ("walk", "run") if hosts.index == 3 else ("run", "walk")
        videos = tuple(VideoRecord(f"/{hosts.index}/{n}.mp4", f"{n}.mp4", n) for n in range(8))
        hosts.compare({"videos": videos_fact(videos), "seed": setting_fact(0)})
        videos = videos if hosts.index < 2 else videos[:5] + videos[6:]
        hosts.compare({"videos": videos_fact(videos), "classes": classes_fact(names)})

    found, _ = on_hosts(4, work)
    assert [str(each) for each in found] == [
        "hosts 2 and 3 do not have the same as host 0: videos (8 on host 0, 7 on host 2), the first that "
        "differs being number 6: '5.mp4' with the label 5 on host 0, '6.mp4' with the label 6 on host 2; "
        "classes (2 on host 0, as many, but others or in another order on host 3), the first that differs "
        "being number 1: 'run' on host 0, 'walk' on host 3. Give all hosts the same lists or folders, "
        "classes, weights and settings"
    ] * 4
    assert {type(each) for each in found} == {InputError}


def batch(step: int, host: int) -> ClipBatch:
    """A batch of one clip, in whose place one video could not be read before."""
    failed = Failure(f"{step}.{host}.mp4", "empty", "empty")
    ids = np.array([2 * step + host])
    return ClipBatch(step, {"video": np.zeros((1, 2))}, np.ones(1, np.float32), ids, [failed], 2)


def test_a_batch_is_the_same_to_all_hosts():
    def work(hosts: Hosts) -> list:
        turns = Lockstep(hosts, StopRequest())
        taken = list(turns.take(batch(step, hosts.index) for step in range(3)))
        assert [turn.batch.record_ids.item() for turn in taken] == [2 * n + hosts.index for n in range(3)]
        turns.conclude(None)
        assert not turns.stopped
        return [(turn.record_ids, [each.path for each in turn.failures]) for turn in taken]

    found, _ = on_hosts(2, work)
    assert found[0] == found[1] == [((2 * n, 2 * n + 1), [f"{n}.0.mp4", f"{n}.1.mp4"]) for n in range(3)]


@pytest.mark.parametrize("where", [0, 1])
def test_a_failure_on_one_host_stops_all_before_the_same_step(where):
    def work(hosts: Hosts) -> tuple[int, str]:
        def read():
            yield batch(0, hosts.index)
            if hosts.index == where:
                raise RunError("a data worker process died")
            yield batch(1, hosts.index)

        turns = Lockstep(hosts, StopRequest())
        taken = list(turns.take(read()))
        turns.conclude(None)
        return len(taken), str(turns.problem)

    found, _ = on_hosts(2, work)
    said = "a data worker process died"
    assert found[where] == (1, said)
    assert found[1 - where] == (1, f"host {where}: {said}")


def test_a_signal_to_one_host_stops_all_before_the_same_step_even_if_it_is_the_last():
    def work(hosts: Hosts) -> tuple[int, object]:
        request = StopRequest()
        turns, taken = Lockstep(hosts, request), 0
        for _ in turns.take(batch(step, hosts.index) for step in range(3)):
            taken += 1
            if hosts.index == 1 and taken == 3:
                request.signal = signal.SIGTERM
        turns.conclude(None)
        return taken, turns.signal

    found, _ = on_hosts(2, work)
    assert found == [(3, signal.SIGTERM)] * 2


@dataclass(frozen=True)
class Number:
    """A reader of nothing: the number of the video in its path."""

    def blank(self) -> dict:
        return {"video": np.zeros(1, np.int64)[None]}

    def __call__(self, record: VideoRecord, key: object) -> dict:
        return {"video": np.array([[int(record.path)]])}


def read_on(hosts: int, videos: int, batch_size: int, epochs: int) -> np.ndarray:
    """Positions of the videos read, by host, step and place."""
    records = tuple(VideoRecord(str(number), str(number)) for number in range(videos))
    settings = {"seed": 0, "batch_size": batch_size, "num_workers": 0, "start_step": 0}
    settings |= {"stop_step": epochs * steps_per_epoch(videos, batch_size), "process_count": hosts}
    return np.array(
        [
            [each.record_ids for each in batches(records, Number(), **settings, process_index=host)]
            for host in range(hosts)
        ]
    )


@pytest.mark.parametrize("hosts", [2, 4])
def test_hosts_together_read_what_one_reads(hosts):
    (one,) = read_on(1, videos=19, batch_size=4, epochs=3)
    np.testing.assert_array_equal(np.concatenate(read_on(hosts, 19, 4, 3), axis=1), one)


def test_on_two_hosts_no_video_is_read_twice_in_an_epoch_and_none_is_missed():
    whole = np.concatenate(read_on(2, videos=16, batch_size=4, epochs=2), axis=1).reshape(2, -1)
    assert [sorted(epoch) for epoch in whole] == [list(range(16))] * 2
    # Of 19 videos an epoch reads 4 x 4, each once; the three left over are others in another epoch.
    parts = np.concatenate(read_on(2, videos=19, batch_size=4, epochs=6), axis=1).reshape(6, -1)
    assert all(len(set(epoch)) == 16 for epoch in parts)
    left_over = [frozenset(range(19)) - set(epoch) for epoch in parts]
    assert len(set(left_over)) > 1
    assert set(parts.ravel()) == set(range(19))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("localhost:1", 2, None), "--host-index missing"),
        ((None, None, 0), "--coordinator and --num-hosts missing"),
        (("localhost", 2, 0), "must be HOST:PORT"),
        (("localhost:1", 2, 2), "from 0 to --num-hosts - 1 = 1"),
    ],
)
def test_flags_that_make_no_sense_are_refused(given, said):
    with pytest.raises(InputError, match=said), connected(*given):
        pass


def test_one_host_alone_joins_nobody(monkeypatch):
    monkeypatch.setenv("SLURM_STEP_NODELIST", "node1")
    monkeypatch.setenv("SLURM_NTASKS", "1")
    monkeypatch.setattr(jax.distributed, "initialize", lambda *arguments, **settings: pytest.fail("joined"))
    with connected(None, None, None):
        assert jax.process_count() == 1


def test_a_tpu_outside_of_googles_network_is_one_host(monkeypatch):
    """As of a notebook: JAX asks Google's metadata for others, and there is nobody to ask."""
    monkeypatch.setattr("videomae_jax.training.multihost.hosts._started_by_a_cluster", lambda: True)
    monkeypatch.setattr(cloud_tpu_cluster, "running_in_cloud_tpu_vm", True)
    monkeypatch.delenv("TPU_SKIP_MDS_QUERY", raising=False)
    monkeypatch.setenv("GCE_METADATA_IP", "metadata.google.internal")
    detect = ClusterEnv.auto_detect_unset_distributed_params
    monkeypatch.setattr(
        jax.distributed, "initialize", lambda *_, **__: detect(None, None, None, None, None, 5)
    )
    unknown = socket.gaierror(-2, "Name or service not known")
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: (_ for _ in ()).throw(unknown))
    with connected(None, None, None):
        assert jax.process_count() == 1


NCCL = "INTERNAL: NCCL operation ncclGroupEnd() failed: unhandled {}. Last NCCL warning(error) log entry '{}'"


def of_jax(said: str) -> Exception:
    return jax.errors.JaxRuntimeError(said)


def out_of_memory(said: str) -> Exception:
    """What `train` makes of it."""
    try:
        raise RunError("the devices ran out of memory") from of_jax(said)
    except RunError as error:
        return error


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (of_jax("UNKNOWN: Gloo all-reduce failed: Connection closed by peer"), True),
        (of_jax(NCCL.format("system error", "socketProgress: Connection closed by remote peer")), True),
        (of_jax("INTERNAL: NCCL: remote process exited or there was a network error"), True),
        (RunError("7 could not be written: Timeout waiting at barrier 'a'. UNAVAILABLE: Failed"), True),
        (of_jax(NCCL.format("cuda error", "Cuda failure 2 'out of memory'")), False),
        (of_jax(NCCL.format("cuda error", "Cuda failure 'invalid device ordinal'")), False),
        (of_jax("UNIMPLEMENTED: Gloo all-reduce of this type"), False),
        (out_of_memory("RESOURCE_EXHAUSTED: of a buffer for NCCL, CANCELLED"), False),
        (RunError("7 could not be written: No space left on device"), False),
        (of_jax("INVALID_ARGUMENT: shapes"), False),
    ],
)
def test_errors_that_mean_a_lost_host_are_told_as_that(error, lost, count, capsys, monkeypatch):
    monkeypatch.setattr(distributed.global_state, "num_processes", count)
    assert say(error) == 1
    assert ("is gone, or out of reach" in capsys.readouterr().err) == (lost and count > 1)


@pytest.mark.parametrize(
    ("said", "raised"),
    [
        ("RESOURCE_EXHAUSTED: 9 GiB", jax.errors.JaxRuntimeError),
        ("UNAVAILABLE: Connection reset", HostLost),
    ],
)
def test_a_step_that_fails_by_itself_is_no_lost_host(said, raised):
    class Step:
        def is_ready(self) -> bool:
            return True

        def block_until_ready(self) -> None:
            raise of_jax(said)

    def work(hosts: Hosts) -> type:
        if hosts.index == 1:  # Never says what host 0 waits for.
            return raised
        with pytest.raises(raised) as caught:
            hosts.share(None, Step())
        return caught.type

    assert on_hosts(2, work)[0] == [raised] * 2


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


def test_two_hosts_of_which_one_is_killed_and_one_stopped_end_like_one(group, tmp_path):
    length = ("--epochs", "8", "--checkpoint.every-steps", "5", "--log.val-every-steps", "6")  # 16 steps.
    alone, together = tmp_path / "alone", tmp_path / "together"
    group.end(group.start(alone, 1, 1, *length), alone, 0)

    started = group.start(together, 2, 2, *length)
    group.wait_for_row(started, together, 3)
    group.kill(started, together, 0)

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
