"""Training batches from prepared sets: the same for any number of workers and hosts, and after a restart."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from videomae_jax.config import DataConfig, VideoMAEConfig, load_config
from videomae_jax.data import set_labels
from videomae_jax.data.clips.readers import PretrainClips, centre_view
from videomae_jax.data.labels import read_labelled, read_splits, read_videos_of_model
from videomae_jax.data.loading.batches import batches
from videomae_jax.data.overlap import shared_videos
from videomae_jax.data.prepare.command import prepare
from videomae_jax.data.prepare.settings import Prepare
from videomae_jax.data.sources import read_videos, split_weights
from videomae_jax.data.synthetic import MOTIONS, write_synthetic_videos
from videomae_jax.errors import InputError
from videomae_jax.inference.clip import read_clip
from videomae_jax.training.resolve import resolve_run

READ = PretrainClips(
    VideoMAEConfig(image_size=32, patch_size=8, num_frames=4), DataConfig(sampling_rate=2, num_sample=2)
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Generated videos, and two sets of them, as video and as JPEG frames."""
    folder = tmp_path_factory.mktemp("sets")
    write_synthetic_videos(folder / "videos", 2, 1, 1, side=32, num_frames=20)
    for name, preset in (("video", "kinetics"), ("jpeg", "small")):
        lists = [str(folder / f"videos/{split}.csv") for split in ("train", "val")]
        args = Prepare(
            (lists[0],),
            folder / name,
            val=(lists[1],),
            classes=folder / "videos/classes.txt",
            preset=preset,
            videos_per_shard=5,
            num_workers=2,
        )
        assert prepare(args) == 0
    return folder


def seen(videos, start=0, stop=6, num_workers=0, hosts=1, shares=()):
    """Record ids and pixels of each step, put together from all hosts."""
    parts = [
        batches(
            videos,
            READ,
            seed=5,
            batch_size=8,
            num_workers=num_workers,
            start_step=start,
            stop_step=stop,
            shares=shares,
            process_index=host,
            process_count=hosts,
        )
        for host in range(hosts)
    ]
    for step in zip(*parts, strict=True):
        yield (
            np.concatenate([batch.record_ids for batch in step]).tolist(),
            np.concatenate([batch.arrays["video"] for batch in step]),
        )


def assert_same(one, other):
    for (ids, video), (other_ids, other_video) in zip(one, other, strict=True):
        assert ids == other_ids
        np.testing.assert_array_equal(video, other_video)


@pytest.mark.parametrize("form", ["video", "jpeg"])
def test_workers_hosts_and_restarts_change_nothing(folder, form):
    videos = read_videos([str(folder / form)])
    assert len(videos) == 2 * len(MOTIONS)
    plain = list(seen(videos))
    assert_same(plain, seen(videos, num_workers=2))
    assert_same(plain, seen(videos, hosts=2))
    assert_same(plain[4:], seen(videos, start=4, hosts=4))


def test_a_set_gives_the_clips_of_its_files(folder):
    """The same records, frames and crops; pixels differ by what encoding again costs."""
    files = list(seen(read_videos([str(folder / "videos/train.csv")])))
    for form in ("video", "jpeg"):
        for (ids, video), (file_ids, file_video) in zip(
            seen(read_videos([str(folder / form)])), files, strict=True
        ):
            assert ids == file_ids
            assert np.abs(video.astype(int) - file_video).mean() < 5


def test_sets_lists_and_folders_mix_by_weight_and_class_name(folder):
    sources, weights = split_weights([f"{folder / 'jpeg'}:0.75", f"{folder / 'video'}#val:0.25"])
    videos, classes = read_labelled(sources)
    assert classes.names == tuple(MOTIONS)
    assert [video.label for video in videos] == list(range(8)) * 3
    shares = tuple(zip((16, 8), weights, strict=True))
    ids = [each for step_ids, _ in seen(videos, stop=3, shares=shares) for each in step_ids[::2]]
    assert sum(each < 16 for each in ids) == 18, "three quarters of the 24 videos of an epoch"
    assert_same(seen(videos, stop=4, shares=shares), seen(videos, stop=4, shares=shares, num_workers=2))


def test_a_set_without_a_split_means_the_one_for_its_use(folder):
    stored = str(folder / "jpeg")
    model = VideoMAEConfig(id2label=tuple(MOTIONS))
    assert {video.path.split("#")[1][:3] for video in read_videos([stored])} == {"tra"}
    assert {video.path.split("#")[1][:3] for video in read_videos([stored], split="val")} == {"val"}
    assert len(read_videos([stored], split=None)) == 3 * len(MOTIONS), "all of it"
    assert {video.path.split("#")[1][:3] for video in read_videos_of_model([stored], model).videos} == {"val"}
    named = read_videos_of_model([f"{stored}#train"], model).videos
    assert len(shared_videos(read_videos([stored]), named)) == len(named) == 2 * len(MOTIONS)
    config = load_config("tiny_finetune")
    data = replace(config.data, train=(stored,), val=(stored,), test=(f"{stored}#train",))
    plan = resolve_run(replace(config, data=data))
    assert (len(plan.videos), len(plan.val_videos)) == (2 * len(MOTIONS), len(MOTIONS))
    assert plan.overlap.startswith("16 of the 16 test videos are among those to train on")
    assert (plan.classes.names, plan.classes.origin) == (tuple(MOTIONS), f"named in {stored}")


@pytest.mark.parametrize("form", ["video", "jpeg"])
def test_features_and_clips_are_read_from_sets(folder, form):
    record = read_videos([str(folder / form)], split="val")[0]
    model = READ.model
    data = replace(load_config("tiny_finetune").data, sampling_rate=2)
    clips = centre_view(model, data)(record, None)["video"]
    assert clips.shape == (1, 4, 32, 32, 3)
    np.testing.assert_array_equal(read_clip(record.path, model, 2), clips[0])


@pytest.mark.parametrize("kept", [0.5, 0])
def test_a_set_that_was_not_copied_whole_is_refused(folder, tmp_path, kept):
    copy = shutil.copytree(folder / "jpeg", tmp_path / "copy")
    shard = sorted(copy.glob("*train.array_record*"))[0]
    content = shard.read_bytes()
    shard.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(InputError, match=f"has .* of the {len(content)} bytes that .*: copy it again"):
        read_videos([str(copy)])
    shard.unlink()
    with pytest.raises(InputError, match=f"has 0 of the {len(content)} bytes"):
        read_videos([str(copy)])


@pytest.fixture(scope="module")
def nameless(folder):
    """A set of a list without names of classes, and without a validation split."""
    args = Prepare((str(folder / "videos/train.csv"),), folder / "nameless", preset="small", num_workers=2)
    assert prepare(args) == 0
    return str(folder / "nameless")


def test_a_set_without_the_split_that_is_needed_is_refused(nameless):
    with pytest.raises(InputError, match=r"has no validation split, only train: .*nameless#train"):
        read_labelled([nameless], split="val")


def test_a_set_without_names_is_numbered_by_the_file_of_classes(folder, nameless):
    """As a list is: the numbers are the model's own, or those of the file."""
    turned = tuple(MOTIONS)[::-1]
    model = VideoMAEConfig(id2label=turned)
    given = read_videos_of_model([f"{nameless}#train"], model, classes=str(folder / "videos/classes.txt"))
    for video in given.videos:
        assert turned[video.label] in video.name
    own = read_videos_of_model([f"{nameless}#train"], model).videos
    assert [video.label for video in own] == [7 - video.label for video in given.videos]


def test_labels_that_only_records_have_are_read_once_and_kept(folder, tmp_path, monkeypatch):
    """Of a set that was not made here, without a table of videos."""
    source = tmp_path / "set"
    shutil.copytree(folder / "video", source, ignore=shutil.ignore_patterns("videos.csv", "card.json"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(set_labels, "_CHUNK", 5)
    expected = [video.label for video in read_labelled([str(folder / "video")]).videos]

    def labels():
        return [video.label for video in read_labelled([str(source)]).videos]

    assert labels() == expected
    (kept,) = (tmp_path / "cache/videomae-jax/labels").iterdir()
    np.save(kept, np.zeros(len(expected), int))
    assert labels() == [0] * len(expected)
    os.utime(next(source.glob("*train.array_record*")), (1, 1))
    assert labels() == expected


def test_videos_without_labels_are_not_read_to_find_some(folder, tmp_path, monkeypatch):
    (tmp_path / "list.txt").write_text(f"{folder}/videos/train/up_000.mp4\n")
    assert prepare(Prepare((str(tmp_path / "list.txt"),), tmp_path / "set", num_workers=1)) == 0
    monkeypatch.setattr(set_labels, "read_label", None)
    splits, _ = read_splits({"train": [str(tmp_path / "set")]})
    assert [video.label for video in splits["train"]] == [None]


FEATURE = "tensorflow_datasets.core.features"
DECODED = {
    "pixels": {
        "pythonClassName": f"{FEATURE}.tensor_feature.Tensor",
        "tensor": {"shape": {"dimensions": ["-1", "8", "8", "3"]}, "dtype": "uint8", "encoding": "none"},
    },
    "images": {
        "pythonClassName": f"{FEATURE}.video_feature.Video",
        "video": {"shape": {"dimensions": ["-1", "8", "8", "3"]}, "dtype": "uint8", "encodingFormat": "png"},
    },
}


@pytest.mark.parametrize("kind", DECODED)
def test_a_set_of_decoded_frames_is_refused_in_a_sentence(folder, tmp_path, kind):
    """As other builders of tensorflow-datasets make them; some of their features need TensorFlow."""
    shutil.copytree(folder / "video", tmp_path / "set")
    file = tmp_path / "set" / "features.json"
    features = json.loads(file.read_text())
    features["featuresDict"]["features"]["video"] = DECODED[kind]
    file.write_text(json.dumps(features))
    with pytest.raises(
        InputError, match=r"set (cannot be read: .*|has a `video` of .*)Sets of encoded videos"
    ):
        read_videos([str(tmp_path / "set")])


CONSUMER = """
import resource, sys
from videomae_jax.config import DataConfig, VideoMAEConfig
from videomae_jax.data.clips.readers import PretrainClips
from videomae_jax.data.loading.batches import batches
from videomae_jax.data.sources import read_videos

if __name__ == "__main__":
    model = VideoMAEConfig(image_size=32, patch_size=8, num_frames=4)
    read = PretrainClips(model, DataConfig(sampling_rate=2, num_sample=2))
    steps = {"start_step": 0, "stop_step": 6250}
    videos = read_videos([sys.argv[1]])
    for batch in batches(videos, read, seed=5, batch_size=8, num_workers=int(sys.argv[2]), **steps):
        if batch.step in (1000, 6249):
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.chaos
@pytest.mark.parametrize("num_workers", [0, 2])
def test_memory_stays_flat_over_100_000_clips(folder, tmp_path, num_workers):
    """In a process of its own: the checks of types that tests run with keep memory of each call."""
    script = tmp_path / "consume.py"
    script.write_text(CONSUMER)
    command = [sys.executable, str(script), str(folder / "video"), str(num_workers)]
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    said = subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout
    warm, last = map(int, said.split())
    print(f"84,000 further clips: {(last - warm) / 1024:.1f} MB more than {warm / 1024:.0f} MB")
    assert last - warm < 10 * 1024
