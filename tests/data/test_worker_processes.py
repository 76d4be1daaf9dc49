import gc
import multiprocessing
import os
import signal
import threading
import time
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import pytest

from videomae_jax.data import worker_processes
from videomae_jax.data.slots import Failure, Slot
from videomae_jax.data.worker_processes import read_in_workers
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


def test_a_worker_killed_in_the_middle_of_a_message_is_no_hang():
    with read(ReadNumber("long message", 1), num_workers=2) as slots:
        assert next(slots).record_id == 0
        second = multiprocessing.active_children()
        time.sleep(3)  # It has started, and waits for its long message to be taken.
        for worker in second:
            os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(RunError, match=r"(?s)exit code -9.*mostly means that memory ran out"):
            next(slots)


def test_a_worker_that_is_stopped_is_named_until_it_goes_on(monkeypatch, capsys):
    monkeypatch.setattr(worker_processes, "SECONDS_BEFORE_A_WORD", 0.2)
    with read(ReadNumber(), num_workers=1) as slots:
        next(slots)
        pid = multiprocessing.active_children()[0].pid
        os.kill(pid, signal.SIGSTOP)
        threading.Timer(1, os.kill, (pid, signal.SIGCONT)).start()
        assert [slot.record_id for slot in slots] == list(range(1, 20))
    assert f"process {pid} has sent nothing for 0.4 s" in capsys.readouterr().err


def test_closing_early_leaves_no_process_and_the_arrays_of_who_holds_them():
    with read(ReadNumber()) as slots:
        slot = next(slots)
        assert len(multiprocessing.active_children()) == 3
    assert not multiprocessing.active_children()
    gc.collect()
    np.testing.assert_array_equal(slot.arrays["video"], arrays_of(0)["video"])
