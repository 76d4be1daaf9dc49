"""Boxes that are cropped, scaled and converted at once, against the exact way and the true colours."""

import av
import numpy as np
import pytest
from PIL import Image

from videomae_jax.data.cropping import crop_resized, draw_box
from videomae_jax.data.video import VideoError, open_video
from videomae_jax.data.video.frames import Converters, DecodedFrame
from videomae_jax.data.video.writing import write_video

SIZE = (48, 48)
BOXES = [(0, 0, 96, 96), (32, 24, 104, 96), (10, 6, 74, 70), (40, 20, 88, 68)]


def waves(height, width):
    """Soft stripes of all colours."""
    y, x, channel = np.mgrid[:height, :width, :3]
    return np.uint8(128 + 90 * np.sin(x / (9 + channel) + y / (14 - 3 * channel) + channel))


def decoded(image, pixel_format="yuv420p"):
    frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=pixel_format)
    return DecodedFrame(frame, Converters("drawn"))


def by_the_formula(frame, box, size):
    """BT.601 in floating point from the planes of a frame, resized as PIL does."""
    y, *colours = (np.frombuffer(p, np.uint8).reshape(-1, p.line_size) for p in frame.planes)
    y = (y[: frame.height, : frame.width].astype(float) - 16) * 255 / 219
    cb, cr = (c.astype(float).repeat(2, 0).repeat(2, 1) for c in colours)
    cb, cr = ((c[: frame.height, : frame.width] - 128) * 255 / 224 for c in (cb, cr))
    left, top, right, bottom = box
    planes = (y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb)
    images = (Image.fromarray(p[top:bottom, left:right].clip(0, 255).astype(np.float32)) for p in planes)
    return np.stack([np.asarray(i.resize(size, Image.Resampling.BILINEAR)) for i in images], -1)


def evenly(box):
    """The box, begun at even places."""
    left, top, right, bottom = box
    return left - left % 2, top - top % 2, right - left % 2, bottom - top % 2


@pytest.mark.parametrize("box", BOXES)
def test_a_crop_is_near_the_exact_one_and_nearer_to_the_true_colours(box):
    frame = decoded(waves(96, 128))
    fused, exact = frame.crop(box, SIZE).astype(float), crop_resized(frame.rgb(), box, SIZE).astype(float)
    assert np.abs(fused - exact).mean() < 2.5
    if box[2] - box[0] == SIZE[0]:
        np.testing.assert_array_equal(fused, exact)
        return
    true = by_the_formula(frame._frame, box, SIZE)
    assert np.abs(fused - true).mean() < np.abs(exact - true).mean()
    assert np.abs((fused - true).mean()) < 0.3 < np.abs((exact - true).mean())


@pytest.mark.parametrize("size", [(32, 64), (64, 40)])
def test_a_box_is_scaled_to_any_height_and_width(size):
    frame, box = decoded(waves(96, 128)), (20, 10, 116, 90)
    fused, exact = frame.crop(box, size), crop_resized(frame.rgb(), box, size)
    assert fused.shape == exact.shape == (*size, 3)
    assert np.abs(fused.astype(float) - exact).mean() < 2.5


def test_a_box_at_an_odd_place_moves_by_a_pixel():
    frame = decoded(waves(96, 128))
    np.testing.assert_array_equal(frame.crop((11, 7, 75, 71), SIZE), frame.crop((10, 6, 74, 70), SIZE))


@pytest.mark.parametrize(("height", "width"), [(49, 51), (50, 49), (97, 96)])
def test_odd_sizes(height, width):
    frame, side = decoded(waves(height, width)), min(height, width)
    box = (width - side, height - side, width, height)
    exact = crop_resized(frame.rgb(), evenly(box), SIZE)
    assert np.abs(frame.crop(box, SIZE).astype(int) - exact).mean() < 6  # A step of a pixel is 10 levels.


@pytest.mark.parametrize("pixel_format", ["yuv444p", "gbrp", "gray", "yuv420p10le"])
def test_other_formats_are_exact(pixel_format):
    frame = decoded(waves(96, 128), pixel_format)
    for box in BOXES:
        np.testing.assert_array_equal(frame.crop(box, SIZE), crop_resized(frame.rgb(), box, SIZE))


def test_converters_are_used_again_and_keep_nothing_of_the_last_frame():
    converters = Converters("drawn")
    for image in (waves(96, 128), waves(96, 128)[::-1].copy()):
        frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv420p")
        for box in BOXES:
            fresh = DecodedFrame(frame, Converters("drawn")).crop(box, SIZE)
            np.testing.assert_array_equal(DecodedFrame(frame, converters).crop(box, SIZE), fresh)


def test_a_frame_that_does_not_convert_names_the_file(monkeypatch):
    def refuse(*arguments, **options):
        raise ValueError("unknown format")

    frame = decoded(waves(96, 128))
    monkeypatch.setattr("videomae_jax.data.video.frames.VideoReformatter.reformat", refuse, raising=True)
    for convert in (frame.rgb, lambda: frame.crop(BOXES[0], SIZE)):
        with pytest.raises(
            VideoError, match=r"drawn: unknown-colours: .* cannot be converted to RGB: unknown"
        ):
            convert()


def test_reading_frames_of_a_video_gives_the_same_pictures(tmp_path):
    write_video(tmp_path / "waves.mp4", np.stack([np.roll(waves(64, 80), 3 * n, 1) for n in range(20)]), 25)
    with open_video(tmp_path / "waves.mp4") as video:
        images = dict(video.read([2, 9, 17]))
        frames = dict(video.read_frames([2, 9, 17]))
    assert frames.keys() == images.keys()
    for index, frame in frames.items():
        assert frame.shape == (64, 80)
        np.testing.assert_array_equal(frame.rgb(), images[index])


def test_real_clips_differ_by_about_a_level(real_videos):
    rng, checked = np.random.default_rng(0), 0
    for path in sorted((real_videos / "action").iterdir()):
        with open_video(path) as video:
            ((_, frame),) = video.read_frames([len(video.timestamps) // 2])
        box = evenly(draw_box(rng, *frame.shape, (112, 112), (1.0, 0.875, 0.75, 0.66)))
        difference = np.abs(
            frame.crop(box, (112, 112)).astype(int) - crop_resized(frame.rgb(), box, (112, 112))
        )
        assert difference.mean() < 1.6, path.name
        checked += 1
    assert checked >= 10


def test_turned_videos_are_exact(real_videos):
    with open_video(real_videos / "edge" / "tc_nasa_13013_rotated.mp4") as video:
        assert video.rotation
        ((_, frame),) = video.read_frames([12])
    assert frame.shape == (480, 270)
    assert frame.rgb().shape == (480, 270, 3)
    np.testing.assert_array_equal(
        frame.crop((20, 90, 220, 290), (112, 112)), crop_resized(frame.rgb(), (20, 90, 220, 290), (112, 112))
    )
