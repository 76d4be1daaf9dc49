"""Sets of thousands of shards, and storage that fails for a moment."""

import json
import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from videomae_jax.data.prepare.command import prepare
from videomae_jax.data.prepare.settings import Prepare
from videomae_jax.data.synthetic import write_synthetic_videos

ROOT = Path(__file__).parents[3]
CONSUMER = """
import json, logging, resource, sys
from contextlib import closing
from videomae_jax.config import DataConfig, VideoMAEConfig
from videomae_jax.data.clips.readers import PretrainClips
from videomae_jax.data.loading.batches import batches
from videomae_jax.data.sources import read_videos

logging.basicConfig(format="%(message)s")
if len(sys.argv) > 4:
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
videos = read_videos([sys.argv[1]])
read = PretrainClips(VideoMAEConfig(image_size=32, patch_size=8, num_frames=4), DataConfig(sampling_rate=2))
steps = {"start_step": 0, "stop_step": int(sys.argv[3])}
ids, failures, repeats = [], [], []
with closing(batches(videos, read, seed=5, batch_size=40, num_workers=int(sys.argv[2]), **steps)) as made:
    for batch in made:
        ids += batch.record_ids.tolist()
        failures += [each.error for each in batch.failures]
        repeats += [each.error for each in batch.repeats]
print(json.dumps([ids, failures, repeats]))
"""
# Opening what has a word in its path fails a number of times in each process.
FAULTS = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
static int left = -1;
static int fails(const char *path) {
    if (left < 0) left = atoi(getenv("FAULT_COUNT"));
    if (left == 0 || !strstr(path, getenv("FAULT_WORD"))) return 0;
    left--;
    errno = atoi(getenv("FAULT_ERRNO"));
    return 1;
}
#define OPEN(name) int name(const char *path, int flags, ...) { \
    va_list rest; va_start(rest, flags); int mode = va_arg(rest, int); va_end(rest); \
    if (fails(path)) return -1; \
    return ((int (*)(const char *, int, ...))dlsym(RTLD_NEXT, #name))(path, flags, mode); }
OPEN(open)
OPEN(open64)
"""


def consume(folder, source, workers=2, steps=2, few_files=False, **environment):
    script = folder / "consume.py"
    script.write_text(CONSUMER)
    command = [sys.executable, script, source, workers, steps, *["few"] * few_files]
    done = subprocess.run(
        [str(each) for each in command],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return *json.loads(done.stdout), done.stderr


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Videos, and a set of them."""
    folder = tmp_path_factory.mktemp("stored")
    write_synthetic_videos(folder / "videos", 2, 1, 1, side=32, num_frames=20)
    args = Prepare((str(folder / "videos/train.csv"),), folder / "set", videos_per_shard=5, num_workers=2)
    assert prepare(args) == 0
    return folder


def split_finely(source, target, count):
    """A set whose records, again and again, are each a shard of its own."""
    from array_record.python import array_record_module

    shutil.copytree(
        source, target, ignore=shutil.ignore_patterns("*.array_record*", "card.json", "videos.csv")
    )
    records = []
    for file in sorted(source.glob("*train.array_record*")):
        records += array_record_module.ArrayRecordReader(str(file)).read_all()
    name = re.sub(r"-\d+-of-\d+$", "", file.name)
    for number in range(count):
        path = target / f"{name}-{number:05d}-of-{count:05d}"
        writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
        writer.write(records[number % len(records)])
        writer.close()
    info = json.loads((target / "dataset_info.json").read_text())
    (split,) = (each for each in info["splits"] if each["name"] == "train")
    split["shardLengths"] = ["1"] * count
    (target / "dataset_info.json").write_text(json.dumps(info))


def test_thousands_of_shards_are_read_with_few_open(stored, tmp_path):
    split_finely(stored / "set", tmp_path / "fine", 2000)
    ids, failures, repeats, _ = consume(tmp_path, tmp_path / "fine", 2, 50, few_files=True)
    assert sorted(ids) == list(range(2000))
    assert not failures
    assert not repeats


@pytest.fixture(scope="module")
def faults(tmp_path_factory):
    """A library that makes opening fail."""
    if not (compiler := shutil.which("cc")) or sys.platform != "linux":
        pytest.skip("needs a C compiler, on Linux")
    folder = tmp_path_factory.mktemp("faults")
    (folder / "faults.c").write_text(FAULTS)
    command = [compiler, "-shared", "-fPIC", "-o", folder / "faults.so", folder / "faults.c", "-ldl"]
    subprocess.run(command, check=True)
    return {"LD_PRELOAD": str(folder / "faults.so"), "FAULT_COUNT": "0"}


@pytest.mark.parametrize(
    ("kind", "number", "said"),
    [
        ("set", 5, "Input/output error"),
        ("set", 110, "Connection timed out"),
        ("set", 24, "Too many open files"),
        ("videos/train.csv", 116, "Stale file handle"),
        ("videos/train.csv", 5, "Input/output error"),
    ],
)
def test_what_passes_is_read_again_counted_and_named(stored, tmp_path, faults, kind, number, said):
    word = {"set": ".array_record", "videos/train.csv": ".mp4"}[kind]
    whole, *_ = consume(tmp_path, stored / kind)
    fault = faults | {"FAULT_COUNT": "2", "FAULT_ERRNO": str(number), "FAULT_WORD": word}
    ids, failures, repeats, log = consume(tmp_path, stored / kind, **fault)
    assert (ids, failures) == (whole, [])
    assert 2 <= len(repeats) <= 4
    assert set(repeats) == {said}
    assert re.search(rf"read again: \d+ times so far, the last being .*: {said}", log)


def test_what_does_not_pass_is_named_as_what_it_is(stored, tmp_path, faults):
    fault = faults | {"FAULT_COUNT": "4", "FAULT_ERRNO": "5", "FAULT_WORD": ".array_record"}
    _, failures, repeats, _ = consume(tmp_path, stored / "set", workers=0, **fault)
    (failure,) = failures
    assert "unreadable: the shard cannot be read" in failure
    assert "Input/output error" in failure
    assert repeats == ["Input/output error"] * 3


def test_the_limit_of_open_files_is_raised():
    code = (
        "import resource; from videomae_jax.data.shards import _room_for_files as room; "
        "hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]; "
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard)); found = room(); "
        "print(found, resource.getrlimit(resource.RLIMIT_NOFILE)[0] == hard)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert said.split() == [str(256 if hard == resource.RLIM_INFINITY else min(256, hard // 4)), "True"]
