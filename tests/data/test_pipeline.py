"""Batches as pure functions of the step: any number of workers and hosts, any start, bad videos or not."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from videomae_jax.config import DataConfig, PretrainConfig, VideoMAEConfig
from videomae_jax.data import slots
from videomae_jax.data.pipeline import batches, steps_per_epoch, validation_batches
from videomae_jax.data.slots import substitute, video_of_slot
from videomae_jax.data.sources import VideoRecord, read_videos
from videomae_jax.data.video import open_video, write_video
from videomae_jax.errors import RunError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Seven files, one of them no video at all; the pixels of each tell which video and which frame it is."""
    folder = tmp_path_factory.mktemp("videos")
    for number in range(6):
        frames = np.zeros((40, 32, 32, 3), np.uint8)
        frames[..., 0] = 40 * number
        frames[..., 1] = 6 * np.arange(40)[:, None, None]
        frames[:, :, 16:, 2] = 200
        write_video(folder / f"{number}.mp4", frames, 25)
    (folder / "6.mp4").write_bytes(b"not a video")
    return folder


@pytest.fixture
def videos(folder):
    return read_videos([folder])


def config(batch_size=4, **data):
    model = VideoMAEConfig(image_size=32, num_frames=4)
    return PretrainConfig(
        model, DataConfig(**{"sampling_rate": 3, "num_workers": 0} | data), batch_size=batch_size
    )


def contents(batch):
    return (
        batch.step,
        batch.video.tobytes(),
        batch.record_ids.tolist(),
        [(failure.path, failure.reason, failure.error) for failure in batch.failures],
        batch.attempts,
    )


def which_video(batch):
    return np.rint(batch.video[:, 0, 4:, 4, 0].mean(axis=1) / 40).astype(int)


@pytest.mark.parametrize("num_workers", [2, 3])
def test_workers_and_a_restart_change_nothing(videos, num_workers):
    expected = [contents(batch) for batch in batches(videos, config(num_sample=2, flip=True), 0, 5)]
    assert sum(len(failures) for *_, failures, _ in expected) > 0
    with_workers = config(num_sample=2, flip=True, num_workers=num_workers)
    assert [contents(batch) for batch in batches(videos, with_workers, 2, 5)] == expected[2:]
    assert not multiprocessing.active_children()


def test_batches_hold_what_they_say(videos):
    steps = list(batches(videos, config(num_sample=2), 3, 6))
    assert [batch.step for batch in steps] == [3, 4, 5]
    for batch in steps:
        assert batch.video.shape == (8, 4, 32, 32, 3)
        assert batch.video.dtype == np.uint8
        np.testing.assert_array_equal(which_video(batch), batch.record_ids)
        np.testing.assert_array_equal(batch.record_ids[::2], batch.record_ids[1::2])
        assert batch.weights.tolist() == [1] * 8
        assert batch.attempts == 4 + len(batch.failures)
        # Frames are three apart: 18 in the green channel.
        steps_between = np.diff(batch.video[..., 1].astype(int).mean(axis=(2, 3)), axis=1)
        np.testing.assert_allclose(steps_between, 18, atol=4)


def test_two_clips_of_one_video_differ(videos):
    (batch,) = batches(videos[:1], config(1, num_sample=6), 0, 1)
    assert len({clip.tobytes() for clip in batch.video}) > 1


def test_hosts_together_read_what_one_reads(videos):
    (one,) = batches(videos, config(6), 4, 5)
    shares = [next(iter(batches(videos, config(6), 4, 5, host, 3))) for host in range(3)]
    np.testing.assert_array_equal(np.concatenate([share.video for share in shares]), one.video)
    assert [failure for share in shares for failure in share.failures] == one.failures
    with pytest.raises(ValueError, match="cannot be shared evenly by 4 hosts"):
        next(batches(videos, config(6), 0, 1, 0, 4))


def test_an_epoch_reads_every_video_once(videos):
    assert steps_per_epoch(6, 2) == 3
    for epoch in range(3):
        read = [batch.record_ids for batch in batches(videos[:6], config(2), 3 * epoch, 3 * epoch + 3)]
        assert sorted(np.concatenate(read)) == list(range(6))


def test_a_batch_larger_than_the_list_reads_all_before_any_twice(videos):
    assert steps_per_epoch(6, 16) == 1
    (batch,) = batches(videos[:6], config(16), 7, 8)
    assert sorted(batch.record_ids[:6]) == sorted(batch.record_ids[6:12]) == list(range(6))
    assert len(set(batch.record_ids[12:])) == 4


def test_order_changes_with_seed_epoch_and_turn():
    def order(seed, epoch, turn):
        return tuple(video_of_slot(50, seed, epoch, 50 * turn + place) for place in range(50))

    orders = {order(seed, epoch, turn) for seed in range(3) for epoch in range(3) for turn in range(3)}
    assert len(orders) == 27
    assert all(sorted(found) == list(range(50)) for found in orders)


def test_the_draws_are_those_of_earlier_versions():
    """A run that continues under another version of numpy or of this package must go on with its data."""
    assert [video_of_slot(10, 0, 1, place) for place in range(10)] == [5, 2, 6, 8, 1, 3, 4, 7, 0, 9]
    drawn = [substitute([3], 10, np.random.default_rng([2, 0, 1, place, 1])) for place in range(6)]
    assert drawn == [4, 0, 5, 7, 9, 1]


def test_substitutes_are_any_but_those_tried():
    rng = np.random.default_rng(0)
    assert {substitute([4, 1], 6, rng) for _ in range(200)} == {0, 2, 3, 5}
    assert substitute([0, 1, 2], 4, rng) == 3


def test_a_bad_video_is_replaced_and_named(videos, folder):
    seen = list(batches(videos, config(7), 0, 3))
    for batch in seen:
        (failure,) = batch.failures
        assert failure.path == str(folder / "6.mp4")
        assert failure.reason == "not-a-video"
        assert failure.error.startswith(f"{failure.path}: not-a-video: ")
        assert set(batch.record_ids) == set(range(6))
        assert (len(batch.video), batch.attempts) == (7, 8)


def test_nothing_but_bad_videos_is_an_error(videos):
    with pytest.raises(RunError, match=r"none of the 1 videos tried for one place in step 2 could be read"):
        next(batches(videos[6:], config(num_workers=1), 2, 3))
    missing = tuple(VideoRecord(f"/nowhere/{number}.mp4", "") for number in range(30))
    with pytest.raises(RunError, match=r"none of the 20 videos tried .*/nowhere/\d+\.mp4: missing"):
        next(batches(missing, config(), 0, 1))


def test_segments_are_kept_to(folder):
    path = str(folder / "2.mp4")
    record = VideoRecord(path, "", None, 10, 13)
    for batch in islice(batches((record,), config(4), 0, 20), 5):
        first = batch.video[:, 0, ..., 1].mean(axis=(1, 2)) / 6
        last = batch.video[:, -1, ..., 1].mean(axis=(1, 2)) / 6
        assert first.min() > 9
        assert last.max() < 23
    with pytest.raises(RunError, match="segment-outside"):
        next(batches((VideoRecord(path, "", None, 40, 5),), config(), 0, 1))


def test_flipping_mirrors_about_half(videos):
    (batch,) = batches(videos[:6], config(60, flip=True, crop_scales=(1.0,)), 0, 1)
    mirrored = batch.video[:, 0, :, :16, 2].mean(axis=(1, 2)) > 100
    assert 15 < mirrored.sum() < 45
    (batch,) = batches(videos[:6], config(60, crop_scales=(1.0,)), 0, 1)
    assert not (batch.video[:, 0, :, :16, 2].mean(axis=(1, 2)) > 100).any()


@pytest.mark.parametrize("num_workers", [0, 2])
def test_validation_reads_every_video_once(videos, folder, num_workers):
    seen = list(validation_batches(videos, config(5, num_sample=3, num_workers=num_workers)))
    assert [batch.step for batch in seen] == [0, 1]
    assert [batch.record_ids.tolist() for batch in seen] == [[0, 1, 2, 3, 4], [5, -1, -1, -1, -1]]
    assert [batch.weights.tolist() for batch in seen] == [[1] * 5, [1, 0, 0, 0, 0]]
    assert [failure.path for batch in seen for failure in batch.failures] == [str(folder / "6.mp4")]
    assert [batch.attempts for batch in seen] == [5, 2]
    with open_video(videos[1].path) as video:
        np.testing.assert_array_equal(seen[0].video[1], video.frames([14, 17, 20, 23]))


def test_validation_fits_the_memory_of_a_part_of_a_batch(videos):
    settings = config(4)
    settings = replace(settings, optim=replace(settings.optim, accumulation_steps=2))
    assert [len(batch.video) for batch in validation_batches(videos, settings)] == [2] * 4


CONSUMER = """
import signal, sys
from contextlib import closing
from videomae_jax.config import DataConfig, PretrainConfig, VideoMAEConfig
from videomae_jax.data.pipeline import batches
from videomae_jax.data.sources import read_videos

if __name__ == "__main__":
    config = PretrainConfig(
        VideoMAEConfig(image_size=32, num_frames=4), DataConfig(sampling_rate=3, num_workers=2), batch_size=4
    )
    stop = []
    signal.signal(signal.SIGINT, lambda *_: stop.append(True))
    with closing(batches(read_videos([sys.argv[1]]), config, 0, 10**9)) as read:
        for batch in read:
            print("batch", flush=True)
            if stop:
                break
"""


def children(pid):
    for task in Path(f"/proc/{pid}/task").iterdir():
        yield from map(int, (task / "children").read_text().split())


def is_worker(pid):
    try:
        return b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's /proc to see processes")
@pytest.mark.parametrize("ending", ["trainer killed", "worker killed", "Ctrl-C"])
def test_however_it_ends_no_process_stays(folder, tmp_path, ending):
    script = tmp_path / "consume.py"
    script.write_text(CONSUMER)
    process = subprocess.Popen(
        [sys.executable, str(script), str(folder)],
        env=os.environ | {"PYTHONPATH": str(Path(slots.__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout.readline() == "batch\n"
    workers = [pid for pid in children(process.pid) if is_worker(pid)]
    assert len(workers) == 2
    if ending == "Ctrl-C":
        os.killpg(process.pid, signal.SIGINT)
    else:
        os.kill(process.pid if ending == "trainer killed" else workers[1], signal.SIGKILL)
    _, errors = process.communicate(timeout=30)
    deadline = time.monotonic() + 10
    while any(is_worker(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(is_worker(pid) for pid in workers)
    if ending == "worker killed":
        assert "RunError: a data worker process died" in errors
        assert "exit code -9" in errors
    if ending == "Ctrl-C":
        assert process.returncode == 0
        assert "Traceback" not in errors, errors
