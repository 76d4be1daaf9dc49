"""Prepared videos decoded from their table give what a plain decode gives, or leave it to that."""

import io
from contextlib import closing

import av
import numpy as np
import pytest

from videomae_jax.data.sets import SetVideo
from videomae_jax.data.video.decoder import Video
from videomae_jax.data.video.frames import VideoError
from videomae_jax.data.video.prepared import PreparedVideo, read_table
from videomae_jax.data.video.writing import encode_video

FRAMES = 30
LARGE = 1 << 26
WANTED = ([0], [29], list(range(7, 23)), [3, 4, 11, 12, 25], list(range(0, 30, 4)), list(range(FRAMES)))


def pictures(height=48, width=64, count=FRAMES):
    rng = np.random.default_rng(0)
    still = rng.integers(0, 256, (height // 4, width // 4, 3), np.uint8).repeat(4, axis=0).repeat(4, axis=1)
    return [np.roll(still, 3 * t, axis=1) for t in range(count)]


def stored(runs=1, **size):
    return encode_video("", pictures(**size), 25, keyframe_every=6, crf=20, num_runs=runs)


def example(content, runs=1, count=FRAMES):
    return {"timestamps_us": 40_000 * np.arange(count), "num_runs": runs, "video": content}


def frames_of(video, wanted):
    return [(index, frame.rgb().tobytes()) for index, frame in video.read_frames(wanted)]


def outcome(open_it, wanted):
    """Frames, or the reason why there are none; None where frames are missing at the end."""
    try:
        with closing(open_it()) as video:
            return frames_of(video, wanted) if len(video.timestamps) == FRAMES else None
    except VideoError as error:
        return error.reason


@pytest.mark.parametrize("runs", [1, 4])
def test_frames_are_those_of_a_plain_decode(runs):
    content = stored(runs)
    table = read_table(content, FRAMES, LARGE)
    assert table is not None
    with closing(SetVideo("set", example(content, runs))) as video, closing(Video("file", content)) as plain:
        for wanted in WANTED:
            alone = frames_of(PreparedVideo("set", content, table, LARGE), wanted)
            assert alone == frames_of(plain, wanted)
            order = sorted(wanted, key=lambda index: video._stored_at[index])
            at = [int(video._stored_at[index]) for index in order]
            found = dict(frames_of(video, wanted))
            assert [found[index] for index in order] == [image for _, image in frames_of(plain, at)]
        assert "_video" not in vars(video)


def test_whatever_is_otherwise_is_no_table(tmp_path):
    content = stored()
    assert read_table(content, FRAMES + 1, LARGE) is None
    assert read_table(content, FRAMES, 48 * 64 - 1) is None
    assert read_table(content[:-100], FRAMES, LARGE) is None
    assert read_table(b"", FRAMES, LARGE) is None
    turned = content.replace(b"\x00\x01\x00\x00" + bytes(12), b"\xff\xff\x00\x00" + bytes(12))
    assert turned != content
    assert read_table(turned, FRAMES, LARGE) is None
    for options, codec in (({"bf": "2"}, "libx264"), ({}, "mpeg4")):
        file = io.BytesIO()
        with av.open(file, "w", format="mp4") as container:
            stream = container.add_stream(codec, rate=25, options=options)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for image in pictures():
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode(None))
        assert read_table(file.getvalue(), FRAMES, LARGE) is None
        with closing(SetVideo("set", example(file.getvalue()))) as video:
            assert [index for index, _ in frames_of(video, [3, 20])] == [3, 20]


@pytest.mark.parametrize("seed", range(40))
def test_damage_is_left_to_the_plain_decode(seed):
    rng, content = np.random.default_rng(seed), bytearray(stored())
    for place in rng.integers(48, len(content) - (0 if seed % 4 else 1200), 1 + seed % 3):
        content[place] ^= 1 << int(rng.integers(8))
    damaged = bytes(content)
    wanted = WANTED[seed % len(WANTED)]
    expected = outcome(lambda: Video("file", damaged), wanted)
    if expected is None:
        pytest.skip("the damage hides frames, which a set's record counts")
    assert outcome(lambda: SetVideo("set", example(damaged)), wanted) == expected
