"""Crops against the original's numbers and description."""

import json

import numpy as np
import pytest
from PIL import Image

from videomae_jax.data.cropping import (
    centre_crop,
    crop_resized,
    draw_box,
    fit_canvas,
    multi_scale_boxes,
    scale_to_cover,
    view_boxes,
)
from videomae_jax.data.resizing import resize_sampled
from videomae_jax.data.video.frames import Converters, RgbFrame

SCALES = (1.0, 0.875, 0.75, 0.66)


def noise(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def test_multi_scale_boxes():
    boxes = multi_scale_boxes(256, 340, (224, 224), SCALES)
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
    assert {box[2] - box[0] for box in multi_scale_boxes(226, 300, (224, 224), (1.0,))} == {224}
    assert {box[2] - box[0] for box in multi_scale_boxes(227, 300, (224, 224), (1.0,))} == {227}
    # Larger than the frame would leave it: the original pads with black there.
    assert {box[2] - box[0] for box in multi_scale_boxes(223, 300, (224, 224), (1.0,))} == {223}


@pytest.mark.parametrize(("height", "width"), [(256, 340), (320, 180), (7, 5), (1, 1), (225, 900)])
def test_boxes_lie_inside_the_frame(height, width):
    for left, top, right, bottom in multi_scale_boxes(height, width, (224, 224), SCALES):
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height


@pytest.mark.parametrize("size", [(160, 224), (224, 160)])
@pytest.mark.parametrize(("height", "width"), [(256, 340), (320, 180), (160, 224), (7, 5), (1, 1), (90, 900)])
def test_boxes_have_the_shape_of_the_clip(height, width, size):
    boxes = multi_scale_boxes(height, width, size, SCALES)
    for left, top, right, bottom in boxes:
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
    left, top, right, bottom = boxes[0]  # The largest, which is cut along one axis only.
    assert height - (bottom - top) < 3 or width - (right - left) < 3
    if min(height, width) > 20:
        assert (right - left) / (bottom - top) == pytest.approx(size[1] / size[0], rel=0.02)


@pytest.mark.parametrize("size", [(160, 224), (224, 160), (64, 256)])
@pytest.mark.parametrize(("height", "width"), [(240, 320), (320, 240), (300, 300), (100, 141), (5, 7)])
def test_a_clip_is_covered_whole_and_its_crops_lie_along_the_longer_side(height, width, size):
    frame = noise(height, width)
    scaled = scale_to_cover(frame, size)
    assert min(a - b for a, b in zip(scaled.shape[:2], size, strict=True)) == 0
    assert scaled.shape[0] / scaled.shape[1] == pytest.approx(height / width, rel=0.02)
    boxes = view_boxes(*scaled.shape[:2], size, 3)
    assert {(bottom - top, right - left) for left, top, right, bottom in boxes} == {size}
    assert boxes[0][:2] == (0, 0)
    assert boxes[2][2:] == scaled.shape[1::-1]
    left, top, right, bottom = view_boxes(*scaled.shape[:2], size, 1)[0]
    np.testing.assert_array_equal(centre_crop(frame, size), scaled[top:bottom, left:right])
    assert abs((top + bottom) - scaled.shape[0]) <= 1
    assert abs((left + right) - scaled.shape[1]) <= 1


def test_drawn_boxes_are_all_of_them():
    boxes = multi_scale_boxes(120, 160, (112, 112), SCALES)
    rng = np.random.default_rng(0)
    assert {draw_box(rng, 120, 160, (112, 112), SCALES) for _ in range(3000)} == set(boxes)


def test_cropping_is_pils_own():
    frame = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    box = (11, 7, 75, 61)
    expected = np.asarray(Image.fromarray(frame).crop(box).resize((32, 32), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(crop_resized(frame, box, (32, 32)), expected)
    np.testing.assert_array_equal(RgbFrame(frame, Converters("")).crop(box, (32, 32)), expected)
    assert RgbFrame(frame, Converters("")).shape == (90, 120)


def test_the_centre_square_is_cut_after_the_short_side_was_scaled():
    """As in the original's validation, which rounds 37.5 to 38 and 36.5 to 36."""
    for size, left in (((240, 320), 37), ((240, 321), 38), ((240, 319), 36)):
        frame = noise(*size)
        scaled = resize_sampled(frame, 224, 224 * size[1] // 240)
        np.testing.assert_array_equal(centre_crop(frame, (224, 224)), scaled[:, left : left + 224])
        upright = resize_sampled(frame.transpose(1, 0, 2), 224 * size[1] // 240, 224)
        np.testing.assert_array_equal(
            centre_crop(frame.transpose(1, 0, 2), (224, 224)), upright[left : left + 224]
        )
    clip = np.random.default_rng(0).integers(0, 256, (3, 90, 120, 3), np.uint8)
    for frame in clip:
        np.testing.assert_array_equal(centre_crop(frame, (90, 90)), frame[:, 15:105])
        assert centre_crop(frame, (32, 32)).shape == (32, 32, 3)


def test_the_squares_of_a_test_equal_the_original_code(golden_folder):
    rows = json.loads((golden_folder / "sampling.json").read_text())["test_crops"]
    assert len(rows) == 6
    for row in rows:
        height, width, side = (row[name] for name in ("resized_height", "resized_width", "short_side"))
        boxes = view_boxes(height, width, (side, side), row["num_crops"])
        starts = [box[row["axis"] == "height"] for box in boxes]
        assert starts == row["starts"], row
        assert {box[row["axis"] == "width"] for box in boxes} == {0}
        assert {(right - left, bottom - top) for left, top, right, bottom in boxes} == {(side, side)}


def test_a_single_square_is_the_middle_one():
    """The original divides by zero; its validation rounds 37.5 to 38 and 36.5 to 36."""
    assert view_boxes(224, 299, (224, 224), 1) == [(38, 0, 262, 224)]
    assert view_boxes(297, 224, (224, 224), 1) == [(0, 36, 224, 260)]


@pytest.mark.parametrize(
    ("size", "scaled"), [((240, 320), (224, 298)), ((256, 340), (224, 297)), ((500, 300), (373, 224))]
)
def test_the_short_side_is_scaled_and_the_long_one_rounded_down(size, scaled):
    frame = noise(*size)
    np.testing.assert_array_equal(scale_to_cover(frame, (224, 224)), resize_sampled(frame, *scaled))


@pytest.mark.parametrize(
    ("size", "fitted"),
    [
        ((256, 456), (256, 456)),
        ((240, 320), (256, 341)),
        ((360, 640), (256, 455)),
        ((90, 400), (103, 456)),
        ((1, 3000), (1, 456)),
        ((300, 300), (256, 256)),
    ],
)
def test_frames_fit_the_canvas_and_keep_their_aspect(size, fitted):
    frame = noise(*size)
    scaled, transposed = fit_canvas(frame, (256, 456))
    expected = Image.fromarray(frame).resize(fitted[::-1], Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(scaled, np.asarray(expected))
    assert not transposed


def test_upright_frames_are_laid_on_their_side():
    frame = noise(120, 90)
    scaled, transposed = fit_canvas(frame, (256, 456))
    assert transposed
    np.testing.assert_array_equal(scaled, fit_canvas(frame.transpose(1, 0, 2), (256, 456))[0])
