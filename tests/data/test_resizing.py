"""Resizing against arrays recorded from OpenCV (4.10 and 5.0 agree), against Pillow and PyTorch."""

import hashlib

import numpy as np
import pytest
from PIL import Image

from videomae_jax.data.resizing import interpolate, resize_sampled, resize_smooth


def picture(height, width):
    y, x, c = np.ogrid[:height, :width, :3]
    return ((y * y * 37 + x * 91 + y * x * 13 + c * 53) % 256).astype(np.uint8)


# Red of cv2.resize(picture(*size), resized[::-1], interpolation=cv2.INTER_LINEAR).
RECORDED = {
    ((6, 9), (3, 4)): [[79, 75, 118, 178], [110, 211, 201, 159], [132, 180, 101, 149]],
    ((4, 3), (5, 7)): [
        [0, 13, 52, 91, 130, 169, 182],
        [26, 40, 83, 126, 169, 212, 226],
        [93, 90, 82, 75, 122, 170, 186],
        [127, 118, 93, 68, 87, 106, 112],
        [77, 96, 151, 207, 153, 99, 81],
    ],
    ((1, 2), (2, 5)): [[0, 9, 45, 82, 91], [0, 9, 45, 82, 91]],
}
# SHA-256 of all its bytes, at the sizes of videos; the second halves its sides, the third makes them larger.
DIGESTS = {
    ((240, 320), (224, 298)): "340ef941c1c23f07",
    ((448, 796), (224, 398)): "fd8b49e12d0a0ba0",
    ((180, 101), (399, 224)): "09d8056bd3150ba0",
    ((256, 256), (224, 224)): "6eec54e86f9bf24c",
    ((1080, 1920), (224, 398)): "ce033346355568b8",
}


@pytest.mark.parametrize(("size", "resized"), RECORDED)
def test_sampling_gives_the_recorded_values_of_opencv(size, resized):
    given = resize_sampled(picture(*size), *resized)
    assert given.dtype == np.uint8
    assert given[..., 0].tolist() == RECORDED[size, resized]


@pytest.mark.parametrize(("size", "resized"), DIGESTS)
def test_sampling_is_opencvs_bit_for_bit_at_the_sizes_of_videos(size, resized):
    given = resize_sampled(picture(*size), *resized)
    assert given.shape == (*resized, 3)
    assert hashlib.sha256(given.tobytes()).hexdigest().startswith(DIGESTS[size, resized])


def test_sampling_does_not_average_and_smoothing_does():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, 2::8] = stripes[:, 5::8] = 255  # Between the two columns next to each sample of one in eight.
    assert not resize_sampled(stripes, 8, 8).any()
    assert resize_smooth(stripes, 8, 8).min() > 50
    expected = Image.fromarray(stripes).resize((8, 8), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(resize_smooth(stripes, 8, 8), np.asarray(expected))


def test_a_frame_of_the_right_size_stays_as_it_is():
    for resize in (resize_sampled, resize_smooth, interpolate):
        np.testing.assert_array_equal(resize(picture(20, 30), 20, 30), picture(20, 30))


@pytest.mark.parametrize(("size", "resized"), [((60, 90), (32, 48)), ((9, 7), (32, 20))])
def test_interpolating_is_pytorchs_and_sampling_its_rounding_but_for_a_level(size, resized):
    torch = pytest.importorskip("torch")
    frame = picture(*size)
    tensor = torch.from_numpy(frame).permute(2, 0, 1)[None].float()
    expected = torch.nn.functional.interpolate(tensor, resized, mode="bilinear", align_corners=False)
    expected = expected[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(interpolate(frame, *resized), expected, atol=1e-3)
    assert np.abs(resize_sampled(frame, *resized) - expected).max() <= 1
