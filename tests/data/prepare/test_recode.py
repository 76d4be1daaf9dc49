"""One video as it is stored: its frames, times and size, in runs or by fewer frames per second."""

import numpy as np
import pytest
from built_videos import Build, NotBuildable, build, read_number, ticks
from test_prepare import moving_square, read_back, recode

from videomae_jax.data.prepare.recode import Recode
from videomae_jax.data.prepare.settings import PRESETS
from videomae_jax.data.records import VideoRecord
from videomae_jax.data.video import VideoError
from videomae_jax.data.video.writing import write_video


@pytest.mark.parametrize("frames", [1, 2, 5, 24])
def test_runs_keep_every_frame(tmp_path, frames):
    clip = moving_square(frames)
    write_video(tmp_path / "a.mp4", clip, 25)
    plain = read_back(recode(tmp_path / "a.mp4"))
    runs = read_back(recode(tmp_path / "a.mp4", sampling_rate=4))
    np.testing.assert_array_equal(plain.timestamps, runs.timestamps)
    everything = runs.frames(range(frames))
    assert np.abs(everything.astype(int) - clip).mean() < 3
    wanted = [frames - 1, 0, frames // 2]
    np.testing.assert_array_equal(runs.frames(wanted), everything[wanted])


def test_a_clip_at_the_rate_is_a_run_of_neighbours(tmp_path):
    write_video(tmp_path / "a.mp4", moving_square(24), 25)
    video = read_back(recode(tmp_path / "a.mp4", sampling_rate=4))
    assert np.diff(video._stored_at[[1, 5, 9, 13, 17, 21]]).tolist() == [1] * 5
    assert sorted(video._stored_at) == list(range(24))


def test_the_first_run_alone_and_fewer_frames_per_second(tmp_path):
    clip = moving_square(24)
    write_video(tmp_path / "a.mp4", clip, 24)
    first = read_back(recode(tmp_path / "a.mp4", sampling_rate=4, phases="first"))
    np.testing.assert_allclose(first.timestamps, np.arange(0, 24, 4) / 24, atol=1e-6)
    assert np.abs(first.frames(range(6)).astype(int) - clip[::4]).mean() < 3
    slower = read_back(recode(tmp_path / "a.mp4", max_fps=8.0))
    np.testing.assert_allclose(slower.timestamps, np.arange(0, 24, 3) / 24, atol=1e-6)
    np.testing.assert_array_equal(read_back(recode(tmp_path / "a.mp4", max_fps=60.0)).timestamps.size, 24)


@pytest.mark.parametrize("form", ["video", "jpeg"])
def test_sizes_shrink_to_the_short_side_and_never_grow(tmp_path, form):
    write_video(tmp_path / "a.mp4", moving_square(4, 90, 160), 25)
    small = recode(tmp_path / "a.mp4", form=form, short_side=45)
    assert (small.height, small.width) == ((44, 80) if form == "video" else (45, 80))
    assert read_back(small).frames([0]).shape == (1, small.height, small.width, 3)
    assert recode(tmp_path / "a.mp4", form=form, short_side=100).width == 160


def test_segments_of_lists_are_cut_out(tmp_path):
    write_video(tmp_path / "a.mp4", moving_square(24), 25)
    store = Recode(PRESETS["small"])
    cut = store(VideoRecord(str(tmp_path / "a.mp4"), "a", None, 5, 7))
    np.testing.assert_allclose(cut.timestamps, np.arange(5, 12) / 25, atol=1e-6)
    outside = store(VideoRecord(str(tmp_path / "a.mp4"), "a", None, 24, -1))
    assert isinstance(outside, VideoError)
    assert outside.reason == "segment-outside"


@pytest.mark.parametrize(("codec", "suffix"), [("h264", "mkv"), ("h264-p", "mp4"), ("vp8", "webm")])
@pytest.mark.parametrize("form", ["video", "jpeg"])
def test_one_repeated_time_leaves_all_others(tmp_path, codec, suffix, form):
    try:
        path = build(Build(codec, suffix, times="repeated"), tmp_path)
    except NotBuildable as reason:
        pytest.skip(str(reason))
    expected = np.array(ticks("repeated")) / 1000
    assert (np.diff(expected) == 0).sum() == 1
    stored = recode(path, form=form)
    np.testing.assert_allclose(stored.timestamps, expected, atol=1e-3)
    set_video = read_back(stored)
    np.testing.assert_allclose(set_video.timestamps, stored.timestamps, atol=1e-6)
    numbers = [read_number(frame.rgb()) for _, frame in set_video.read_frames(range(len(expected)))]
    assert numbers == list(range(len(expected)))
