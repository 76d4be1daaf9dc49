"""Decoding against the true counts and published frames of real clips, and generated files of many kinds."""

import csv
import gc
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from videomae_jax.data.video.decoder import VideoError, open_video
from videomae_jax.data.video.passes import Passes
from videomae_jax.data.video.writing import write_video


def moving_square(frames=40, height=48, width=64, seed=0):
    """Noise with a bright square that moves, so that every frame differs from every other."""
    clip = np.random.default_rng(seed).integers(0, 60, (frames, height, width, 3), np.uint8)
    for index, frame in enumerate(clip):
        x = index * (width - 16) // frames
        frame[8:24, x : x + 16] = 190 + index
    return clip


def encode(path, frames, codec="libx264", fps=25, pts=None, rotation=None, options=None, metadata=None):
    with av.open(str(path), "w") as container:
        container.metadata.update(metadata or {})
        stream = container.add_stream(codec, rate=Fraction(fps), options=options or {})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        if rotation:
            stream.set_display_rotation(rotation)
        if pts is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for index, array in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(array, format="rgb24")
            if pts is not None:
                frame.pts, frame.time_base = pts[index], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def decode_all(path):
    """Every frame of a one-stream file by the decoder's own loop, without any of our code."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def manifest(folder, sets):
    with (folder / "manifest.csv").open() as file:
        return [row for row in csv.DictReader(file) if row["set"] in sets]


def test_true_frame_counts_and_rotations_of_real_clips(real_videos):
    rows = manifest(real_videos, ("action", "edge"))
    assert len(rows) == 30
    for row in rows:
        with open_video(real_videos / row["set"] / row["file"]) as video:
            # The manifest counts the first video stream of this file; its best one, from which a frame 389 is
            # published, has 390.
            expected = 390 if row["file"] == "tc_nasa_13013.mp4" else int(row["frames"])
            assert len(video.timestamps) == expected, row["file"]
            assert video.rotation == int(row["rotation"] or 0), row["file"]
            assert (np.diff(video.timestamps) > 0).all(), row["file"]


def test_published_frames_bit_for_bit(real_videos):
    files = sorted((real_videos / "frames").glob("*.npy"))
    assert files
    for file in files:
        name, _, index = file.stem.rsplit("_", 2)
        (path,) = (real_videos / "edge").glob(f"{name}.*")
        with open_video(path) as video:
            found = video.frames([int(index.removeprefix("frame"))])[0]
        np.testing.assert_array_equal(found, np.load(file), file.name)


@pytest.mark.parametrize(
    "file",
    [
        "action/k400_yoga_Tw2yXa6CzWE.mp4",
        "action/hmdb_wave_trumanshow.avi",
        "edge/tc_discard_first_keyframe.mp4",
        "edge/tc_nasa_13013_vfr.mp4",
        "edge/exo_sample.avi",
        "edge/hf_66x50.mov",
    ],
)
def test_any_frames_equal_those_of_a_full_decode(real_videos, file):
    path, rng = real_videos / file, np.random.default_rng(0)
    everything = decode_all(path)
    with open_video(path) as video:
        for _ in range(3):
            wanted = rng.integers(len(everything), size=9)
            np.testing.assert_array_equal(video.frames(wanted), everything[wanted])
            start = int(rng.integers(len(everything) - 20))
            wanted = np.arange(start, start + 20, 4)
            np.testing.assert_array_equal(video.frames(wanted), everything[wanted])


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("closed.mp4", "libx264", {"g": "10", "bf": "3"}),
        ("open.mkv", "libx264", {"g": "10", "bf": "3", "x264-params": "open-gop=1"}),
        ("b.avi", "libx264", {"g": "10", "bf": "3"}),
        ("b.ts", "libx264", {"g": "10", "bf": "3"}),
        ("refresh.mp4", "libx264", {"g": "20", "x264-params": "intra-refresh=1"}),
        ("h265.mp4", "libx265", {"g": "10", "x265-params": "log-level=none"}),
        ("b4.avi", "mpeg4", {"g": "10", "bf": "2"}),
        ("b4.mp4", "mpeg4", {"g": "10", "bf": "2"}),
        ("p4.avi", "mpeg4", {"g": "10"}),
        ("mpeg2.mpg", "mpeg2video", {"g": "10", "bf": "2"}),
        ("vp8.webm", "libvpx", {"g": "10", "lag-in-frames": "10"}),
        ("vp9.webm", "libvpx-vp9", {"g": "10", "lag-in-frames": "10"}),
        ("still.avi", "mjpeg", {}),
    ],
)
def test_generated_files_of_many_kinds(tmp_path, name, codec, options):
    if codec not in av.codecs_available:
        pytest.skip(f"this build of the decoder has no encoder {codec}")
    path = encode(tmp_path / name, moving_square(), codec, options=options)
    everything = decode_all(path)
    wanted = [37, 11, 12, 3, 25, 11]
    with open_video(path) as video:
        assert len(video.timestamps) == len(everything) == 40
        np.testing.assert_array_equal(video.frames(wanted), everything[wanted])
        np.testing.assert_array_equal(video.frames([39]), everything[[39]])
        np.testing.assert_allclose(np.diff(video.timestamps), 0.04, atol=0.002)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])  # The latter tells no times of decoding after a jump.
def test_only_what_is_needed_is_decoded(tmp_path, monkeypatch, name):
    decoded = []
    original = Passes.decode

    def count(passes, start, needed=None):
        for frame in original(passes, start, needed):
            decoded.append(start)
            yield frame

    monkeypatch.setattr(Passes, "decode", count)
    path = encode(tmp_path / name, moving_square(60), options={"g": "30", "bf": "3", "b_strategy": "0"})
    with open_video(path) as video:
        video.frames([31, 32, 33, 34])
        # From the keyframe 30 on, without those later B-frames that no other frame needs.
        assert 0 not in decoded
        assert 4 <= len(decoded) <= 6
        decoded.clear()
        video.frames([3])
        assert len(decoded) <= 4


def without_one_frame(path, source):
    """Copy a video, with its packet 20 replaced by one of MPEG-4's "nothing new", which gives no frame."""
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for number, packet in enumerate(old.demux(video=0)):
            if packet.dts is None:
                continue
            if number == 20:
                # Start code, coding type (2 bits), whole seconds (1 each, then 0), marker, 5 bits of time,
                # marker, and the bit that says whether anything is coded.
                bits = "".join(f"{byte:08b}" for byte in bytes(packet)[4:8])
                coded = 2 + bits[2:].index("0") + 1 + 1 + 5 + 1
                header = bits[:coded] + "0" + "0".ljust(8 - (coded + 1) % 8, "1")
                content = bytes(packet)[:4] + int(header, 2).to_bytes(len(header) // 8, "big")
                replacement = av.Packet(content)
                replacement.pts, replacement.dts, replacement.time_base = (
                    packet.pts,
                    packet.dts,
                    packet.time_base,
                )
                packet = replacement
            packet.stream = stream
            new.mux(packet)
    return path


def test_packets_that_give_no_frame_are_not_counted(tmp_path):
    source = encode(tmp_path / "all.avi", moving_square(), "mpeg4", options={"g": "100"})
    path = without_one_frame(tmp_path / "less.avi", source)
    everything = decode_all(path)
    assert len(everything) == 39
    with open_video(path) as video:
        assert len(video.timestamps) == 39
        np.testing.assert_array_equal(video.frames([19, 20, 38]), everything[[19, 20, 38]])


def test_variable_frame_rate_is_exact(tmp_path):
    times = np.cumsum(np.random.default_rng(1).integers(10, 90, 40))
    path = encode(tmp_path / "vfr.mkv", moving_square(), pts=times.tolist(), fps=1000)
    with open_video(path) as video:
        np.testing.assert_allclose(video.timestamps, times / 1000, atol=1e-9)


def test_rotated_frames_come_out_upright(tmp_path):
    path = encode(tmp_path / "turned.mp4", moving_square(8), rotation=90)
    with open_video(path) as video:
        assert abs(video.rotation) == 90
        turned = np.rot90(decode_all(path), video.rotation // 90, axes=(1, 2))
        assert video.frames([0]).shape == (1, 64, 48, 3)
        np.testing.assert_array_equal(video.frames(range(8)), turned)


def test_metadata_that_is_not_text(tmp_path):
    path = encode(tmp_path / "title.avi", moving_square(8), "mpeg4", metadata={"title": "TITLETITLE"})
    content = path.read_bytes()
    assert b"TITLETITLE" in content
    path.write_bytes(content.replace(b"TITLETITLE", b"\xff\xfe\xd3ITLE\xc3(X"))
    with open_video(path) as video:
        assert len(video.timestamps) == 8


def test_what_is_written_is_read_again(tmp_path):
    for size in ((48, 64), (47, 63)):
        clip = moving_square(30, *size)
        write_video(tmp_path / "a.mp4", clip, 12.5)
        with open_video(tmp_path / "a.mp4") as video:
            np.testing.assert_allclose(video.timestamps, np.arange(30) * 0.08, atol=1e-6)
            found = video.frames(range(30))
        assert found.shape == clip.shape
        assert np.abs(found.astype(int) - clip).mean() < 12


@pytest.mark.parametrize("name", ["12:30.mp4", "with space & 'quote'.mp4", "50%d.mp4", "ünïcode.mp4"])
def test_names_that_look_like_something_else(tmp_path, monkeypatch, name):
    write_video(tmp_path / "plain.mp4", moving_square(8), 25)
    (tmp_path / "plain.mp4").rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    with open_video(name) as video:
        assert len(video.timestamps) == 8


def refusal(path):
    with pytest.raises(VideoError) as caught, open_video(path) as video:
        video.frames([0])
    assert caught.value.path == str(path)
    assert str(path) in str(caught.value)
    return caught.value.reason


def test_bad_files_are_refused_with_their_reason(real_videos):
    bad = real_videos / "bad"
    assert refusal(bad / "bad_moviepy_empty.webm") == "empty"
    assert refusal(bad / "lfs_pointer_archery.mp4") == "pointer"
    assert refusal(bad / "bad_mp4parse_chunk_out_of_range.mp4") == "not-a-video"
    assert refusal(bad / "bad_exo_vp9_invalid_bitstream.webm") == "no-frames"


def test_generated_bad_files_are_refused_with_their_reason(tmp_path):
    assert refusal(tmp_path / "nowhere.mp4") == "missing"
    assert refusal(tmp_path) == "not-a-file"
    pointer = b"version https://git-lfs.github.com/spec/v1\n"
    files = {"empty": b"", "pointer": pointer, "not-a-video": b"hello" * 99}
    for reason, content in files.items():
        (tmp_path / "file.mp4").write_bytes(content)
        assert refusal(tmp_path / "file.mp4") == reason
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert refusal(tmp_path / "sound.mp4") == "no-video-stream"


def test_a_damaged_file_is_read_in_part(real_videos):
    with open_video(real_videos / "bad" / "bad_decord_corrupted.mp4") as video:
        assert (len(video.timestamps), len(video.scan.timestamps), video.scan.errors) == (50, 49, 1)
        lost = int(np.abs(video.timestamps[:, None] - video.scan.timestamps).min(axis=1).argmax())
        with pytest.raises(VideoError, match=rf"damaged: frame {lost} does not decode \(49 of 50 do\)"):
            video.frames([lost - 1, lost])
        assert video.frames([lost - 1, lost + 1]).shape == (2, 720, 1280, 3)
    with open_video(real_videos / "bad" / "bad_mp4parse_no_timescale.mp4") as video:
        assert (len(video.scan.timestamps), video.scan.errors, video.rotation) == (170, 12, 0)
        assert video.scan.concealed > 0


def test_a_file_that_was_cut_short_is_read_up_to_there(tmp_path):
    path = encode(tmp_path / "cut.mkv", moving_square(60), options={"g": "10"})
    whole = decode_all(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with open_video(path) as video:
        count = len(video.scan.timestamps)
        assert 10 < count < 50
        np.testing.assert_array_equal(video.frames(range(count - 2)), whole[: count - 2])


def test_frames_outside_the_video_are_an_error(tmp_path):
    write_video(tmp_path / "a.mp4", moving_square(8), 25)
    with open_video(tmp_path / "a.mp4") as video, pytest.raises(IndexError, match="frames 0 to 7"):
        video.frames([0, 8])


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc to read its memory")
def test_two_thousand_opens_do_not_grow_memory(tmp_path):
    write_video(tmp_path / "a.mp4", moving_square(12), 25)

    def read(times):
        for index in range(times):
            with open_video(tmp_path / "a.mp4") as video:
                video.frames([index % 12, 11])
        gc.collect()
        return resident_bytes()

    before = read(50)
    assert read(2000) - before < 10e6
