"""Worker processes: what their owner sees of a failure, under which scripts they run, and how they end."""

import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import av
import numpy as np
import pytest

from videomae_jax.data.loading.map_processes import map_in_processes
from videomae_jax.data.loading.process import Process, WorkerDied, make_task
from videomae_jax.data.records import VideoRecord
from videomae_jax.data.sets import open_record
from videomae_jax.data.video.writing import write_video
from videomae_jax.errors import InputError, RunError


class Fussy(Exception):
    """An exception that pickles and does not unpickle."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


def fail(pipe, kind):
    match kind:
        case "bug":
            raise KeyError("a bug")
        case "fussy":
            raise Fussy("this", "that")
        case "input":
            raise InputError("a file is missing")
        case "end of file":
            raise EOFError("the store broke off")


def outcome(kind):
    with closing(Process()) as process:
        process.begin(make_task(fail, kind))
        process.receive()


def test_a_crash_keeps_its_traceback():
    with pytest.raises(KeyError) as caught:
        outcome("bug")
    assert 'raise KeyError("a bug")' in str(caught.value.__cause__)


def test_an_exception_that_does_not_unpickle_is_shown_as_text():
    with pytest.raises(RunError, match=r"(?s)a worker process failed:.*Fussy: this and that$"):
        outcome("fussy")


def test_what_a_user_can_fix_stays_one_sentence():
    with pytest.raises(InputError, match="a file is missing") as caught:
        outcome("input")
    assert caught.value.__cause__ is None


def test_the_end_of_a_file_is_not_taken_for_the_end_of_the_owner():
    with pytest.raises(EOFError, match="the store broke off"):
        outcome("end of file")


def run_script(folder, text):
    (folder / "script.py").write_text(text)
    return subprocess.run(
        [sys.executable, "script.py"], cwd=folder, capture_output=True, text=True, timeout=300
    )


WITHOUT_GUARD = """
import os
from contextlib import closing
import numpy as np
from videomae_jax.config import DataConfig, VideoMAEConfig
from videomae_jax.data.clips.readers import centre_view
from videomae_jax.data.loading.batches import each_video
from videomae_jax.data.sources import read_videos
from videomae_jax.data.video.writing import write_video

print("begun")
os.mkdir("videos")
for name in ("videos/a.mp4", "videos/b.mp4"):
    write_video(name, np.zeros((20, 32, 32, 3), np.uint8), 25)
reader = centre_view(VideoMAEConfig(image_size=32, num_frames=4), DataConfig())
with closing(each_video(read_videos(["videos"]), reader, batch_size=2, num_workers=2)) as batches:
    for batch in batches:
        print(batch.arrays["video"].shape, len(batch.failures))
"""


def test_a_script_needs_no_main_guard(tmp_path):
    done = run_script(tmp_path, WITHOUT_GUARD)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "begun\n(2, 4, 32, 32, 3) 0\n"


OWN_FUNCTION = """
from contextlib import closing
from videomae_jax.data.loading.process import Process, make_task

def own(pipe):
    pipe.send("done")

with closing(Process()) as process:
    process.begin(make_task(own))
    process.receive()
"""


def test_what_a_script_itself_defines_is_refused_in_a_sentence(tmp_path):
    done = run_script(tmp_path, OWN_FUNCTION)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith(
        "own is defined in the script that was started, which worker processes do not run: put it into a "
        "module and import it from there"
    )


def seconds_of(item):
    time.sleep(item)
    return os.getpid()


OWNER = """
from videomae_jax.data.loading.map_processes import map_in_processes
from test_process import seconds_of
for pid in map_in_processes(seconds_of, [0, 600, 600], 2, print):
    print(pid, flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_worker_outlives_its_owner(tmp_path, number):
    (tmp_path / "owner.py").write_text(OWNER)
    paths = [os.path.dirname(__file__), *sys.path]
    owner = subprocess.Popen(
        [sys.executable, "owner.py"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
    )
    worker = int(owner.stdout.readline())
    owner.send_signal(number)
    assert owner.stdout.read() == ""
    owner.wait()
    while True:  # It ends by itself: the test waits for the kernel.
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            break
        time.sleep(0.05)


def double_or_die(item):
    if item == 5:
        os._exit(9)
    return 2 * item


def test_the_item_that_ends_its_process_is_found():
    found = list(map_in_processes(double_or_die, range(9), 2, lambda item: -1))
    assert found == [-1 if item == 5 else 2 * item for item in range(9)]


def die_once(path):
    if not path.exists():
        path.touch()
        os._exit(9)
    return np.zeros(3)


def test_an_item_whose_process_dies_once_is_tried_again(tmp_path):
    (found,) = map_in_processes(die_once, [tmp_path / "died"], 0, lambda item: None)
    assert found.shape == (3,)


def stop_and_double(item):
    os.kill(os.getpid(), signal.SIGSTOP)
    return 2 * item


def test_a_process_that_is_stopped_is_named_until_it_goes_on(monkeypatch, capsys):
    monkeypatch.setattr("videomae_jax.data.loading.process.SECONDS_BEFORE_A_WORD", 0.4)

    said, done = [], threading.Event()

    def go_on_once_named():
        while not done.wait(0.1):  # One may be named while it starts, before it is stopped.
            said.append(capsys.readouterr().err)
            for pid in re.findall(r"process (\d+) has sent nothing", said[-1]):
                os.kill(int(pid), signal.SIGCONT)

    going_on = threading.Thread(target=go_on_once_named)
    going_on.start()
    try:
        assert list(map_in_processes(stop_and_double, [4], 1, print)) == [8]
    finally:
        done.set()
        going_on.join()
    assert "has sent nothing for" in "".join(said)


def eat_memory(item):
    if item == 1:
        raise MemoryError
    return item


def test_an_item_that_takes_all_memory_is_found():
    assert list(map_in_processes(eat_memory, range(3), 2, lambda item: "crashed")) == [0, "crashed", 2]


def read_without_memory(path):
    av.open(path).close()  # Libraries are loaded before memory ends.
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    with open_record(VideoRecord(path, "")) as video:
        return len(video.frames([0]))


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's /proc and limits of memory")
def test_a_video_is_not_damaged_where_memory_is_refused(tmp_path):
    """The decoder says so, whose own words are `Invalid data`."""
    write_video(tmp_path / "a.mp4", np.zeros((2, 1080, 1920, 3), np.uint8), 25)
    found = map_in_processes(read_without_memory, [str(tmp_path / "a.mp4")], 1, lambda _: "no memory")
    assert list(found) == ["no memory"]


def test_a_worker_that_never_starts_is_no_verdict_on_an_item(monkeypatch):
    monkeypatch.setattr("videomae_jax.data.loading.process._START", "import os; os._exit(4)")
    with pytest.raises(WorkerDied, match="exit code 4"):
        list(map_in_processes(double_or_die, range(9), 2, lambda item: -1))
