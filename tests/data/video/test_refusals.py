"""What is refused by right: pictures that are no videos, frames that are too large or are not there."""

import resource

import av
import pytest
from test_decoder import encode, moving_square
from test_faults import each_alone_is_right, needs

from videomae_jax.data.video import VideoError, open_video


def reason(path, **settings):
    with pytest.raises(VideoError) as caught, open_video(path, **settings) as video:
        video.frames([0])
    return caught.value.reason


def test_pictures_are_no_videos(tmp_path):
    frame = av.VideoFrame.from_ndarray(moving_square(1)[0], format="rgb24")
    for name, codec, form in (
        ("a.png", "png", "image2"),
        ("a.jpg", "mjpeg", "image2"),
        ("a.gif", "gif", "gif"),
    ):
        with av.open(str(tmp_path / name), "w", format=form) as container:
            stream = container.add_stream(codec, rate=25)
            stream.width, stream.height = 64, 48
            stream.pix_fmt = {"png": "rgb24", "gif": "rgb8", "mjpeg": "yuvj420p"}[codec]
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        (tmp_path / name).rename(tmp_path / f"{name}.mp4")
        assert reason(tmp_path / f"{name}.mp4") == "still-image"


def test_pictures_that_move_are_videos(tmp_path):
    needs("gif")
    with av.open(str(tmp_path / "a.gif"), "w") as container:
        stream = container.add_stream("gif", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb8"
        for image in moving_square(5):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            container.mux(stream.encode(frame.reformat(format="rgb8")))
        container.mux(stream.encode(None))
    assert each_alone_is_right(tmp_path / "a.gif") == 5


def test_frames_with_too_many_pixels_are_refused(tmp_path):
    path = encode(tmp_path / "a.mp4", moving_square(4))
    assert reason(path, max_pixels=48 * 64 - 1) == "too-large"
    with open_video(path, max_pixels=48 * 64) as video:
        assert len(video.frames([0, 3])) == 2


def test_a_picture_that_tells_a_large_size_takes_no_memory(tmp_path):
    """The container says 64 x 48, the pictures 16,000 x 16,000, of which each would take 384 MB."""
    path = encode(tmp_path / "a.webm", moving_square(20), "libvpx", options={"g": "8"})
    keyframe, size = b"\x9d\x01\x2a", (64).to_bytes(2, "little") + (48).to_bytes(2, "little")
    content = path.read_bytes()
    assert keyframe + size in content
    path.write_bytes(content.replace(keyframe + size, keyframe + 2 * (16_000).to_bytes(2, "little")))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert reason(path) == "too-large"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


def test_the_frame_that_is_outside_is_named(tmp_path):
    path = encode(tmp_path / "a.mp4", moving_square(8))
    with open_video(path) as video:
        for wanted, named in (([-1, 5], "frame -1"), ([2, 8], "frame 8")):
            with pytest.raises(IndexError, match=f"{named} asked for, but it has frames 0 to 7"):
                video.frames(wanted)
