import gc
import os
import signal
import threading
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import pytest

from videomae_jax.data.loading import pool as worker_processes
from videomae_jax.data.loading import process
from videomae_jax.data.loading.pool import Stopped, read_in_workers
from videomae_jax.data.loading.process import Process
from videomae_jax.data.loading.slots import Failure, Slot
from videomae_jax.errors import RunError

BLANK = {"label": np.zeros(1, np.int32), "odd": np.zeros(3, np.uint8), "video": np.zeros((2, 5), np.float32)}


def arrays_of(n):
    return {
        name: np.full(each.shape, n + place, each.dtype) for place, (name, each) in enumerate(BLANK.items())
    }


@dataclass(frozen=True)
class ReadNumber:
    """Slots that know their number; something happens at one of them."""

    event: str = ""
    at: int = -1

    def __call__(self, n):
        failures = ()
        if n == self.at:
            match self.event:
                case "empty":
                    return Slot(None, n, ())
                case "raise":
                    raise RunError("the reason")
                case "exit":
                    os._exit(3)
                case "long message":
                    failures = (Failure("a.mp4", "x" * 10_000_000, ""),)
        return Slot(arrays_of(n), n, failures)


def read(what, count=20, num_workers=3, num_buffers=2):
    return closing(
        read_in_workers(what, count, num_workers=num_workers, num_buffers=num_buffers, blank=BLANK)
    )


@pytest.fixture
def started(monkeypatch):
    """The worker processes, in the order of their start."""
    processes = []

    class Noted(Process):
        def __init__(self, *files):
            super().__init__(*files)
            processes.append(self)

    monkeypatch.setattr(worker_processes, "Process", Noted)
    return processes


def ended(pid):
    """Whether a process is gone, waited for by its owner too."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize(("num_workers", "num_buffers"), [(1, 1), (2, 8), (3, 2)])
def test_slots_come_in_order_and_whole(num_workers, num_buffers):
    with read(ReadNumber("empty", 4), 20, num_workers, num_buffers) as slots:
        for n, slot in enumerate(slots):
            assert slot.record_id == n
            if n == 4:
                assert slot.arrays is None
                continue
            for name, expected in arrays_of(n).items():
                np.testing.assert_array_equal(slot.arrays[name], expected)
                assert slot.arrays[name].dtype == expected.dtype
    assert n == 19


def test_what_a_worker_raises_is_raised_in_its_place():
    seen = []
    with read(ReadNumber("raise", 7)) as slots, pytest.raises(RunError, match="the reason"):
        seen.extend(slot.record_id for slot in slots)
    assert seen == list(range(7))


def test_a_worker_that_dies_is_an_error_when_its_slot_is_due():
    seen = []
    with read(ReadNumber("exit", 7)) as slots, pytest.raises(RunError, match=r"exit code 3"):
        seen.extend(slot.record_id for slot in slots)
    assert seen == list(range(7))


def test_a_worker_killed_in_the_middle_of_a_message_is_no_hang(started):
    with read(ReadNumber("long message", 1), num_workers=2) as slots:
        assert next(slots).record_id == 0
        assert started[1].pipe.poll(120)  # The head is there, and the rest has no room in the pipe.
        os.kill(started[1].pid, signal.SIGKILL)
        with pytest.raises(RunError, match=r"(?s)exit code -9.*mostly means that memory ran out"):
            next(slots)


class DiesUnpickled:
    """A task that ends the worker that reads it; larger than any pipe."""

    def __init__(self):
        self.ballast = bytes(10_000_000)

    def __reduce__(self):
        return os._exit, (5,), {"ballast": self.ballast}

    def __call__(self, n):
        raise AssertionError


def test_a_worker_that_dies_over_its_task_is_an_error():
    with read(DiesUnpickled()) as slots, pytest.raises(RunError, match=r"exit code 5"):
        next(slots)


def test_a_worker_that_dies_before_it_reads_its_task_is_an_error(monkeypatch):
    monkeypatch.setattr(process, "_START", "import os; os._exit(4)")
    task = ReadLarge(bytes(10_000_000))
    with read(task) as slots, pytest.raises(RunError, match=r"exit code 4"):
        next(slots)


def test_a_worker_that_dies_between_two_messages_is_an_error(started):
    with read(ReadNumber(), num_workers=1, num_buffers=1) as slots:
        next(slots)
        os.kill(started[0].pid, signal.SIGKILL)
        with pytest.raises(RunError, match=r"exit code -9"):
            next(slots)


@dataclass(frozen=True)
class ReadLarge:
    """Slots read with what makes the task large."""

    ballast: bytes

    def __call__(self, n):
        return Slot(arrays_of(n), n, ())


def test_a_large_task_reaches_every_worker():
    with read(ReadLarge(bytes(10_000_000)), 4, 2) as slots:
        assert [slot.record_id for slot in slots] == [0, 1, 2, 3]


def test_tasks_carry_no_blank_clips(monkeypatch):
    sizes = []
    made = worker_processes.make_task
    monkeypatch.setattr(worker_processes, "make_task", lambda *a: sizes.append(len(made(*a))) or made(*a))
    blank = {"video": np.zeros(10_000_000, np.uint8)}
    slots = read_in_workers(ReadNumber("raise", 0), 1, num_workers=1, num_buffers=1, blank=blank)
    with closing(slots), pytest.raises(RunError, match="the reason"):
        next(slots)
    assert sizes[0] < 1000


def test_who_waits_in_another_thread_is_told_to_stop(started):
    stop = threading.Event()
    slots = read_in_workers(ReadNumber(), 20, num_workers=1, num_buffers=1, blank=BLANK, stop=stop)
    with closing(slots):
        next(slots)
        os.kill(started[0].pid, signal.SIGSTOP)
        threading.Timer(0.1, stop.set).start()
        with pytest.raises(Stopped):
            list(slots)
    assert ended(started[0].pid)


def test_a_worker_that_is_stopped_is_named_until_it_goes_on(monkeypatch, capsys, started):
    monkeypatch.setattr(worker_processes, "SECONDS_BEFORE_A_WORD", 0.2)
    with read(ReadNumber(), num_workers=1) as slots:
        next(slots)
        pid = started[0].pid
        os.kill(pid, signal.SIGSTOP)
        threading.Timer(1, os.kill, (pid, signal.SIGCONT)).start()
        assert [slot.record_id for slot in slots] == list(range(1, 20))
    assert f"process {pid} has sent nothing for 0.4 s" in capsys.readouterr().err


def test_closing_early_leaves_no_process_and_the_arrays_of_who_holds_them(started):
    with read(ReadNumber()) as slots:
        slot = next(slots)
        assert len(started) == 3
    assert all(ended(each.pid) for each in started)
    gc.collect()
    np.testing.assert_array_equal(slot.arrays["video"], arrays_of(0)["video"])
