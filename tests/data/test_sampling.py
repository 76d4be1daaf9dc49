"""Frame indices against the original code's, and crops against its description."""

import json

import numpy as np
import pytest
from PIL import Image

from videomae_jax.data.sampling import (
    centre_box,
    centre_clip,
    centre_start,
    crop_resized,
    draw_box,
    draw_start,
    multi_scale_boxes,
    num_starts,
    pretrain_indices,
)

SCALES = (1.0, 0.875, 0.75, 0.66)


def test_pretraining_indices_equal_the_original_code(reference):
    rows = json.loads((reference / "sampling.json").read_text())["pretrain"]
    assert len(rows) == 22
    for row in rows:
        shape = row["num_frames_in_video"], row["clip_frames"], row["stride"]
        start = row["start_drawn"] or 0
        assert start < num_starts(*shape)
        assert pretrain_indices(*shape, start).tolist() == row["indices"], row


def test_starts_are_drawn_from_all_that_leave_room():
    rng = np.random.default_rng(0)
    assert {draw_start(rng, 68, 16, 4) for _ in range(200)} == {0, 1, 2, 3, 4}
    assert {draw_start(rng, 20, 16, 4) for _ in range(20)} == {0}
    assert pretrain_indices(68, 16, 4, 4)[-1] == 64


def test_the_centre_clip_lies_in_the_middle():
    assert centre_start(100, 16, 4) == 18
    assert centre_start(64, 16, 4) == centre_start(5, 16, 4) == 0


def test_indices_stay_inside_any_video():
    for count in range(1, 80):
        for rate in (1, 2, 4, 7):
            for start in range(num_starts(count, 16, rate)):
                indices = pretrain_indices(count, 16, rate, start)
                assert indices.min() >= 0
                assert indices.max() < count


def test_multi_scale_boxes():
    boxes = multi_scale_boxes(256, 340, 224, SCALES)
    sides = {(right - left, bottom - top) for left, top, right, bottom in boxes}
    # 256 * .875 is 224 already; neighbouring scales may be mixed, others not: 4 + 3 + 3 pairs.
    assert sides == {
        *((side, side) for side in (256, 224, 192, 168)),
        *((256, 224), (224, 256), (224, 192), (192, 224), (192, 168), (168, 192)),
    }
    assert len(boxes) == 10 * 13
    places = {box[:2] for box in boxes if box[2] - box[0] == box[3] - box[1] == 192}
    x, y = (340 - 192) // 4, (256 - 192) // 4
    grid = {(i * x, j * y) for i in (0, 2, 4) for j in (0, 2, 4)}
    assert places == grid | {(i * x, j * y) for i in (1, 3) for j in (1, 3)}


def test_sides_near_the_target_become_the_target():
    assert {box[2] - box[0] for box in multi_scale_boxes(226, 300, 224, (1.0,))} == {224}
    assert {box[2] - box[0] for box in multi_scale_boxes(227, 300, 224, (1.0,))} == {227}
    # Larger than the frame would leave it: the original pads with black there.
    assert {box[2] - box[0] for box in multi_scale_boxes(223, 300, 224, (1.0,))} == {223}


@pytest.mark.parametrize(("height", "width"), [(256, 340), (320, 180), (7, 5), (1, 1), (225, 900)])
def test_boxes_lie_inside_the_frame(height, width):
    for left, top, right, bottom in multi_scale_boxes(height, width, 224, SCALES):
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height


def test_drawn_boxes_are_all_of_them():
    boxes = multi_scale_boxes(120, 160, 112, SCALES)
    rng = np.random.default_rng(0)
    assert {draw_box(rng, 120, 160, 112, SCALES) for _ in range(3000)} == set(boxes)


def test_cropping_is_pils_own():
    frame = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    box = (11, 7, 75, 61)
    expected = np.asarray(Image.fromarray(frame).crop(box).resize((32, 32), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(crop_resized(frame, box, 32), expected)
    np.testing.assert_array_equal(crop_resized(frame, box, 32, mirror=True), expected[:, ::-1])


def test_the_centre_crop_keeps_the_aspect():
    assert centre_box(90, 120) == (15, 0, 105, 90)
    assert centre_box(121, 90) == (0, 15, 90, 105)
    clip = np.random.default_rng(0).integers(0, 256, (3, 90, 120, 3), np.uint8)
    np.testing.assert_array_equal(centre_clip(clip, 90), clip[:, :, 15:105])
    assert centre_clip(clip, 32).shape == (3, 32, 32, 3)
