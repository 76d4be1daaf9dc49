"""What each reader makes of a video: which frames, which part of them, in which shape."""

import csv
import pickle
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest

from videomae_jax.config import DataConfig, LabelledDataConfig, VideoMAEConfig, ViewsConfig
from videomae_jax.data.clips import readers as clips
from videomae_jax.data.clips.readers import FinetuneClips, PretrainClips, centre_view
from videomae_jax.data.clips.readers import TestViews as Views
from videomae_jax.data.clips.sampling import (
    centre_indices,
    dense_test_indices,
    draw_end,
    draw_start,
    draw_uniform_indices,
    finetune_indices,
    pretrain_indices,
    uniform_test_indices,
)
from videomae_jax.data.cropping import (
    centre_crop,
    draw_box,
    fit_canvas,
    scale_to_cover,
    view_boxes,
)
from videomae_jax.data.records import VideoRecord
from videomae_jax.data.video.decoder import Video, open_video
from videomae_jax.data.video.writing import write_video

MODEL = VideoMAEConfig(image_size=32, num_frames=4)
UNLABELLED = DataConfig(sampling_rate=3, num_sample=3, flip=True)
DENSE = LabelledDataConfig(sampling_rate=3, num_sample=3, canvas=(36, 60))
UNIFORM = LabelledDataConfig(sampling="uniform", num_sample=3, canvas=(36, 60))
VIEWS = ViewsConfig(num_segments=3, num_crops=2)
KEY = (7, 1, 5, 0)
READERS = [
    PretrainClips(MODEL, UNLABELLED),
    FinetuneClips(MODEL, DENSE),
    FinetuneClips(MODEL, UNIFORM),
    centre_view(MODEL, UNLABELLED),
    centre_view(MODEL, UNIFORM),
    Views(MODEL, DENSE, VIEWS),
    Views(MODEL, UNIFORM, VIEWS),
]


@pytest.fixture(scope="module", params=[(40, 56), (56, 40)], ids=["wide", "upright"])
def video(request, tmp_path_factory):
    """A video of 50 different frames: where it is, and its frames as they decode, in RGB."""
    path = tmp_path_factory.mktemp("clips") / "noise.mp4"
    write_video(path, np.random.default_rng(0).integers(0, 256, (50, *request.param, 3), np.uint8), 25)
    with open_video(path) as opened:
        return str(path), opened.frames(range(50))


def decoded(path):
    with open_video(path) as opened:
        return [frame for _, frame in opened.read_frames(range(50))]


def generators():
    return [np.random.default_rng([3, *KEY, clip]) for clip in range(3)]


def test_pre_training_clips(video):
    path, frames = video
    parts = decoded(path)
    arrays = PretrainClips(MODEL, UNLABELLED)(VideoRecord(path, ""), KEY)
    assert arrays.keys() == {"video"}
    rngs = generators()
    indices = pretrain_indices(50, 4, 3, draw_start(rngs[0], 50, 4, 3))
    for clip, rng in zip(arrays["video"], rngs, strict=True):
        box = draw_box(rng, *frames.shape[1:3], (32, 32), UNLABELLED.crop_scales)
        mirror = bool(rng.random() < 0.5)
        expected = np.stack([parts[index].crop(box, (32, 32)) for index in indices])
        np.testing.assert_array_equal(clip, expected[:, :, ::-1] if mirror else expected)


@pytest.mark.parametrize("size", [(16, 40), (40, 16)])
def test_clips_that_are_not_square(video, size):
    """Nothing is distorted: crops to train on have the clip's shape, views cover it."""
    path, frames = video
    model, record = replace(MODEL, image_size=size, patch_size=8), VideoRecord(path, "")
    whole = replace(UNLABELLED, crop_scales=(1.0,), flip=False)
    clips = PretrainClips(model, whole)(record, KEY)["video"]
    assert clips.shape == (3, 4, *size, 3)
    rngs = generators()
    indices = pretrain_indices(50, 4, 3, draw_start(rngs[0], 50, 4, 3))
    box = draw_box(rngs[0], *frames.shape[1:3], size, (1.0,))
    assert (box[2] - box[0]) / (box[3] - box[1]) == pytest.approx(size[1] / size[0], rel=0.07)
    parts = decoded(path)
    np.testing.assert_array_equal(clips[0], [parts[index].crop(box, size) for index in indices])
    [middle] = centre_view(model, UNLABELLED)(record, None)["video"]
    wanted = [centre_crop(frame, size) for frame in frames[centre_indices(50, 4, 3)]]
    np.testing.assert_array_equal(middle, wanted)


@pytest.mark.parametrize("data", [DENSE, UNIFORM])
def test_fine_tuning_clips(video, data):
    path, frames = video
    arrays = FinetuneClips(MODEL, data)(VideoRecord(path, "", 4), KEY)
    fitted = np.stack([fit_canvas(frame, data.canvas)[0] for frame in frames])
    height, width = fitted.shape[1:3]
    assert (height, width) == (36, 50)
    rng = generators()[0]
    if data.sampling == "uniform":
        indices = draw_uniform_indices(rng, 50, 4)
    else:
        indices = finetune_indices(50, 4, 3, draw_end(rng, 50, 4, 3))
    for clip in arrays["video"]:
        np.testing.assert_array_equal(clip[:, :height, :width], fitted[indices])
        assert not clip[:, height:].any()
        assert not clip[:, :, width:].any()
    upright = frames.shape[1] > frames.shape[2]
    assert arrays["box"].tolist() == [[36, 50, int(upright)]] * 3
    assert arrays["label"].tolist() == [4] * 3


@pytest.mark.parametrize("read", READERS[:3])
def test_repeated_augmentation_takes_one_clip_and_the_first_as_if_alone(video, read):
    """As in the original; and a run that takes one clip of each video reads what it always read."""
    path, _ = video
    record = VideoRecord(path, "", 1)
    several = read(record, KEY)
    alone = replace(read, data=replace(read.data, num_sample=1))(record, KEY)
    for name, values in alone.items():
        np.testing.assert_array_equal(values, several[name][:1])
    if isinstance(read, FinetuneClips):  # Augmented on the device.
        assert len({clip.tobytes() for clip in several["video"]}) == 1
    else:
        assert len({clip.tobytes() for clip in several["video"]}) == 3


@pytest.mark.parametrize("data", [UNLABELLED, DENSE, UNIFORM])
def test_the_centre_clip(video, data):
    path, frames = video
    arrays = centre_view(MODEL, data)(VideoRecord(path, ""), None)
    indices = uniform_test_indices(50, 4, 1)[0] if data is UNIFORM else centre_indices(50, 4, 3)
    np.testing.assert_array_equal(
        arrays["video"][0], [centre_crop(frame, (32, 32)) for frame in frames[indices]]
    )
    assert arrays["label"].tolist() == [-1]


@pytest.mark.parametrize("data", [DENSE, UNIFORM])
def test_views_come_clip_by_clip(video, data):
    path, frames = video
    arrays = Views(MODEL, data, VIEWS)(VideoRecord(path, "", 2), None)
    segments = uniform_test_indices(50, 4, 3) if data is UNIFORM else dense_test_indices(50, 4, 3, 3)
    assert len({tuple(indices) for indices in segments}) == 3
    scaled = np.stack([scale_to_cover(frame, (32, 32)) for frame in frames])
    expected = [
        scaled[indices, top:bottom, left:right]
        for indices in segments
        for left, top, right, bottom in view_boxes(*scaled.shape[1:3], (32, 32), 2)
    ]
    np.testing.assert_array_equal(arrays["video"], expected)
    assert arrays["label"].tolist() == [2]


@pytest.mark.parametrize("data", [DENSE, UNIFORM])
def test_one_view_is_what_validation_sees(video, data):
    """As `classify` takes by default, and `evaluate --num-segments 1 --num-crops 1`."""
    record = VideoRecord(video[0], "", 2)
    one, validation = (
        Views(MODEL, data, ViewsConfig(1, 1))(record, None),
        centre_view(MODEL, data)(record, None),
    )
    np.testing.assert_array_equal(one["video"], validation["video"])
    assert one["label"] == validation["label"]


class Opened(Video):
    """In place of an open video: some frames, and what was asked for."""

    def __init__(self, frames):
        self.frames, self.asked = frames, []
        self.timestamps = np.arange(len(frames)) / 25

    def read_frames(self, indices):
        self.asked.append(indices)
        return ((index, self.frames[index]) for index in indices)


@pytest.mark.parametrize("read", READERS)
def test_a_segment_is_read_like_a_video_of_its_own_in_one_pass(video, read, monkeypatch):
    path, _ = video
    segment = read(VideoRecord(path, "", 1, 10, 30), KEY)
    opened = Opened(decoded(path)[10:40])
    monkeypatch.setattr(clips, "open_record", lambda record, *settings: nullcontext(opened))
    alone = read(VideoRecord("", "", 1), KEY)
    (asked,) = opened.asked
    assert asked == sorted(set(asked))
    for name, values in segment.items():
        np.testing.assert_array_equal(values, alone[name])


@pytest.mark.parametrize("read", READERS)
def test_shapes_are_known_beforehand_and_readers_travel(video, read):
    path, _ = video
    again = pickle.loads(pickle.dumps(read))
    assert again == read
    arrays = again(VideoRecord(path, "", 1), KEY)
    blank = read.blank()
    assert {name: (each.shape, each.dtype) for name, each in arrays.items()} == {
        name: (each.shape, each.dtype) for name, each in blank.items()
    }
    assert not any(each.any() for each in blank.values())


@pytest.mark.parametrize("read", READERS)
def test_one_frame_makes_a_clip(tmp_path, read):
    write_video(tmp_path / "one.mp4", np.full((1, 40, 40, 3), 120, np.uint8), 25)
    with open_video(tmp_path / "one.mp4") as opened:
        pixel = opened.frames([0])[0, 0, 0]
    video = read(VideoRecord(str(tmp_path / "one.mp4"), ""), KEY)["video"]
    # The decoder's two ways into RGB differ by a grey level.
    assert np.abs(video[:, :, :32, :32].astype(int) - pixel).max() <= 1


def test_real_videos_of_any_kind(real_videos):
    """Rotated, odd-sized, short, with variable frame rate: all can be read and fill what they say."""
    with (real_videos / "manifest.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["set"] == "edge"]
    assert len(rows) >= 10
    for row in rows:
        record = VideoRecord(str(real_videos / "edge" / row["file"]), row["file"], 3)
        for data in (replace(DENSE, num_sample=2), replace(UNIFORM, num_sample=2)):
            arrays = FinetuneClips(MODEL, data)(record, KEY)
            (height, width, transposed), again = arrays["box"]
            assert arrays["box"][0].tolist() == again.tolist()
            turned = row["rotation"] in ("90", "-90", "270", "-270")
            assert transposed == ((int(row["w"]) < int(row["h"])) != turned), row["file"]
            assert height == 36 or width == 60
            filled = arrays["video"].any(axis=(0, 1, 4))
            assert filled[: height // 2, : width // 2].any()
            assert not filled[height:].any()
            assert not filled[:, width:].any()
            views = Views(MODEL, data, VIEWS)(record, None)["video"]
            assert np.ptp(views) > 100
