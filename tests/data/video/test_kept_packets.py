"""What is kept of long files: the same frames, never of another file, and never in the way."""

import errno
import os
import random
from fractions import Fraction

import av
import numpy as np
import pytest

from videomae_jax.data.video import kept_packets, open_video, passes


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Every file counts as long, and as one that has not changed for a while."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(passes, "LONG", 0)
    monkeypatch.setattr(kept_packets, "_SECONDS_AT_REST", 0)
    return tmp_path / "cache"


def write(path, codec="libx264", seed=0, frames=60, fps=25, **options):
    rng = np.random.default_rng(seed)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(fps), options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(frames):
            image = rng.integers(0, 255, (6, 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def read(path, wanted=(3, 40, 41, 55)):
    """Frames, and whether packets were read from the file."""
    asked = []

    def counted(container, stream):
        asked.append(path)
        return original(container, stream)

    original = passes.read_packets
    passes.read_packets = counted
    try:
        with open_video(path) as video:
            return video.frames(wanted), bool(asked)
    finally:
        passes.read_packets = original


def plain(path, wanted=(3, 40, 41, 55)):
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return np.stack([frames[n] for n in wanted])


def kept_files(cache):
    return sorted(path for path in cache.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "libx264", {"g": "20", "bf": "3"}),
        ("a.mkv", "libx264", {"g": "20", "bf": "3"}),
        ("a.mov", "mpeg4", {"g": "20"}),
        ("a.mkv", "libx265", {"x265-params": "keyint=20:log-level=none"}),
        ("a.webm", "libvpx-vp9", {"g": "20", "cpu-used": "8"}),
    ],
)
def test_what_is_kept_is_what_was_read(tmp_path, cache, name, codec, options):
    path = write(tmp_path / name, codec, **options)
    with open_video(path) as video:
        found, first = video._passes.packets, video.frames([3, 40, 41, 55])
        times, notes = video.timestamps, video.orientation
    with open_video(path) as video:
        again = video._passes.packets
        assert not again.sizes, "it was read from the file"
        np.testing.assert_array_equal(video.frames([3, 40, 41, 55]), first)
        np.testing.assert_array_equal(video.timestamps, times)
        assert (video.orientation, video.scan.errors) == (notes, 0)
    for name in ("codec", "container", "told_starts", "starts"):
        assert getattr(again, name) == getattr(found, name)
    for name in ("pts", "dts", "places", "times"):
        assert list(getattr(again, name)) == list(getattr(found, name))
    marks = [found.is_marked_right(n) for n in range(60)]
    assert [again.is_marked_right(n) for n in range(60)] == marks
    np.testing.assert_array_equal(first, plain(path))
    assert len(kept_files(cache)) == 1


def edit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


def restore_times(path, before):
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace(path):
    """With a file of the same size and time of change."""
    other = write(path.with_name("other.mp4"), seed=7, g="20", crf="40")
    content, size = other.read_bytes(), path.stat().st_size
    assert len(content) < size
    other.write_bytes(content.ljust(size, b"\0"))
    other.replace(path)


@pytest.mark.parametrize(
    "change",
    [edit, replace, lambda path: os.truncate(path, path.stat().st_size - 5)],
    ids=["edited", "replaced", "cut short"],
)
def test_another_state_of_a_file_is_read_anew(tmp_path, cache, change):
    path = write(tmp_path / "a.mp4", g="20")
    assert [read(path)[1], read(path)[1]] == [True, False]
    before = path.stat()
    change(path)
    restore_times(path, before)
    with open_video(path) as video:
        assert video._passes.packets.sizes
    (one,) = kept_files(cache)  # In place of what was kept.
    assert one


def test_a_file_that_is_exchanged_while_it_is_open(tmp_path, cache):
    path, wanted = write(tmp_path / "a.mp4", g="20"), (3, 40, 41, 55)
    write(tmp_path / "b.mp4", seed=7, g="20")
    first = plain(path)
    with open_video(path) as video:
        (tmp_path / "b.mp4").replace(path)
        assert video._passes.packets.sizes
        assert not kept_files(cache)
    np.testing.assert_array_equal(read(path)[0], plain(path))
    with open_video(path) as video:
        write(tmp_path / "c.mp4", seed=8, g="20").replace(path)
        assert video._passes.packets.sizes, "what was kept is of the file that was opened, but who knows"
    assert not np.array_equal(first, read(path, wanted)[0])


def test_a_file_that_changed_just_now_is_not_kept(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(kept_packets, "_SECONDS_AT_REST", 10)
    path = write(tmp_path / "a.mp4", g="20")
    os.utime(path, (0, 0))  # The time of change of the file's entry tells.
    assert [read(path)[1], read(path)[1]] == [True, True]
    assert not kept_files(cache)


def test_short_files_are_not_kept(tmp_path, cache, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setattr(kept_packets, "_SECONDS_AT_REST", 0)
    read(write(tmp_path / "a.mp4", g="20"))
    assert not kept_files(cache)
    read(write(tmp_path / "b.mkv", g="20", fps=60 / kept_packets.LONG))
    assert len(kept_files(cache)) == 1


def test_what_is_broken_is_passed_over_and_written_anew(tmp_path, cache):
    path = write(tmp_path / "a.mp4", g="20")
    right, _ = read(path)
    (kept,) = kept_files(cache)
    content, draw = kept.read_bytes(), random.Random(0)
    broken = [b"", b"nothing of the kind", *(content[: draw.randrange(len(content))] for _ in range(5))]
    for _ in range(40):
        changed = bytearray(content)
        changed[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        broken.append(bytes(changed))
    anew = 0
    for each in broken:
        kept.write_bytes(each)
        frames, is_read = read(path)
        np.testing.assert_array_equal(frames, right)
        anew += is_read
        assert not is_read or kept.read_bytes() != each
    assert anew > 25  # The rest are bits that nobody reads, such as times in the zip file.


def no_room(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_no_room_and_no_folder_are_no_hindrance(tmp_path, cache, monkeypatch):
    path = write(tmp_path / "a.mp4", g="20")
    with monkeypatch.context() as patched:
        patched.setattr(np, "savez_compressed", no_room)
        np.testing.assert_array_equal(read(path)[0], plain(path))
    assert not kept_files(cache)
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    np.testing.assert_array_equal(read(path)[0], plain(path))


def test_the_oldest_goes_when_there_is_too_much(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(kept_packets, "_FOLDERS", 1)
    paths = [write(tmp_path / f"{n}.mp4", seed=n, g="20") for n in range(4)]
    for n, path in enumerate(paths):
        read(path)
        place = kept_packets._place(str(path))
        os.utime(place, ns=(0, 10**9 * n))  # So that files of one moment have an order.
        monkeypatch.setattr(kept_packets, "MOST_BYTES", 2.5 * place.stat().st_size)
    assert [kept_packets._place(str(path)).exists() for path in paths] == [False, False, True, True]
