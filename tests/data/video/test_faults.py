"""Kinds of files whose containers say something wrong: every frame right, or refused for the true reason."""

import contextlib
import io
import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from test_decoder import encode, moving_square

from videomae_jax.data.video import VideoError, open_video
from videomae_jax.data.video.times import rising_times


def needs(codec):
    if codec not in av.codecs_available:
        pytest.skip(f"this build of the decoder has no encoder {codec}")


def remux(source, path, change=lambda packet: packet, filters=None, skip=0, **options):
    """Copy packets; `change` may return None to leave one out."""
    with av.open(str(source)) as old, av.open(str(path), "w", **options) as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        through = av.BitStreamFilterContext(filters, old.streams.video[0], stream) if filters else None
        for packet in old.demux(video=0):
            for each in through.filter(packet if packet.size else None) if through else [packet]:
                if each.dts is not None and change(each) is not None:
                    each.stream = stream
                    new.mux(each)
    return path


class ShownWhenDecoded:
    """Times as they come out of AVI or a raw stream: none but those of decoding, from 0 on."""

    def __init__(self):
        self.first = None

    def __call__(self, packet):
        self.first = packet.dts if self.first is None else self.first
        packet.pts = packet.dts = packet.dts - self.first
        return packet


class Cut:
    """Leaves out what comes before the second keyframe."""

    def __init__(self):
        self.keyframes = 0

    def __call__(self, packet):
        self.keyframes += packet.is_keyframe
        return packet if self.keyframes > 1 else None


def plain_decode(path):
    """Every frame that comes out in one pass, whatever is damaged."""
    frames = []
    with av.open(str(path)) as container:
        stream = container.streams.best("video")
        stream.codec_context.thread_count = 1  # Threads patch up otherwise.
        for packet in container.demux(stream):
            with contextlib.suppress(av.error.FFmpegError):
                frames += [frame.to_ndarray(format="rgb24") for frame in packet.decode()]
    return frames


def each_alone_is_right(path, turn=lambda image: image):
    """Each frame asked for alone is that of a plain decode, and so are those of a whole pass."""
    plain = [turn(image) for image in plain_decode(path)]
    with open_video(path) as video:
        assert len(video.timestamps) == len(plain)
        assert (np.diff(video.timestamps) >= 0).all()
        streamed = list(video.stream())
    assert len(streamed) == len(plain)
    for index, image in enumerate(plain):
        with open_video(path) as video:
            np.testing.assert_array_equal(video.frames([index])[0], image, f"frame {index}")
        np.testing.assert_array_equal(streamed[index].image, image)
    return len(plain)


X265 = "log-level=none:pools=none:frame-threads=1:"
TWO_SIDED = {
    "libx264": {"bf": "3", "b_strategy": "0", "g": "15"},
    "libx265": {"x265-params": X265 + "bframes=3:keyint=15"},
    "mpeg4": {"bf": "2", "g": "12"},
    "mpeg2video": {"bf": "2", "g": "12"},
}


@pytest.mark.parametrize("container", ["mp4", "mkv", "mov"])
@pytest.mark.parametrize("codec", list(TWO_SIDED))
def test_times_that_are_those_of_decoding(tmp_path, codec, container):
    needs(codec)
    source = encode(tmp_path / "right.mp4", moving_square(40, 64, 96), codec, options=TWO_SIDED[codec])
    path = remux(source, tmp_path / f"wrong.{container}", ShownWhenDecoded())
    assert each_alone_is_right(path) == 40
    with open_video(path) as video:
        np.testing.assert_allclose(np.diff(video.timestamps), 0.04, atol=0.002)


def test_times_that_are_wrong_in_a_part_only(tmp_path):
    source = encode(tmp_path / "right.mp4", moving_square(45, 32, 48), options=TWO_SIDED["libx264"])
    groups = 0

    def change(packet):
        nonlocal groups
        groups += packet.is_keyframe
        if groups == 2:
            packet.pts = packet.dts + 1024
        return packet

    assert each_alone_is_right(remux(source, tmp_path / "wrong.mp4", change)) == 45


def test_ordinary_files_are_not_decoded_to_find_out(tmp_path, monkeypatch):
    """Also where a variable rate or short groups make the pictures themselves tell their order."""
    files = {
        "even.mp4": ("libx264", {"bf": "3"}, None),
        "even.mkv": ("libx264", {"bf": "3"}, None),
        "low_delay.mp4": ("libx264", {"bf": "0"}, None),
        "open.mp4": ("libx264", {"bf": "3", "g": "9", "x264-params": "open-gop=1"}, None),
        "interlaced.mp4": ("libx264", {"flags": "+ildct+ilme", "x264-params": "interlaced=1"}, None),
        "uneven.mkv": ("libx264", {"bf": "3"}, np.cumsum(np.arange(40) % 5 * 9 + 11).tolist()),
        "short_groups.mp4": ("libx264", {"bf": "3", "g": "4", "sc_threshold": "0"}, None),
        "hevc.mp4": (
            "libx265",
            {"x265-params": X265 + "bframes=4:b-pyramid=1"},
            None,
        ),
        "hevc_uneven.mkv": (
            "libx265",
            {"x265-params": X265 + "keyint=9:open-gop=1"},
            np.cumsum(np.arange(40) % 5 * 9 + 11).tolist(),
        ),
        "vp9.webm": ("libvpx-vp9", {"g": "10", "lag-in-frames": "10"}, None),
        "p.avi": ("mpeg4", {"g": "10"}, None),
        "p.mp4": ("mpeg4", {"g": "10"}, None),
        "still.avi": ("mjpeg", {}, None),
    }
    for name, (codec, options, pts) in files.items():
        if codec not in av.codecs_available:
            continue
        path = encode(
            tmp_path / name, moving_square(40), codec, fps=1000 if pts else 25, pts=pts, options=options
        )
        with open_video(path) as video:
            assert video._times is not None, name


@pytest.mark.parametrize("codec", ["mpeg4", "libx264", "h263"])
def test_without_a_table_of_keyframes_only_true_ones_are_started_at(tmp_path, codec):
    needs(codec)
    path = encode(tmp_path / "a.mov", moving_square(40, 96, 128), codec, options={"g": "12", "bf": "0"})
    content = path.read_bytes()
    assert b"stss" in content
    path.write_bytes(content.replace(b"stss", b"free"))
    assert each_alone_is_right(path) == 40


def test_a_table_of_keyframes_that_names_others(tmp_path):
    path = encode(tmp_path / "a.mp4", moving_square(40, 32, 48), options={"g": "12", "bf": "2"})
    content = bytearray(path.read_bytes())
    place = content.index(b"stss") + 12
    assert struct.unpack_from(">2I", content, place) == (1, 13)
    struct.pack_into(">I", content, place + 4, 18)
    path.write_bytes(content)
    assert each_alone_is_right(path) == 40


def test_damage_to_a_keyframe_is_seen_on_the_way(tmp_path):
    path = encode(tmp_path / "a.avi", moving_square(40, 64, 96), "mpeg4", options={"g": "10"})
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.is_keyframe][2]
    content = bytearray(path.read_bytes())
    start = packet.pos + 8 + packet.size // 3
    content[start : start + 40] = b"\xa5" * 40
    path.write_bytes(content)
    plain = {}
    with av.open(str(path)) as container:
        for packet in container.demux(video=0):
            with contextlib.suppress(av.error.FFmpegError):
                plain |= {frame.pts: frame.to_ndarray(format="rgb24") for frame in packet.decode()}
    for index in range(40):
        with open_video(path) as video:
            if index in plain:
                np.testing.assert_array_equal(video.frames([index])[0], plain[index])
            else:
                with pytest.raises(VideoError, match=f"damaged: frame {index} does not decode"):
                    video.frames([index])


def test_an_index_with_an_entry_missing(tmp_path):
    path = encode(tmp_path / "a.avi", moving_square(40, 32, 48), "mpeg4", options={"g": "10"})
    content = bytearray(path.read_bytes())
    index = content.index(b"idx1", content.index(b"movi"))
    (size,) = struct.unpack_from("<I", content, index + 4)
    entry = index + 8 + 16 * 15
    content[entry : entry + 16] = b""
    struct.pack_into("<I", content, index + 4, size - 16)
    path.write_bytes(content + b"JUNK" + struct.pack("<I", 8) + bytes(8))
    assert each_alone_is_right(path) == 40


@pytest.mark.parametrize("damaged", [9, 16, 20])
def test_a_picture_before_a_damaged_one_that_it_needs(tmp_path, damaged):
    """Damage that is seen only after the wanted frame came out, as B-frames do before what they need."""
    source = encode(tmp_path / "a.mp4", moving_square(40, 64, 96), options=TWO_SIDED["libx264"])
    with av.open(str(source)) as old, av.open(str(tmp_path / "b.mp4"), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for number, packet in enumerate(packet for packet in old.demux(video=0) if packet.size):
            content = bytearray(bytes(packet))
            if number == damaged:
                content[len(content) // 5] ^= 255
            new.mux(like(packet, bytes(content), stream))
    assert each_alone_is_right(tmp_path / "b.mp4") == 40


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_a_reference_that_says_that_it_is_none(tmp_path, codec):
    """Such pictures are passed over on the way to others, which here need them."""
    needs(codec)
    source = encode(tmp_path / "a.mp4", moving_square(40, 64, 96), codec, options=TWO_SIDED[codec])
    with av.open(str(source)) as old:
        packets = [bytes(packet) for packet in old.demux(video=0) if packet.size]
    hidden = [number for number, content in enumerate(packets) if says_it_is_needed(codec, content)]
    assert len(hidden) > 5
    for number in hidden[1::3]:
        with av.open(str(source)) as old, av.open(str(tmp_path / "b.mp4"), "w") as new:
            stream = new.add_stream_from_template(old.streams.video[0])
            for at, packet in enumerate(packet for packet in old.demux(video=0) if packet.size):
                content = bytearray(bytes(packet))
                if at == number:
                    content[4] = content[4] & 0x9F if codec == "libx264" else content[4] & 0xFD
                new.mux(like(packet, bytes(content), stream))
        assert each_alone_is_right_or_refused(tmp_path / "b.mp4") > 30


def each_alone_is_right_or_refused(path):
    """Each frame asked for alone is that which a plain decode has at its time, or none where it has none."""
    right, times = 0, plain_times(path)
    plain = dict(zip(times, plain_decode(path), strict=True))
    with open_video(path) as video:
        shown = [round(time, 3) for time in video.timestamps]
    assert set(times) <= set(shown)
    for index, time in enumerate(shown):
        with open_video(path) as video:
            if time not in plain:
                with pytest.raises(VideoError, match="damaged"):
                    video.frames([index])
                continue
            np.testing.assert_array_equal(video.frames([index])[0], plain[time], f"frame {index}")
        right += 1
    return right


def plain_times(path):
    """When the frames of `plain_decode` are shown, in seconds."""
    times = []
    with av.open(str(path)) as container:
        stream = container.streams.best("video")
        stream.codec_context.thread_count = 1
        for packet in container.demux(stream):
            with contextlib.suppress(av.error.FFmpegError):
                times += [round(frame.time, 3) for frame in packet.decode()]
    return times


def says_it_is_needed(codec, content):
    """Whether a packet is one picture, no keyframe, that says that others need it."""
    if codec == "libx264":
        return content[4] & 31 == 1 and content[4] & 96 > 0
    return content[4] >> 1 & 63 == 1


def like(packet, content, stream):
    """A packet with other content."""
    other = av.Packet(content)
    other.pts, other.dts, other.time_base = packet.pts, packet.dts, packet.time_base
    other.duration, other.is_keyframe, other.stream = packet.duration, packet.is_keyframe, stream
    return other


def without(content, kind):
    """A JPEG picture without its segments of one kind."""
    position = 2
    while content[position + 1] != 0xDA:
        end = position + 2 + int.from_bytes(content[position + 2 : position + 4], "big")
        if content[position + 1] == kind:
            content, end = content[:position] + content[end:], position
        position = end
    return content


@pytest.mark.parametrize(
    ("kind", "pictures", "proven"),
    [(0xC4, range(40), True), (0xC4, [17], False), (0xDB, [17], False), (0xDB, range(9, 40), False)],
)
def test_motion_jpeg_without_its_tables(tmp_path, kind, pictures, proven):
    """Those of codes are the usual ones where none are there; others are those of pictures before."""
    images = [image // (1 + number % 3) for number, image in enumerate(moving_square(40))]
    path, number = tmp_path / "a.avi", 0
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25, options={"huffman": "default"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        stream.codec_context.qmin, stream.codec_context.qmax = 2, 31
        for image in images:
            for packet in stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")):
                content = without(bytes(packet), kind) if number in pictures else bytes(packet)
                container.mux(like(packet, content, stream))
                number += 1
    assert number == 40
    assert each_alone_is_right(path) == 40
    with open_video(path) as video:
        assert (video._times is not None) == proven


def test_a_raw_stream_whose_times_are_only_counted(tmp_path):
    """After a jump the count begins elsewhere, and packets that begin in a block tell no place."""
    noise = np.random.default_rng(0).integers(0, 60, (40, 64, 96, 3), np.uint8)
    file, encoder = io.BytesIO(), av.CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt = 96, 64, "yuvj420p"
    encoder.time_base, encoder.qmin, encoder.qmax = Fraction(1, 25), 4, 4
    for image in moving_square(40, 64, 96) // 2 + noise:
        for packet in encoder.encode(av.VideoFrame.from_ndarray(image.astype(np.uint8), format="rgb24")):
            # With this header it is read as pictures one after the other.
            file.write(bytes(packet)[:2] + b"\xff\xe0\x00\x10JFIF\0\1\2\0\0\1\0\1\0\0" + bytes(packet)[2:])
    (tmp_path / "a.mjpeg").write_bytes(file.getvalue())
    assert each_alone_is_right(tmp_path / "a.mjpeg") == 40


@pytest.mark.parametrize("container", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize(
    ("codec", "options"),
    [
        ("libx264", {"g": "12", "bf": "3", "b_strategy": "0", "x264-params": "open-gop=1"}),
        (
            "libx265",
            {"x265-params": X265 + "keyint=12:min-keyint=12:bframes=3:open-gop=1:b-adapt=0"},
        ),
        ("mpeg2video", {"g": "12", "bf": "2"}),
    ],
)
def test_leading_pictures_that_cannot_decode_are_not_counted(tmp_path, codec, options, container):
    needs(codec)
    source = encode(tmp_path / "whole.mkv", moving_square(40, 64, 96), codec, options=options)
    settings = {"options": {"use_editlist": "0"}} if container == "mp4" else {}
    path = remux(source, tmp_path / f"cut.{container}", Cut(), **settings)
    assert each_alone_is_right(path) < 36


def test_one_repeated_time_leaves_all_others(tmp_path):
    times = [*range(0, 1160, 40), 1120, *range(21160, 22360, 40)]
    path = encode(tmp_path / "right.mkv", moving_square(len(times), 32, 48), fps=1000, pts=sorted(times))
    assert each_alone_is_right(path) == len(times)
    with open_video(path) as video:
        np.testing.assert_allclose(video.timestamps, np.array(sorted(times)) / 1000, atol=1e-9)


@pytest.mark.parametrize(
    ("shown", "decoded", "expected"),
    [
        ([0, 0.08, 0.04, 0.12], [], [0, 0.04, 0.08, 0.12]),
        ([0, 0.04, 0.04, 5], [], [0, 0.04, 0.04, 5]),
        ([*np.arange(20) * 0.04, 0.72, 0.76], [], np.arange(22) * 0.04),
        ([0, 0.12, 0.16, 0.08, *np.arange(20) * 0.04 + 0.2, 0.98], [], np.arange(25) * 0.04),
        ([0, 0.12, 0.08, 5, 5.08, 5.04], [], [0, 0.08, 0.12, 5, 5.04, 5.08]),
        ([np.nan] * 3, [0, 0.08, 0.04], [0, 0.04, 0.08]),
        ([np.nan] * 3, [], [0, 0.04, 0.08]),
        ([*np.arange(20) * 0.04] * 2, [], np.arange(40) * 0.04),
        ([], [], []),
    ],
)
def test_times_from_what_is_there(shown, decoded, expected):
    found = rising_times(np.array(shown, float), np.array(decoded, float), 25)
    np.testing.assert_allclose(found, expected, atol=1e-9)
