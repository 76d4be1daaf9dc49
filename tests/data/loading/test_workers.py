"""Worker processes that read videos: what comes back, who waits for what, and how they end."""

import gc
import mmap
import os
import pickle
import re
import signal
import struct
import sys
import threading
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import pytest

from videomae_jax.data.loading import pages, process, workers
from videomae_jax.data.loading.order import EachVideoSlots
from videomae_jax.data.loading.process import Process, WorkerDied
from videomae_jax.data.loading.workers import Workers
from videomae_jax.data.records import VideoRecord
from videomae_jax.data.video.frames import VideoError
from videomae_jax.errors import RunError

BLANK = {"label": np.zeros(1, np.int32), "odd": np.zeros(3, np.uint8), "video": np.zeros((2, 5), np.float32)}


def arrays_of(number):
    return {
        name: np.full(each.shape, (number + place) % 251, each.dtype)
        for place, (name, each) in enumerate(BLANK.items())
    }


@dataclass(frozen=True)
class ReadNumber:
    """A reader of records that are named by numbers; something happens at one of them."""

    event: str = ""
    at: int = -1
    ballast: bytes = b""

    def blank(self):
        return BLANK

    def __call__(self, record, key):
        number = int(record.path)
        if number == self.at:
            match self.event:
                case "bad":
                    raise VideoError(record.path, "damaged", "")
                case "raise":
                    raise RunError("the reason")
                case "exit":
                    os._exit(3)
                case "no memory":
                    raise MemoryError
                case "lost pipe":
                    os.close(int(sys.argv[1]))
                    time.sleep(600)
                case "half a message":
                    os.write(int(sys.argv[1]), struct.pack("!i", 1000))
                    os._exit(6)
                case "long message":
                    raise VideoError("x" * 10_000_000, "damaged", "")
                case "stop":
                    os.kill(os.getpid(), signal.SIGSTOP)
        return arrays_of(number)


def videos(count):
    return tuple(VideoRecord(str(number), "") for number in range(count))


def read(pool, reader=None, count=20, batch_size=4):
    slots = EachVideoSlots(videos(count), batch_size, 0, batch_size)
    return pool.read(slots, reader or ReadNumber(), range(-(-count // batch_size)), batch_size)


@pytest.fixture(scope="module")
def three():
    with closing(Workers(3)) as pool:
        yield pool


@pytest.fixture
def started(monkeypatch):
    """The worker processes, in the order of their start."""
    processes = []

    class Noted(Process):
        def __init__(self, *files):
            super().__init__(*files)
            processes.append(self)

    monkeypatch.setattr(workers, "Process", Noted)
    return processes


def ended(pid):
    """Whether a process is gone, waited for by its owner too."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def check(batch, numbers):
    """The batch has the arrays of these videos, and none where one is -1."""
    assert batch.record_ids.tolist() == np.repeat(numbers, 2).tolist()
    for name, values in batch.arrays.items():
        for place, found in enumerate(values.reshape(len(numbers), *BLANK[name].shape)):
            number = numbers[place]
            expected = arrays_of(number)[name] if number >= 0 else BLANK[name]
            np.testing.assert_array_equal(found, expected)
            assert found.dtype == expected.dtype


@pytest.mark.parametrize("batch_size", [1, 4, 7])
def test_batches_come_in_order_and_whole(three, batch_size):
    batches = list(read(three, ReadNumber("bad", 4), 20, batch_size))
    ids = np.arange(batch_size * len(batches))
    ids[(ids == 4) | (ids >= 20)] = -1
    for step, batch in enumerate(batches):
        assert batch.step == step
        check(batch, ids[step * batch_size :][:batch_size])
    assert [failure.path for batch in batches for failure in batch.failures] == ["4"]


def test_one_set_of_workers_serves_several_readers_and_the_last_who_asks_first(three):
    training = read(three, ReadNumber(), 4000)
    for turn in range(3):
        check(next(training), np.arange(4 * turn, 4 * turn + 4))
        validation = list(read(three, ReadNumber("bad", turn), 8))
        assert [batch.failures[0].path for batch in validation if batch.failures] == [str(turn)]
    with closing(read(three, ReadNumber())) as left:
        check(next(left), [0, 1, 2, 3])
    check(next(training), [12, 13, 14, 15])
    training.close()


def test_pages_are_used_again_but_never_while_somebody_holds_their_arrays(three):
    held = []
    for number, batch in enumerate(read(three, count=400)):
        if number % 10 == 0:
            held.append((number, batch))
    for number, batch in held:
        check(batch, np.arange(4 * number, 4 * number + 4))
    del held, batch
    gc.collect()
    taken = three._pages._end
    for _ in read(three, count=400):
        pass
    assert three._pages._end == taken
    assert taken // mmap.ALLOCATIONGRANULARITY < 40


@pytest.mark.skipif(not hasattr(mmap, "MADV_REMOVE"), reason="needs Linux")
def test_pages_that_nobody_reads_into_any_more_have_no_memory(three):
    def shared():
        gc.collect()
        return os.fstat(three._pages.fileno).st_blocks * 512

    training = read(three, ReadNumber(), 40_000, 1)
    next(training)
    held = []
    for turn in range(3):
        validation = read(three, ReadNumber(), 6_000, 2000)
        held.append(next(validation))
        del validation
        assert shared() > 80_000
        check(held.pop(), np.arange(2000))
        held.clear()
        check(next(training), [turn + 1])
        while shared() > 80_000:  # Workers may have one of its videos left.
            time.sleep(0.05)
    training.close()


@dataclass(frozen=True)
class ReadLarge:
    """Arrays that JAX takes as they are, on a CPU: their page is the device's memory."""

    def blank(self):
        return {"video": np.zeros((1, 1 << 16), np.float32)}

    def __call__(self, record, key):
        return {"video": np.full((1, 1 << 16), int(record.path), np.float32)}


def test_what_a_device_reads_is_never_overwritten(three):
    work = jax.jit(lambda x: jax.lax.fori_loop(0, 30, lambda n, y: np.sqrt(1.0) * y, x).mean(axis=1))
    sums, placed = [], []
    for batch in read(three, ReadLarge(), 160):
        array = jax.device_put(batch.arrays["video"])
        if batch.step == 0:
            assert array.unsafe_buffer_pointer() == batch.arrays["video"].ctypes.data, "not copied"
        sums.append(work(array))
        if batch.step % 7 == 0:
            placed.append((batch.step, array))
        del batch, array
    np.testing.assert_array_equal(np.concatenate(sums), np.arange(160))
    for step, array in placed:
        np.testing.assert_array_equal(array[:, 0], np.arange(4 * step, 4 * step + 4))


def test_what_a_worker_gets_does_not_grow_with_the_list(monkeypatch):
    sizes = []
    send = Process.send

    def noted(self, message):
        sizes.append(len(pickle.dumps(message)))
        send(self, message)

    monkeypatch.setattr(Process, "send", noted)
    for count in (100, 10_000):
        with closing(Workers(2)) as pool, closing(read(pool, count=count)) as batches:
            next(batches)
        assert max(sizes) < 1000
        sizes.clear()


def test_what_a_worker_raises_is_raised():
    seen = []
    with closing(Workers(3)) as pool, pytest.raises(RunError, match="the reason"):
        seen.extend(batch.step for batch in read(pool, ReadNumber("raise", 7), batch_size=1))
    assert seen == list(range(len(seen)))
    assert len(seen) <= 7


def test_a_worker_that_dies_is_an_error_for_whoever_waits():
    with closing(Workers(3)) as pool:
        with pytest.raises(WorkerDied, match=r"exit code 3"):
            list(read(pool, ReadNumber("exit", 7)))
        with pytest.raises(WorkerDied, match=r"exit code 3"):
            list(read(pool))


def test_a_worker_that_dies_in_the_middle_of_a_message_is_no_hang():
    with closing(Workers(2)) as pool, pytest.raises(RunError, match=r"exit code 6"):
        list(read(pool, ReadNumber("half a message", 1)))


def test_a_worker_that_has_lost_its_pipe_and_goes_on_is_no_hang(started):
    with closing(Workers(2)) as pool, pytest.raises(WorkerDied):
        list(read(pool, ReadNumber("lost pipe", 1)))


def test_a_worker_without_memory_is_one_sentence(capfd):
    said = r"^a worker process died \(exit code 12\), because memory ran out: use fewer worker processes with"
    with closing(Workers(2)) as pool, pytest.raises(WorkerDied, match=said) as caught:
        list(read(pool, ReadNumber("no memory", 1)))
    assert caught.value.__cause__ is None
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("executable", "said"), [("/bin/false", "exit code 1"), ("/nowhere", "No such file")]
)
def test_an_interpreter_that_does_not_run_is_one_sentence(monkeypatch, executable, said):
    monkeypatch.setattr(sys, "executable", executable)
    with pytest.raises(RunError, match=said), closing(Workers(3)) as pool:
        list(read(pool))


class DiesUnpickled(ReadNumber):
    """A reader that ends the worker that gets it; larger than any pipe."""

    def __reduce__(self):
        return os._exit, (5,), {"ballast": bytes(10_000_000)}


def test_a_worker_that_dies_over_its_reader_is_an_error():
    with closing(Workers(3)) as pool, pytest.raises(RunError, match=r"exit code 5"):
        list(read(pool, DiesUnpickled()))


@pytest.mark.parametrize("start", ["import os; os._exit(4)", "import os; os.kill(os.getpid(), 9)"])
def test_a_worker_that_dies_before_it_reads_anything_is_an_error(monkeypatch, start):
    monkeypatch.setattr(process, "_START", start)
    reader = ReadNumber(ballast=bytes(10_000_000))
    with closing(Workers(3)) as pool, pytest.raises(RunError, match=r"exit code (4|-9)"):
        list(read(pool, reader))


def test_a_worker_that_dies_while_nobody_waits_is_an_error(started):
    with closing(Workers(1)) as pool, closing(read(pool, count=400)) as batches:
        next(batches)
        time.sleep(0.5)
        os.kill(started[0].pid, signal.SIGKILL)
        with pytest.raises(RunError, match=r"exit code -9"):
            list(batches)


def test_a_worker_that_dies_while_nobody_asks_is_told_once(monkeypatch, capfd, started):
    """Whoever is to know may compile for minutes."""
    monkeypatch.setattr(workers, "_SECONDS_BEFORE_IT_IS_TOLD", 0.1)
    with closing(Workers(2)) as pool, closing(read(pool)) as batches:
        next(batches)
        os.kill(started[0].pid, signal.SIGKILL)
        said = ""
        while "This ends with the next batch." not in said:
            time.sleep(0.05)
            said += capfd.readouterr().err
        time.sleep(0.5)
        assert said.count("a worker process died (exit code -9)") == 1
        assert not capfd.readouterr().err
        with pytest.raises(WorkerDied):
            list(batches)


def test_a_long_message_and_a_large_reader_pass_each_other(three):
    first, second = ReadNumber("long message", 1), ReadNumber(ballast=bytes(10_000_001))
    with closing(read(three, first, 400)) as batches:
        next(batches)
        assert [batch.step for batch in read(three, second)] == [0, 1, 2, 3, 4]


def test_a_large_reader_reaches_every_worker(three):
    reader = ReadNumber(ballast=bytes(10_000_000))
    assert [batch.step for batch in read(three, reader)] == [0, 1, 2, 3, 4]


def test_a_worker_that_is_stopped_is_named_until_it_goes_on(monkeypatch, capsys, started):
    monkeypatch.setattr(process, "SECONDS_BEFORE_A_WORD", 0.4)
    with closing(Workers(2)) as pool:
        list(read(pool))
        stopped = threading.Event()

        def go_on():
            while not stopped.wait(1):
                for each in started:
                    os.kill(each.pid, signal.SIGCONT)

        going_on = threading.Thread(target=go_on)
        going_on.start()
        try:
            assert len(list(read(pool, ReadNumber("stop", 3)))) == 5
        finally:
            stopped.set()
            going_on.join()
    said = capsys.readouterr().err
    named = re.findall(r"process (\d+) has sent nothing for [\d.]+ s; is the storage stuck", said)
    assert {int(pid) for pid in named} & {each.pid for each in started}, said


def test_closing_stops_who_is_stopped_and_leaves_the_arrays_of_who_holds_them(started):
    with closing(Workers(3)) as pool:
        batches = read(pool, count=400)
        batch = next(batches)
        os.kill(started[1].pid, signal.SIGSTOP)
    batches.close()
    assert all(ended(each.pid) for each in started)
    gc.collect()
    check(batch, [0, 1, 2, 3])


def test_no_memory_for_a_batch_is_one_sentence(three, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pages.os, "posix_fallocate", full)
    with pytest.raises(
        RunError, match=r"^no memory for one more batch of .* MB, .*\(No space left on device"
    ):
        list(read(three, batch_size=1000))


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="needs Linux's /dev/shm")
def test_no_file_is_made_where_containers_have_little_room(three):
    before = set(os.listdir("/dev/shm"))
    for _ in read(three):
        assert set(os.listdir("/dev/shm")) <= before
