"""Folders of frames as videos: found, listed in both forms of VideoMAE V2, and read like any other."""

import numpy as np
import pytest
from PIL import Image

from videomae_jax.config import DataConfig, LabelledDataConfig, VideoMAEConfig, ViewsConfig
from videomae_jax.data.check import check_video
from videomae_jax.data.clips.readers import FinetuneClips, PretrainClips, centre_view
from videomae_jax.data.clips.readers import TestViews as Views
from videomae_jax.data.cropping import centre_crop
from videomae_jax.data.labels import read_labelled
from videomae_jax.data.lists import format_record
from videomae_jax.data.records import VideoRecord
from videomae_jax.data.sets import find_segment, open_record
from videomae_jax.data.sources import read_videos
from videomae_jax.data.video import VideoError
from videomae_jax.errors import InputError

MODEL = VideoMAEConfig(image_size=32, num_frames=4)
SIDES = (40, 56)


def make_frames(folder, count, first=1):
    """Noise; the frames begin with the number `first`, and files beside them are none."""
    folder.mkdir(parents=True)
    frames = np.random.default_rng(count).integers(0, 256, (count, *SIDES, 3), np.uint8)
    for number, frame in enumerate(frames, first):
        Image.fromarray(frame).save(folder / f"img_{number:05}.png")
    (folder / "flow_x_00001.jpg").touch()
    (folder / "notes.txt").touch()
    return frames


def write_list(tmp_path, *lines):
    file = tmp_path / "list.txt"
    file.write_text("".join(f"{line}\n" for line in lines))
    return file


def test_the_start_of_a_list_is_the_number_in_the_name(tmp_path):
    """As in VideoMAE V2, which opens the file img_{start + index}."""
    frames = make_frames(tmp_path / "a", 20)
    make_frames(tmp_path / "b", 12, first=0)
    whole, part, named = read_videos([write_list(tmp_path, "a 1 20", "a 5 8", "b 3 4")])
    assert [(each.start, each.total) for each in (whole, part, named)] == [(1, 20), (5, 8), (3, 4)]
    for record, segment in ((whole, (0, 20)), (part, (4, 8)), (named, (3, 4))):
        with open_record(record) as video:
            assert find_segment(record, video) == segment
    clip = centre_view(MODEL, DataConfig(sampling_rate=2))(part, None)["video"][0]
    # The middle 8 of the frames numbered 5 to 12.
    np.testing.assert_array_equal(clip, [centre_crop(frame, (32, 32)) for frame in frames[[4, 6, 8, 10]]])


def test_total_and_label_are_told_from_start_and_total_by_the_folders(tmp_path):
    make_frames(tmp_path / "a", 20)
    make_frames(tmp_path / "b", 12)
    fine_tuning = write_list(tmp_path, "a 20 1", "missing 7 2", "b 12 0", "v.mp4 3 9")
    assert [(r.label, r.start, r.total) for r in read_videos([fine_tuning])] == [
        (1, 0, 20),
        (2, 0, 7),
        (0, 0, 12),
        (None, 3, 9),
    ]
    labelled, classes = read_labelled([write_list(tmp_path, "a 20 1", "b 12 0")])
    assert ([record.label for record in labelled], len(classes.names)) == ([1, 0], 2)
    make_frames(tmp_path / "named.avi", 9)
    (like_a_video,) = read_videos([write_list(tmp_path, "named.avi 9 1")])
    assert (like_a_video.label, like_a_video.start, like_a_video.total) == (1, 0, 9)
    pre_training = write_list(tmp_path, "a 1 20", "b 1 12", "b 4 9")
    assert [(r.label, r.start, r.total) for r in read_videos([pre_training])] == [
        (None, 1, 20),
        (None, 1, 12),
        (None, 4, 9),
    ]
    with pytest.raises(InputError, match=r"line 1: 'a' has no label"):
        read_labelled([pre_training])
    with pytest.raises(InputError, match="or `folder total label` with a folder that is there"):
        read_labelled([write_list(tmp_path, "missing 7 2")])
    with pytest.raises(InputError, match=r"line 2: total 0 and label 0: total is at least 1: 'b 0 0'"):
        read_videos([write_list(tmp_path, "a 20 1", "b 0 0")])


def test_such_lists_are_written_as_they_were_read(tmp_path):
    make_frames(tmp_path / "a", 20)
    for lines in (["a 20 1"], ["a 2 9"], ["a 3"], ["a"]):
        records = read_videos([write_list(tmp_path, *lines)])
        assert [format_record(record, tmp_path) for record in records] == lines


def test_folders_of_frames_are_found_with_their_classes(tmp_path):
    for name in ("train/jump/x", "train/bend/y", "train/bend/z"):
        make_frames(tmp_path / name, 3)
    records, classes = read_labelled([tmp_path / "train"])
    assert classes.names == ("bend", "jump")
    assert [(r.name, r.label) for r in records] == [("bend/y", 0), ("bend/z", 0), ("jump/x", 1)]
    (alone,) = read_videos([tmp_path / "train" / "jump" / "x"])
    assert (alone.name, alone.label, alone.path) == ("x", None, str(tmp_path / "train" / "jump" / "x"))


def test_what_is_beside_folders_of_frames_is_said(tmp_path, caplog):
    make_frames(tmp_path / "a", 3)
    for name in ("moving.gif", "a/frame_1.webp", "a/frame_2.webp"):
        (tmp_path / name).touch()
    assert [record.name for record in read_videos([tmp_path])] == ["a"]
    (said,) = caplog.messages
    assert said.endswith(
        ": 4 files are passed over, with other suffixes than videos: 1 .gif, 1 .txt, 2 .webp"
    )


@pytest.mark.parametrize(
    "read",
    [
        PretrainClips(MODEL, DataConfig(sampling_rate=2, num_sample=2)),
        FinetuneClips(MODEL, LabelledDataConfig(sampling_rate=2, canvas=(36, 60))),
        Views(MODEL, LabelledDataConfig(sampling="uniform"), ViewsConfig(2, 3)),
        Views(MODEL, LabelledDataConfig(sampling_rate=2), ViewsConfig(2, 1), times=True),
    ],
)
def test_every_reader_reads_them(tmp_path, read):
    make_frames(tmp_path / "a", 20)
    arrays = read(VideoRecord(str(tmp_path / "a"), "a", 1), (0, 0, 0, 0))
    assert {name: each.shape for name, each in arrays.items()} == {
        name: each.shape for name, each in read.blank().items()
    }
    assert len({frame.tobytes() for frame in arrays["video"][0]}) == 4


def test_views_are_those_of_the_frames(tmp_path):
    frames = make_frames(tmp_path / "a", 20)
    record = VideoRecord(str(tmp_path / "a"), "a", 1)
    views = Views(MODEL, LabelledDataConfig(sampling_rate=2), ViewsConfig(1, 1))(record, None)["video"]
    np.testing.assert_array_equal(
        views[0], [centre_crop(frame, (32, 32)) for frame in frames[[6, 8, 10, 12]]]
    )
    with open_record(record) as video:
        read = dict(video.read([7, 0, 7]))
        assert list(read) == [0, 7]
        np.testing.assert_array_equal(np.stack(list(read.values())), frames[[0, 7]])
        assert not list(video.read([]))
        for outside in (20, -1):
            with pytest.raises(IndexError, match=f"frame {outside} asked for, but it has frames 0 to 19"):
                list(video.read([3, outside]))


def test_what_is_wrong_with_a_folder_is_said(tmp_path):
    make_frames(tmp_path / "a", 6, first=3)
    record = VideoRecord(str(tmp_path / "a"), "a", None, 1, 6)
    report = check_video(record, clip_span=4)
    assert (report.verdict, report.reason) == ("bad", "segment-outside")
    assert "starts at the frame number 1, but frames go from 3 to 8" in report.notes[0]
    whole = VideoRecord(str(tmp_path / "a"), "a")
    report = check_video(whole, clip_span=4)
    assert (report.verdict, report.frames, report.height, report.width) == ("good", 6, *SIDES)
    assert check_video(whole, clip_span=9).verdict == "short"
    report = check_video(whole, clip_span=4, max_pixels=SIDES[0] * SIDES[1] - 1)
    assert report.reason == "too-large"
    assert "img_00003.png of 56x40 has more than 2239 pixels" in report.notes[0]
    (tmp_path / "a" / "img_00005.png").write_bytes(b"no image")
    assert check_video(whole, clip_span=4).reason == "damaged"
    (tmp_path / "a" / "copy_5.png").touch()
    assert check_video(whole, clip_span=4).reason == "mixed-frames"
    (tmp_path / "nameless").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / "nameless" / name).touch()
    report = check_video(VideoRecord(str(tmp_path / "nameless"), ""), clip_span=4)
    assert "several images have no number in their names, such as a.png" in report.notes[0]
    (tmp_path / "empty").mkdir()
    with pytest.raises(VideoError, match="not-a-file"), open_record(VideoRecord(str(tmp_path / "empty"), "")):
        pass
