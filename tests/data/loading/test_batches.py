"""Batches as pure functions of the step: any number of workers and hosts, any start, bad videos or not."""

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from videomae_jax.config import DataConfig, LabelledDataConfig, VideoMAEConfig, ViewsConfig
from videomae_jax.data.clips.readers import FinetuneClips, PretrainClips, centre_view
from videomae_jax.data.clips.readers import TestViews as Views
from videomae_jax.data.loading.batches import batches, each_video
from videomae_jax.data.loading.order import steps_per_epoch, substitute, video_of_slot
from videomae_jax.data.records import VideoRecord
from videomae_jax.data.sources import read_videos
from videomae_jax.data.video import open_video
from videomae_jax.data.video.writing import write_video
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


MODEL = VideoMAEConfig(image_size=32, num_frames=4)


def clips(**data):
    return PretrainClips(MODEL, DataConfig(sampling_rate=3, **data))


def labelled_clips(**data):
    return FinetuneClips(MODEL, LabelledDataConfig(sampling_rate=3, canvas=(24, 40), **data))


CENTRE = centre_view(MODEL, DataConfig(sampling_rate=3))


def training(videos, start, stop, read=None, **settings):
    defaults = {"seed": 0, "batch_size": 4, "num_workers": 0, "start_step": start, "stop_step": stop}
    return batches(videos, read or clips(), **defaults | settings)


def contents(batch):
    return (
        batch.step,
        {name: values.tobytes() for name, values in batch.arrays.items()},
        batch.record_ids.tolist(),
        [(failure.path, failure.reason, failure.error) for failure in batch.failures],
        batch.attempts,
    )


def which_video(batch):
    return np.rint(batch.arrays["video"][:, 0, 4:, 4, 0].mean(axis=1) / 40).astype(int)


READERS = [clips(num_sample=2, flip=True), labelled_clips(), labelled_clips(sampling="uniform")]


@pytest.mark.parametrize(("num_workers", "read"), list(zip([1, 2, 4], READERS, strict=True)))
def test_workers_and_a_restart_change_nothing(videos, num_workers, read):
    expected = [contents(batch) for batch in training(videos, 0, 5, read)]
    assert sum(len(failures) for *_, failures, _ in expected) > 0
    with_workers = training(videos, 2, 5, read, num_workers=num_workers)
    assert [contents(batch) for batch in with_workers] == expected[2:]


def test_the_seed_decides_what_is_read_and_drawn(videos):
    drawn = [next(training(videos[:1], 0, 1, read, seed=seed)) for read in READERS for seed in (0, 1)]
    assert len({batch.arrays["video"].tobytes() for batch in drawn}) == 6


def test_batches_hold_what_they_say(videos):
    steps = list(training(videos, 3, 6, clips(num_sample=2)))
    assert [batch.step for batch in steps] == [3, 4, 5]
    for batch in steps:
        video = batch.arrays["video"]
        assert video.shape == (8, 4, 32, 32, 3)
        assert video.dtype == np.uint8
        np.testing.assert_array_equal(which_video(batch), batch.record_ids)
        np.testing.assert_array_equal(batch.record_ids[::2], batch.record_ids[1::2])
        assert batch.weights.tolist() == [1] * 8
        assert batch.attempts == 4 + len(batch.failures)
        # Frames are three apart: 18 in the green channel.
        steps_between = np.diff(video[..., 1].astype(int).mean(axis=(2, 3)), axis=1)
        np.testing.assert_allclose(steps_between, 18, atol=4)


def test_clips_of_one_video_are_crops_of_the_same_frames(videos):
    """The green of a pixel tells its frame."""
    (batch,) = training(videos[:1], 0, 1, clips(num_sample=6, flip=True), batch_size=1)
    video = batch.arrays["video"]
    assert len({clip.tobytes() for clip in video}) > 1
    np.testing.assert_allclose(np.ptp(video[:, :, 8:24, 8:24, 1].mean(axis=(2, 3)), axis=0), 0, atol=3)
    starts = {
        int(next(training(videos[:1], n, n + 1, batch_size=1)).arrays["video"][0, 0, 8, 8, 1])
        for n in range(9)
    }
    assert len(starts) > 3


def joined(shares):
    """The batch of all hosts together."""
    arrays = [share.arrays for share in shares]
    return (
        shares[0].step,
        {name: np.concatenate([each[name] for each in arrays]).tobytes() for name in arrays[0]},
        [record for share in shares for record in share.record_ids.tolist()],
        [(f.path, f.reason, f.error) for share in shares for f in share.failures],
        sum(share.attempts for share in shares),
    )


@pytest.mark.parametrize("hosts", [2, 4])
@pytest.mark.parametrize("read", READERS)
def test_hosts_together_read_what_one_reads(videos, hosts, read):
    (one,) = training(videos, 4, 5, read, batch_size=8)
    share = {"batch_size": 8, "process_count": hosts}
    shares = [next(training(videos, 4, 5, read, **share, process_index=host)) for host in range(hosts)]
    assert joined(shares) == contents(one)


def test_hosts_share_evenly(videos):
    with pytest.raises(ValueError, match="batch_size=6 cannot be shared evenly by 4 hosts"):
        next(training(videos, 0, 1, batch_size=6, process_count=4))


def test_an_epoch_reads_every_video_once(videos):
    assert steps_per_epoch(6, 2) == 3
    for epoch in range(3):
        read = [batch.record_ids for batch in training(videos[:6], 3 * epoch, 3 * epoch + 3, batch_size=2)]
        assert sorted(np.concatenate(read)) == list(range(6))


def test_a_batch_larger_than_the_list_reads_all_before_any_twice(videos):
    assert steps_per_epoch(6, 16) == 1
    (batch,) = training(videos[:6], 7, 8, batch_size=16)
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
    seen = list(training(videos, 0, 3, batch_size=7))
    for batch in seen:
        (failure,) = batch.failures
        assert failure.path == str(folder / "6.mp4")
        assert failure.reason == "not-a-video"
        assert failure.error.startswith(f"{failure.path}: not-a-video: ")
        assert set(batch.record_ids) == set(range(6))
        assert (len(batch.arrays["video"]), batch.attempts) == (7, 8)


def test_nothing_but_bad_videos_is_an_error(videos):
    with pytest.raises(RunError, match=r"none of the 1 videos tried for one place in step 2 could be read"):
        next(training(videos[6:], 2, 3, num_workers=1))
    missing = tuple(VideoRecord(f"/nowhere/{number}.mp4", "") for number in range(30))
    with pytest.raises(RunError, match=r"none of the 20 videos tried .*/nowhere/\d+\.mp4: missing"):
        next(training(missing, 0, 1))


def test_segments_are_kept_to(folder):
    path = str(folder / "2.mp4")
    record = VideoRecord(path, "", None, 10, 13)
    for read in READERS:
        for batch in islice(training((record,), 0, 20, read), 5):
            video = batch.arrays["video"][:, :, :24, :24, 1]
            first, last = video[:, 0].mean(axis=(1, 2)) / 6, video[:, -1].mean(axis=(1, 2)) / 6
            assert first.min() > 9
            assert last.max() < 23
    with pytest.raises(RunError, match="segment-outside"):
        next(training((VideoRecord(path, "", None, 40, 5),), 0, 1))


def test_flipping_mirrors_about_half(videos):
    def mirrored(flip):
        (batch,) = training(videos[:6], 0, 1, clips(flip=flip, crop_scales=(1.0,)), batch_size=60)
        return (batch.arrays["video"][:, 0, :, :16, 2].mean(axis=(1, 2)) > 100).sum()

    assert 15 < mirrored(True) < 45
    assert mirrored(False) == 0


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_pass_reads_every_video_once(videos, folder, num_workers):
    seen = list(each_video(videos, CENTRE, batch_size=5, num_workers=num_workers))
    assert [batch.step for batch in seen] == [0, 1]
    assert [batch.record_ids.tolist() for batch in seen] == [[0, 1, 2, 3, 4], [5, -1, -1, -1, -1]]
    assert [batch.weights.tolist() for batch in seen] == [[1] * 5, [1, 0, 0, 0, 0]]
    assert [failure.path for batch in seen for failure in batch.failures] == [str(folder / "6.mp4")]
    assert [batch.attempts for batch in seen] == [5, 2]
    with open_video(videos[1].path) as video:
        np.testing.assert_array_equal(seen[0].arrays["video"][1], video.frames([14, 17, 20, 23]))
    assert not seen[1].arrays["video"][1:].any()


@pytest.mark.parametrize("batch_size", [4, 8])
@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_a_pass_reads_every_video_once_however_many_hosts(videos, folder, hosts, batch_size):
    views = Views(MODEL, LabelledDataConfig(sampling_rate=3), ViewsConfig(num_segments=2, num_crops=3))
    (one,) = each_video(videos, views, batch_size=8, num_workers=0)
    assert one.record_ids.reshape(8, 6).tolist() == [[n] * 6 for n in (0, 1, 2, 3, 4, 5, -1, -1)]
    expected = one.arrays["video"].reshape(8, 6, -1)
    seen, failures = [], []
    for host in range(hosts):
        share = {"process_index": host, "process_count": hosts, "num_workers": 0}
        read = list(each_video(videos, views, batch_size=batch_size, **share))
        assert len(read) == 8 // batch_size
        for batch in read:
            ids = batch.record_ids.reshape(-1, 6)[:, 0]
            video = batch.arrays["video"].reshape(-1, 6, expected.shape[2])
            np.testing.assert_array_equal(video, expected[ids])  # The last one, at -1, is empty.
            seen += ids[ids >= 0].tolist()
            failures += batch.failures
    assert sorted(seen) == list(range(6))
    assert [failure.path for failure in failures] == [str(folder / "6.mp4")]


def test_labels_come_with_the_videos(videos):
    labelled = [replace(video, label=number * 10) for number, video in enumerate(videos)]
    (batch,) = training(tuple(labelled), 0, 1, labelled_clips())
    assert batch.arrays["label"].tolist() == (10 * batch.record_ids).tolist()
    assert batch.arrays["label"].dtype == np.int32
    (batch,) = each_video((*labelled[:2], videos[2]), CENTRE, batch_size=4, num_workers=0)
    assert batch.arrays["label"].tolist() == [0, 10, -1, 0]


class Counted:
    """A reader that counts what it has read."""

    def __init__(self):
        self.count = 0

    def blank(self):
        return {"video": np.zeros((1, 1), np.uint8)}

    def __call__(self, record, key):
        self.count += 1
        return self.blank()


def test_the_next_batch_is_put_together_while_one_is_used(videos):
    read = Counted()
    with closing(
        batches(videos, read, seed=0, batch_size=4, num_workers=0, start_step=0, stop_step=9)
    ) as made:
        next(made)
        deadline = time.monotonic() + 10
        while read.count < 8 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)
        assert read.count == 8, "the batch taken and one more"


CONSUMER = """
import signal, sys
from contextlib import closing
from videomae_jax.config import DataConfig, VideoMAEConfig
from videomae_jax.data.clips.readers import PretrainClips
from videomae_jax.data.loading.batches import batches
from videomae_jax.data.sources import read_videos

if __name__ == "__main__":
    read_clips = PretrainClips(VideoMAEConfig(image_size=32, num_frames=4), DataConfig(sampling_rate=3))
    videos = read_videos([sys.argv[1]])
    steps = {"start_step": 0, "stop_step": 10**9}
    stop = []
    signal.signal(signal.SIGINT, lambda *_: stop.append(True))
    with closing(batches(videos, read_clips, seed=0, batch_size=4, num_workers=2, **steps)) as read:
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
        return b"videomae_jax.data.loading.process" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's /proc to see processes")
@pytest.mark.parametrize("ending", ["trainer killed", "worker killed", "Ctrl-C"])
def test_however_it_ends_no_process_stays(folder, tmp_path, ending):
    script = tmp_path / "consume.py"
    script.write_text(CONSUMER)
    process = subprocess.Popen(
        [sys.executable, str(script), str(folder)],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
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
        assert "WorkerDied: a worker process died" in errors
        assert "exit code -9" in errors
    if ending == "Ctrl-C":
        assert process.returncode == 0
        assert "Traceback" not in errors, errors
