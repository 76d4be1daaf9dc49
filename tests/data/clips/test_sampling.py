"""Frame indices against the original code's, and the draws and the middle clips that it has no table of."""

import json

import numpy as np
import pytest

from videomae_jax.config import DataConfig, LabelledDataConfig
from videomae_jax.data.clips import sampling
from videomae_jax.data.clips.sampling import (
    centre_indices,
    dense_test_indices,
    draw_end,
    draw_start,
    draw_uniform_indices,
    finetune_indices,
    num_starts,
    pretrain_indices,
    segment_indices,
    uniform_test_indices,
)
from videomae_jax.data.cropping import view_boxes


@pytest.fixture(scope="module")
def tables(golden_folder):
    return json.loads((golden_folder / "sampling.json").read_text())


def test_the_drawing_beside_the_code_is_true():
    lines = [line for line in sampling.__doc__.splitlines() if line.startswith("    ")]
    frames, columns = (line for line in lines if " 0  1  2 " in line)
    rows = {line[4:31].strip(): line for line in lines if line not in (frames, columns)}
    marked = lambda name, mark: [k for k in range(16) if mark in rows[name][31 + 3 * k :][:2]]  # noqa: E731
    assert [frames[31 + 3 * k - (k > 9) :].split()[0] for k in range(16)] == [str(k) for k in range(16)]
    for name, clips in {
        "dense, sampling rate 2": dense_test_indices(16, 4, 2, 2),
        "dense, sampling rate 3": dense_test_indices(16, 4, 3, 2),
        "uniform": uniform_test_indices(16, 4, 2),
    }.items():
        assert [marked(name, mark) for mark in "01"] == clips.tolist(), name
    crops = [name for name in rows if "crop (" in name]
    for name, (left, top, right, bottom) in zip(crops, view_boxes(4, 8, (4, 4), 3), strict=True):
        assert name.endswith(f"crop {(left, top, right, bottom)}")
        assert marked(name, "x") == list(range(left, right))


def shape(row):
    return row["num_frames_in_video"], row["clip_frames"], row["stride"]


def test_pretraining_indices_equal_the_original_code(tables):
    assert len(tables["pretrain"]) == 22
    for row in tables["pretrain"]:
        start = row["start_drawn"] or 0
        assert start < num_starts(*shape(row))
        assert pretrain_indices(*shape(row), start).tolist() == row["indices"], row


class FixedDraw(np.random.Generator):
    """Gives what the original drew, and keeps from what."""

    def __init__(self, drawn):
        super().__init__(np.random.PCG64(0))
        self.drawn, self.bounds = drawn, None

    def integers(self, low, high):
        self.bounds = [low, high]
        return self.drawn


def test_fine_tuning_indices_equal_the_original_code(tables):
    assert len(tables["dense_train"]) == 44
    for row in tables["dense_train"]:
        rng = FixedDraw(row["end"])
        end = draw_end(rng, *shape(row))
        assert rng.bounds == row["end_drawn_from"], row
        assert finetune_indices(*shape(row), end).tolist() == row["indices"], row


def test_dense_test_indices_equal_the_original_code(tables):
    assert len(tables["dense_test"]) == 88
    for row in tables["dense_test"]:
        assert dense_test_indices(*shape(row), row["num_segments"]).tolist() == row["clips"], row


def test_uniform_test_indices_equal_the_original_code(tables):
    assert len(tables["uniform_test"]) == 33
    for row in tables["uniform_test"]:
        clips = uniform_test_indices(row["num_frames_in_video"], row["clip_frames"], len(row["clips"]))
        assert clips.tolist() == row["clips"], row
        assert np.sort(clips, axis=None).tolist() == row["all_indices"], row


def test_any_number_of_uniform_clips_share_the_video_evenly():
    clips = uniform_test_indices(120, 4, 3)
    assert clips.tolist() == [[0, 30, 60, 90], [10, 40, 70, 100], [20, 50, 80, 110]]


def test_starts_are_drawn_from_all_that_leave_room():
    rng = np.random.default_rng(0)
    assert {draw_start(rng, 68, 16, 4) for _ in range(200)} == {0, 1, 2, 3, 4}
    assert {draw_start(rng, 20, 16, 4) for _ in range(20)} == {0}
    assert pretrain_indices(68, 16, 4, 4)[-1] == 64


def test_the_centre_clip_lies_in_the_middle():
    assert centre_indices(64, 16, 4)[0] == centre_indices(5, 16, 4)[0] == 0
    assert centre_indices(100, 16, 4).tolist() == list(range(18, 82, 4))
    assert uniform_test_indices(100, 4, 1)[0].tolist() == [12, 37, 62, 87]
    assert uniform_test_indices(3, 4, 1)[0].tolist() == [0, 1, 1, 2]


def test_a_single_test_clip_is_the_middle_one():
    """The original divides by zero where clips are dense; uniform ones have the middle of each part."""
    uniform = LabelledDataConfig(sampling="uniform")
    for count in (5, 64, 100, 301):
        middle = [centre_indices(count, 16, 4).tolist()]
        assert dense_test_indices(count, 16, 4, 1).tolist() == middle
        for data in (DataConfig(), LabelledDataConfig()):
            assert segment_indices(count, 16, data, 1).tolist() == middle
        assert segment_indices(count, 16, uniform, 1).tolist() == uniform_test_indices(count, 16, 1).tolist()
    assert segment_indices(160, 16, uniform, 1).tolist() == [list(range(5, 160, 10))]


def test_the_ends_of_training_clips_leave_out_only_the_last():
    rng = np.random.default_rng(0)
    assert {draw_end(rng, 68, 16, 4) for _ in range(200)} == {64, 65, 66, 67}
    assert {draw_end(rng, 64, 16, 4), draw_end(rng, 9, 16, 4)} == {64, 9}


def test_uniform_draws_take_one_frame_of_each_part():
    rng = np.random.default_rng(0)
    drawn = np.stack([draw_uniform_indices(rng, 35, 8) for _ in range(300)])
    for part in range(8):
        assert set(drawn[:, part]) == {4 * part, 4 * part + 1, 4 * part + 2, 4 * part + 3}
    assert abs(np.corrcoef(drawn[:, 0], drawn[:, 1])[0, 1]) < 0.2
    assert draw_uniform_indices(rng, 8, 8).tolist() == list(range(8))
    assert draw_uniform_indices(rng, 7, 8).tolist() == [0] * 8


def test_the_draws_are_those_of_earlier_versions():
    """A run that continues under another version of numpy or of this package must go on with its data."""

    def draws(draw, *shape):
        return [draw(np.random.default_rng([3, 0, 1, place, 0]), *shape) for place in range(6)]

    assert draws(draw_start, 300, 16, 4) == [11, 181, 159, 72, 170, 199]
    assert draws(draw_end, 300, 16, 4) == [75, 244, 222, 136, 234, 262]
    assert draws(draw_uniform_indices, 300, 8)[0].tolist() == [1, 64, 95, 138, 168, 221, 247, 291]


def test_indices_stay_inside_any_video():
    rng = np.random.default_rng(0)
    for count in range(1, 80):
        found = [draw_uniform_indices(rng, count, 16), uniform_test_indices(count, 16, 1)[0]]
        found += [uniform_test_indices(count, 16, segments) for segments in (1, 2, 5)]
        for rate in (1, 2, 4, 7):
            video = count, 16, rate
            found += [pretrain_indices(*video, start) for start in range(num_starts(*video))]
            found += [finetune_indices(*video, draw_end(rng, *video)) for _ in range(3)]
            found += [dense_test_indices(*video, segments) for segments in (1, 2, 5)]
        for indices in found:
            assert indices.dtype == np.int64
            assert indices.min() >= 0
            assert indices.max() < count
            assert (np.diff(indices) >= 0).all()
