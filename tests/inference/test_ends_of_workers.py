"""Workers that are killed, stopped, without memory, or no workers at all, in each command that has some."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from random_classifier import write_run

ROOT = Path(__file__).parents[2]
COMMAND = """
import sys
from pathlib import Path
from videomae_jax.data.loading import process

process.SECONDS_BEFORE_A_WORD = 1
event, when, *arguments = sys.argv[1:]
start = process._START
first, _, rest = start.partition("; from ")
if event == "false":
    begin, started = process.Process._start, []

    def start_with_false(*args):
        started.append(args)
        if when == "start" or len(started) > 2:
            sys.executable = "/bin/false"
        begin(*args)

    process.Process._start = start_with_false
    event = "kill"
    if when == "middle":
        process._START = f"{first}; import middle; middle.happen({event!r}); from {rest}"
elif when == "start":
    process._START = f"{first}; import middle; middle.do({event!r}); from {rest}"
else:
    process._START = f"{first}; import middle; middle.happen({event!r}); from {rest}"
sys.argv[1:] = arguments
if arguments[0] == "script":
    exec(compile(Path("script.py").read_text(), "script.py", "exec"), {})
else:
    from videomae_jax import cli

    sys.exit(cli.main(arguments))
"""
# What happens in a worker, once, from the third time on that it opens a video where `happen` is told.
MIDDLE = """
import os
import resource
import signal
import sys
import time
from pathlib import Path


def do(event):
    Path("happened").write_text(str(time.time()))
    if event == "memory":
        size = 1 << 28
        if "numpy" in sys.modules:
            size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size, size))
    else:
        os.kill(os.getpid(), {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}[event])


def happen(event):
    import av

    opened, open_ = [], av.open

    def counted(*args, **kwargs):
        opened.append(None)
        if len(opened) >= 3 and not Path("happened").exists():
            do(event)
        return open_(*args, **kwargs)

    av.open = counted
"""
SCRIPT = """
import sys
from contextlib import closing
from videomae_jax.config import DataConfig, VideoMAEConfig
from videomae_jax.data.clips.readers import centre_view
from videomae_jax.data.loading.batches import each_video
from videomae_jax.data.sources import read_videos

reader = centre_view(VideoMAEConfig(image_size=32, num_frames=4), DataConfig())
with closing(each_video(read_videos(sys.argv[2:]), reader, batch_size=2, num_workers=2)) as batches:
    for batch in batches:
        print(batch.arrays["video"].shape, len(batch.failures))
"""
COMMANDS = ("pretrain", "finetune", "evaluate", "features", "script", "prepare", "check-data")
EVENTS = ("kill", "memory", "stop", "false")
QUICK = {
    ("pretrain", "kill", "middle"),
    ("features", "stop", "middle"),
    ("script", "memory", "start"),
}
CASES = [
    pytest.param(*case, marks=() if case in QUICK else pytest.mark.chaos)
    for case in [(name, event, when) for name in COMMANDS for event in EVENTS for when in ("start", "middle")]
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run"))


def arguments_of(name, videos, run):
    checkpoint, two = ["--checkpoint", run], ["--num-workers", 2]
    source = videos / "val.csv"
    training = ["--data.train", source, "--workdir", "out", "--data.num-workers", 2]
    classifier = ROOT / "configs/test/tiny_finetune.py"
    return {
        "pretrain": ["tiny", *training],
        "finetune": [classifier, *training, "--data.val", source, "--epochs", 2],
        "evaluate": [source, *checkpoint, "--out", "out", *two, "--batch-size", 6],
        "features": [source, *checkpoint, "--out", "out/a.npz", *two],
        "script": [source],
        "prepare": [source, "--out", "out/set", *two],
        "check-data": [source, *two],
    }[name]


def go_on(errors, process):
    """Let workers go on once they are named, until the command ends; whether any was named."""
    named = []
    give_up = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < give_up:
        named = re.findall(r"process (\d+) has sent nothing for", errors.read_text())
        for pid in set(map(int, named)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        time.sleep(0.1)
    return bool(named)


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's /proc and limits of memory")
@pytest.mark.parametrize(("name", "event", "when"), CASES)
def test_a_command_ends_or_says_for_whom_it_waits(videos, run, tmp_path, name, event, when):
    for file, text in (("command.py", COMMAND), ("middle.py", MIDDLE), ("script.py", SCRIPT)):
        (tmp_path / file).write_text(text)
    line = [sys.executable, "command.py", event, when, name, *arguments_of(name, videos, run)]
    with (tmp_path / "errors").open("w") as errors:
        process = subprocess.Popen(
            [str(each) for each in line],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
            stdout=errors,
            stderr=errors,
        )
    try:
        named = go_on(tmp_path / "errors", process)
        assert process.poll() is not None, "it hangs"
    finally:
        process.kill()
        process.wait()
    said = (tmp_path / "errors").read_text()
    if (happened := tmp_path / "happened").exists():  # Shown by `pytest -rP`.
        print(
            name, event, when, f"ended after {time.time() - float(happened.read_text()):.1f} s: {said[-400:]}"
        )
    if event == "stop":
        assert (process.returncode, named) == (0, True), said
    elif name in ("prepare", "check-data") and when == "middle" and event != "false":
        assert process.returncode == 0, said  # The video is read again, in another process.
    elif event == "memory" and process.returncode == 0:
        assert "no-frames" not in said, said  # Small videos were read with the memory that it had.
    else:
        assert process.returncode == 1, said
        assert re.search(r"a worker process (died \(exit code -?\d+\)|could not start)", said), said
        if name != "script" and (event, when) != ("memory", "start"):  # Whose import fails has to say where.
            assert "Traceback" not in said
