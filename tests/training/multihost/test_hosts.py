"""Hosts that work as one: what they agree on, what each reads, and how one that is lost is told."""

import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import jax
import numpy as np
import pytest
from jax._src import distributed
from jax._src.clusters import ClusterEnv, cloud_tpu_cluster

from videomae_jax.data.loading.batches import batches
from videomae_jax.data.loading.failures import Failure
from videomae_jax.data.loading.filling import ClipBatch
from videomae_jax.data.loading.order import steps_per_epoch
from videomae_jax.data.records import VideoRecord
from videomae_jax.errors import InputError, RunError
from videomae_jax.training.multihost.facts import classes_fact, setting_fact, videos_fact
from videomae_jax.training.multihost.hosts import HostLost, Hosts, connected, say
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
        "hosts 2, 3 do not have the same as host 0: videos (8 on host 0, 7 on host 2), the first that "
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
