"""Planes of frames: whose they are, and the rule that makes RGB of them."""

import av
import numpy as np
import pytest
from av.video.reformatter import Interpolation, VideoReformatter

from videomae_jax.data.video.frames import Converters, DecodedFrame, Orientation, RgbFrame
from videomae_jax.data.video.planes import pixels, planes_of

MATRICES = (0, 1, 2, 4, 5, 6, 7, 9)
KNOWN = MATRICES[1:]
SCALING = Interpolation.BILINEAR | Interpolation.FULL_CHR_H_INT


def filled(values, form="yuv420p", matrix=2, wide=0, size=(64, 64)):
    frame = av.VideoFrame(*size, form)
    frame.colorspace, frame.color_range = matrix, wide
    for plane, value in zip(frame.planes, values, strict=True):
        pixels(plane)[:] = value
    return frame


def grey_noise(height, width):
    frame = av.VideoFrame(width, height, "yuv420p")
    rng = np.random.default_rng(0)
    for plane, (low, high) in zip(frame.planes, ((60, 180), (128, 130), (127, 129)), strict=True):
        pixels(plane)[:] = rng.integers(low, high, pixels(plane).shape)
    return frame


@pytest.mark.parametrize("form", ["yuv420p", "yuvj420p"])
@pytest.mark.parametrize("matrix", KNOWN)
@pytest.mark.parametrize("wide", [0, 1, 2])
def test_the_rule_of_colours_is_the_converters(form, matrix, wide):
    for brightness, blue, red in ((120, 100, 150), (60, 156, 120), (180, 128, 101), (16, 128, 128)):
        frame = filled((brightness, blue, red), form, matrix, wide)
        black, gain, red_red, red_green, blue_green, blue_blue = planes_of(frame).colour
        base, blue, red = gain * (brightness - black), blue - 128, red - 128
        rule = base + red_red * red, base + red_green * red + blue_green * blue, base + blue_blue * blue
        converted = VideoReformatter().reformat(frame, 48, 48, "rgb24", interpolation=SCALING).to_ndarray()
        assert np.abs(converted[20, 20] - np.clip(rule, 0, 255)).max() < 0.6


@pytest.mark.parametrize(
    "frame", [filled((9, 9, 9), matrix=8), filled((9, 9, 9), "yuv444p"), filled((9,), "gray")]
)
def test_other_planes_and_unknown_colours_are_no_planes(frame):
    assert planes_of(frame) is None


def test_a_box_is_cut_as_it_is_stored():
    frame = grey_noise(60, 81)
    planes = DecodedFrame(frame, Converters("")).planes((10, 4, 81, 51), (47, 71))
    stored = [pixels(plane) for plane in frame.planes]
    np.testing.assert_array_equal(planes.brightness, stored[0][4:51, 10:81])
    np.testing.assert_array_equal(planes.blue, stored[1][2:26, 5:41])
    np.testing.assert_array_equal(planes.red, stored[2][2:26, 5:41])


@pytest.mark.parametrize("turned", [Orientation(turns=1), Orientation(True, 3), Orientation(True)])
@pytest.mark.parametrize("height", [60, 61])
def test_turned_frames_give_upright_planes(turned, height):
    """Planes of odd size are made of RGB, since those of colours would begin at other places."""
    frame = DecodedFrame(grey_noise(height, 80), Converters(""), turned)
    size = frame.shape
    planes = frame.planes((0, 0, size[1], size[0]), size)
    stored = pixels(grey_noise(height, 80).planes[0])[:height, :80]
    upright = np.rot90(stored[:, ::-1] if turned.mirrored else stored, turned.turns)
    assert planes.brightness.shape == size
    assert np.abs(planes.brightness.astype(int) - upright).max() <= (0 if height == 60 else 3)


def test_rgb_becomes_planes_of_the_same_colours():
    image = np.full((40, 60, 3), (200, 90, 30), np.uint8)
    planes = RgbFrame(image, Converters("")).planes((4, 6, 44, 36), (15, 20))
    assert planes.brightness.shape == (15, 20)
    assert planes.blue.shape == (8, 10)
    black, gain, red_red, _, _, blue_blue = planes.colour
    base = gain * (planes.brightness[5, 5] - black)
    assert base + red_red * (int(planes.red[3, 3]) - 128) == pytest.approx(200, abs=2)
    assert base + blue_blue * (int(planes.blue[3, 3]) - 128) == pytest.approx(30, abs=2)
