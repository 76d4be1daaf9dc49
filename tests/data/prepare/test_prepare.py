"""Preparing a set: what is stored, what is left out, and that the bytes depend on nothing else."""

import csv
import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image

from videomae_jax.data.prepare import command, shard_size
from videomae_jax.data.prepare.command import Prepare, prepare
from videomae_jax.data.prepare.recode import Recode, Recoded
from videomae_jax.data.prepare.settings import PRESETS, Storage
from videomae_jax.data.records import VideoRecord
from videomae_jax.data.sets import SetVideo, open_record, read_label, read_set
from videomae_jax.data.video import VideoError, open_video
from videomae_jax.data.video.writing import write_video
from videomae_jax.errors import InputError, RunError


def moving_square(frames=24, height=48, width=64, seed=0):
    """A dim gradient with a bright square that moves: every frame differs from every other."""
    shade = np.linspace(0, 40 + 20 * seed, width, dtype=np.uint8)
    clip = np.broadcast_to(shade[None, None, :, None], (frames, height, width, 3)).copy()
    for index, frame in enumerate(clip):
        x = index * (width - 16) // frames
        frame[8:24, x : x + 16] = 120 + 5 * index
    return clip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two classes of small videos, of which one is no video and one is empty."""
    folder = tmp_path_factory.mktemp("videos")
    for number in range(7):
        path = folder / ("run" if number % 2 else "jump") / f"{number}.mp4"
        path.parent.mkdir(exist_ok=True)
        write_video(path, moving_square(20 + number, 48 + number, 64, number), 12.5)
    (folder / "run" / "broken.mp4").write_bytes(b"hello" * 99)
    (folder / "jump" / "empty.mp4").write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def prepared(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("set") / "small_set" / "2.1.0"
    assert prepare(Prepare((str(folder),), out, videos_per_shard=4, num_workers=2)) == 0
    return out


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's /proc to see what is open")
def test_the_work_folder_goes_where_open_files_keep_a_name(tmp_path, monkeypatch):
    """Network file systems rename what is removed while it is open, so that its folder is not empty."""
    rmdir, held = os.rmdir, []

    def rmdir_of_a_network(path, **kwargs):
        for number in os.listdir("/proc/self/fd"):
            with suppress(OSError):  # That of the list itself is closed.
                held.append(os.readlink(f"/proc/self/fd/{number}"))
        if any(file.endswith("/.prepare/.lock (deleted)") for file in held):
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), path)
        rmdir(path, **kwargs)

    write_video(tmp_path / "a.mp4", moving_square(), 12.5)
    monkeypatch.setattr(os, "rmdir", rmdir_of_a_network)
    assert prepare(Prepare((str(tmp_path / "a.mp4"),), tmp_path / "set", num_workers=1)) == 0
    assert held
    assert (tmp_path / "set/card.json").exists()
    assert not (tmp_path / "set/.prepare").exists()


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def recode(path, **storage):
    record = VideoRecord(str(path), "name")
    return Recode(Storage(**({"form": "video", "short_side": 0} | storage)))(record)


def read_back(recoded, **settings):
    """The stored video as a set gives it."""
    assert isinstance(recoded, Recoded)
    example = {"timestamps_us": np.rint(recoded.timestamps * 1e6), "num_runs": recoded.num_runs}
    example |= {"frames": recoded.frames} if recoded.frames else {"video": recoded.video}
    return SetVideo("set", example, **settings)


def test_every_good_video_is_stored_and_every_bad_one_named(folder, prepared):
    records, classes = read_set(prepared)
    assert classes == ("jump", "run")
    expected = [f"jump/{n}.mp4" for n in (0, 2, 4, 6)] + [f"run/{n}.mp4" for n in (1, 3, 5)]
    assert [record.name for record in records] == expected
    assert [record.label for record in records] == [0] * 4 + [1] * 3
    bad = (prepared / "bad.csv").read_text().splitlines()[1:]
    assert [line.split(",")[:3] for line in bad] == [
        ["train", "jump/empty.mp4", "empty"],
        ["train", "run/broken.mp4", "not-a-video"],
    ]
    for record in records:
        with open_record(record) as stored, open_video(folder / record.name) as source:
            np.testing.assert_allclose(stored.timestamps, source.timestamps, atol=1e-6)
            assert read_label(record) == record.label
            frames = source.frames(range(len(source.timestamps)))
            found = stored.frames(range(len(frames)))
        height = frames.shape[1] // 2 * 2
        assert found.shape[1] in (height, height + 2)
        if frames.shape == found.shape:
            assert np.abs(found.astype(int) - frames).mean() < 3


def test_the_card_tells_counts_checksums_and_settings(prepared):
    import hashlib

    card = json.loads((prepared / "card.json").read_text())
    train = card["splits"]["train"]
    assert (card["name"], card["version"]) == ("small_set", "2.1.0")
    assert (train["videos"], train["stored"], train["frames"]) == (9, 7, sum(range(20, 27)))
    assert train["bad"] == {"empty": 1, "not-a-video": 1}
    assert train["videos_of_class"] == {"jump": 4, "run": 3}
    for shard in train["shards"]:
        content = (prepared / shard["file"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == shard["sha256"]
    assert card["storage"]["short_side"] == PRESETS["kinetics"].short_side
    assert "| train | 7 | 2 | 0 |" in (prepared / "README.md").read_text()


def test_tensorflow_datasets_reads_the_set_without_tensorflow(prepared):
    program = f"""
import sys
from videomae_jax.data.tfds import tfds
builder = tfds.builder_from_directory({str(prepared)!r})
assert builder.info.full_name == "small_set/2.1.0", builder.info.full_name
assert builder.info.features["label"].names == ["jump", "run"]
source = builder.as_data_source("train")
assert len(source) == 7 and source[6]["name"] == b"run/5.mp4" and source[6]["label"] == 1
data_dir = {str(prepared.parents[1])!r}
assert tfds.data_source("small_set", split="train", data_dir=data_dir)[0]["video"][4:8] == b"ftyp"
from videomae_jax.data.sets import open_record, read_set, read_label
from videomae_jax.data.prepare import beam, command
with open_record(read_set({str(prepared)!r})[0][2]) as video:
    video.frames([3])
sys.exit("tensorflow" in sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_bytes_depend_on_the_videos_and_settings_alone(folder, prepared, tmp_path):
    out = tmp_path / "small_set" / "2.1.0"
    assert prepare(Prepare((str(folder),), out, videos_per_shard=4, num_workers=1)) == 0
    assert contents(out) == contents(prepared)
    assert prepare(Prepare((str(folder),), out, videos_per_shard=4, num_workers=1)) == 0
    assert contents(out) == contents(prepared)


def run_until_killed(folder, out, seconds):
    """Start the command, kill it and see that its workers go with it; whether it was done before."""
    command = [sys.executable, "-m", "videomae_jax.cli", "prepare", str(folder), "--out", str(out)]
    command += ["--videos-per-shard", "2", "--num-workers", "2"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        process.wait(seconds)
        assert process.returncode == 0
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        return False
    return True


def test_shards_have_as_many_videos_as_make_their_size(folder, tmp_path, monkeypatch):
    args = Prepare((str(folder),), tmp_path / "set", num_workers=2)
    monkeypatch.setattr(shard_size, "SHARD_BYTES", 12_000)
    with monkeypatch.context() as patch:
        patch.setattr(command, "_finish", Mock(side_effect=KeyboardInterrupt))
        assert prepare(args) == 130
    begun = {path: path.stat().st_mtime_ns for path in args.out.glob("*.array_record-*")}
    monkeypatch.setattr(shard_size, "SHARD_BYTES", 1)
    assert prepare(args) == 0  # As it was begun.
    assert begun == {path: path.stat().st_mtime_ns for path in args.out.glob("*.array_record-*")}
    card = json.loads((args.out / "card.json").read_text())
    train = card["splits"]["train"]
    assert len(train["shards"]) == len(begun) == -(-9 // card["videos_per_shard"])
    rows = csv.DictReader((args.out / "videos.csv").read_text().splitlines())
    mean = np.mean([int(row["bytes"]) for row in rows])
    assert card["videos_per_shard"] == pytest.approx(12_000 / mean, rel=0.3)
    assert len(begun) > 1
    assert prepare(args) == 0  # It is complete.
    assert prepare(replace(args, out=tmp_path / "large", videos_per_shard=None)) == 0
    assert len(list((tmp_path / "large").glob("*.array_record-*"))) == 9


def test_a_killed_run_continues_to_the_same_bytes(folder, tmp_path):
    undisturbed, out = tmp_path / "a" / "set", tmp_path / "b" / "set"
    assert run_until_killed(folder, undisturbed, None)
    command = [sys.executable, "-m", "videomae_jax.cli", "prepare", str(folder), "--out", str(out)]
    command += ["--videos-per-shard", "2", "--num-workers", "2"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not list(out.glob("*.array_record-*")):
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert not (out / "dataset_info.json").exists()
    with pytest.raises(InputError, match="has not finished"):
        read_set(out)
    begun = {path.name: path.stat().st_mtime_ns for path in out.glob("*.array_record-*")}
    assert begun
    assert run_until_killed(folder, out, None)
    assert contents(out) == contents(undisturbed)
    after = {path.name: path.stat().st_mtime_ns for path in out.glob("*.array_record-*")}
    assert begun.items() <= after.items()  # Finished shards are kept, not written again.


@pytest.mark.chaos
def test_five_kills_at_random_moments(real_videos, tmp_path):
    began = time.monotonic()
    assert run_until_killed(real_videos, tmp_path / "a" / "set", None)
    whole = time.monotonic() - began
    rng = random.Random(int(os.environ.get("CHAOS_SEED", str(time.time_ns()))))
    undisturbed, out, moments = tmp_path / "a" / "set", tmp_path / "b" / "set", []
    while len(moments) < 5:
        seconds = rng.uniform(0.2, 1.0) * whole
        if run_until_killed(real_videos, out, seconds):
            shutil.rmtree(out)  # It was quicker.
            continue
        moments.append(round(seconds, 2))
        names = set(contents(out)) if out.exists() else set()
        if "dataset_info.json" in names:
            assert {name for name in contents(undisturbed) if ".array_record" in name} <= names
    print("killed after", moments, "of", round(whole, 2), "seconds")
    assert run_until_killed(real_videos, out, None)
    assert contents(out) == contents(undisturbed)


def test_a_kill_after_the_card_leaves_a_set_that_is_complete(folder, prepared, tmp_path):
    out = tmp_path / "small_set" / "2.1.0"
    shutil.copytree(prepared, out)
    (out / ".prepare").mkdir()
    (out / ".prepare" / "plan.json").write_text("{}")
    assert prepare(Prepare((str(folder),), out, videos_per_shard=4)) == 0
    assert contents(out) == contents(prepared)


def test_other_settings_or_files_in_the_folder_are_refused(folder, prepared, tmp_path):
    with pytest.raises(InputError, match=r"prepared with other settings: storage was .*\"crf\": 20.* is now"):
        prepare(Prepare((str(folder),), prepared, videos_per_shard=4, crf=25))
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds other files"):
        prepare(Prepare((str(folder),), tmp_path))
    with pytest.raises(InputError, match="name the videos"):
        prepare(Prepare((), tmp_path / "x"))


def test_a_set_of_bad_videos_alone_is_an_error(folder, tmp_path):
    (tmp_path / "list.txt").write_text(f"{folder}/run/broken.mp4\n{folder}/nowhere.mp4\n")
    with pytest.raises(RunError, match="no video of the split train can be stored: 1 missing, 1 not-a-video"):
        prepare(Prepare((str(tmp_path / "list.txt"),), tmp_path / "out", num_workers=1))


def test_splits_share_one_order_of_classes(folder, tmp_path, caplog):
    for split, names in {"train": ("b", "c", "d"), "val": ("c", "d")}.items():
        for name in names:
            (tmp_path / split / name).mkdir(parents=True)
            (tmp_path / split / name / "x.mp4").write_bytes((folder / "run" / "1.mp4").read_bytes())
    args = Prepare((str(tmp_path / "train"),), tmp_path / "out", val=(str(tmp_path / "val"),), num_workers=1)
    assert prepare(args) == 0
    records, classes = read_set(tmp_path / "out", "val")
    assert [classes[record.label] for record in records] == ["c", "d"]
    with pytest.raises(InputError, match="no split 'test', but train, val"):
        read_set(tmp_path / "out", "test")
    assert "among those to train on" not in caplog.text
    assert prepare(replace(args, out=tmp_path / "same", val=args.sources)) == 0
    assert "3 of the 3 val videos are among those to train on, such as" in caplog.text
    (tmp_path / "val" / "a").mkdir()
    (tmp_path / "val" / "a" / "x.mp4").write_bytes(b"")
    with pytest.raises(InputError, match=r"'a' is not the name of a class; known are 'b', 'c', 'd'"):
        prepare(Prepare((str(tmp_path / "train"),), tmp_path / "o", val=(str(tmp_path / "val"),)))


def test_videos_with_too_many_pixels_are_left_out(folder, tmp_path):
    args = Prepare((str(folder),), tmp_path / "set", num_workers=1, max_pixels=51 * 64)
    assert prepare(args) == 0
    left_out = (tmp_path / "set" / "bad.csv").read_text()
    assert left_out.count("too-large") == 3
    assert len(read_set(tmp_path / "set")[0]) == 4


def test_folders_of_images_are_videos(tmp_path):
    clip = moving_square(12)
    for name in ("run/a", "jump/b"):
        (tmp_path / "frames" / name).mkdir(parents=True)
        for index, frame in enumerate(clip):
            Image.fromarray(frame).save(tmp_path / "frames" / name / f"img_{index + 1}.png")
            Image.fromarray(frame).save(tmp_path / "frames" / name / f"flow_x_{index + 1}.png")
    args = Prepare(
        (str(tmp_path / "frames"),), tmp_path / "out", preset="small", image_fps=10.0, num_workers=1
    )
    assert prepare(args) == 0
    records, classes = read_set(tmp_path / "out")
    assert [(record.name, classes[record.label]) for record in records] == [
        ("jump/b", "jump"),
        ("run/a", "run"),
    ]
    with open_record(records[1]) as video:
        np.testing.assert_allclose(video.timestamps, np.arange(12) / 10)
        assert np.abs(video.frames(range(12)).astype(int) - clip).mean() < 3
    pixels = clip[0].shape[0] * clip[0].shape[1]
    assert recode(tmp_path / "frames" / "run" / "a", max_pixels=pixels - 1).reason == "too-large"
    stored = recode(tmp_path / "frames" / "run" / "a", form="jpeg", max_pixels=pixels)
    with pytest.raises(VideoError, match="too-large: frame 0 of"):
        read_back(stored, max_pixels=pixels - 1).frames([0])
    (tmp_path / "frames" / "run" / "a" / "img_5.png").write_bytes(b"not an image")
    found = recode(tmp_path / "frames" / "run" / "a")
    assert isinstance(found, VideoError)
    assert found.reason == "damaged"
    assert "img_5.png" in found.detail


def test_all_real_clips(real_videos, tmp_path):
    sources = tuple(str(real_videos / name) for name in ("action", "edge", "bad"))
    assert prepare(Prepare(sources, tmp_path / "out", short_side=64)) == 0
    card = json.loads((tmp_path / "out" / "card.json").read_text())["splits"]["train"]
    assert (card["videos"], card["stored"], card["damaged"]) == (36, 32, 2)
    assert card["bad"] == {"empty": 1, "no-frames": 1, "not-a-video": 1, "pointer": 1}
    for record in read_set(tmp_path / "out")[0]:
        (path,) = real_videos.glob(f"*/{record.name}")
        with open_record(record) as stored, open_video(path) as source:
            assert (np.diff(stored.timestamps) > 0).all()
            if record.name.startswith("bad"):  # Some frames do not decode.
                gaps = np.abs(stored.timestamps[:, None] - source.timestamps).min(axis=1)
                assert gaps.max() < 1e-6
            else:
                np.testing.assert_allclose(stored.timestamps, source.timestamps, atol=1e-6)
            last = len(stored.timestamps) - 1
            assert len(stored.frames([0, last // 2, last])) == 3


def test_beam_writes_the_same_shards(folder, prepared, tmp_path):
    pytest.importorskip("apache_beam", reason="needs the extra `beam`")
    out = tmp_path / "small_set" / "2.1.0"
    args = Prepare((str(folder),), out, videos_per_shard=4, beam=("runner=DirectRunner",))
    assert prepare(args) == 0
    assert contents(out) == contents(prepared)


def test_paths_in_the_set_do_not_depend_on_the_machine(prepared):
    text = b"".join(content for name, content in contents(prepared).items() if not name.endswith(".csv"))
    assert str(Path(prepared).parents[2]).encode() not in text
