"""Paths that are no files, or files that the storage does not give, each refused for its true reason."""

import errno
import os
import socket
from pathlib import Path

import numpy as np
import pytest

from videomae_jax.config import VideoMAEConfig
from videomae_jax.data import regular_files
from videomae_jax.data.check import CheckData, check_data
from videomae_jax.data.regular_files import passing_failure, why_unread
from videomae_jax.data.video import VideoError, open_video
from videomae_jax.data.video.images import FrameFolder
from videomae_jax.data.video.writing import write_video
from videomae_jax.errors import InputError, printable
from videomae_jax.inference.clip import read_clip

pytestmark = pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs Linux's /proc to fail")


@pytest.fixture
def folder(tmp_path):
    """A good video, and one of each kind of path that cannot be read."""
    noise = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), np.uint8)
    write_video(tmp_path / "good.mp4", noise, 25)
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "gone.mp4").symlink_to("nowhere.mp4")
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    (tmp_path / "device.mp4").symlink_to("/dev/zero")
    (tmp_path / "folder.mp4").mkdir()
    # Its reading fails with EIO, as that of a broken disk does.
    (tmp_path / "broken.mp4").symlink_to("/proc/self/mem")
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(tmp_path)
        try:
            server.bind("socket.mp4")
        finally:
            os.chdir(here)
        yield tmp_path


REASONS = {
    "pipe.mp4": "not-a-file: it is a named pipe (FIFO)",
    "socket.mp4": "not-a-file: it is a socket",
    "device.mp4": "not-a-file: it is a device",
    "folder.mp4": "not-a-file: it is a folder",
    "gone.mp4": "missing: it links to nothing",
    "loop.mp4": "unreadable: Too many levels of symbolic links",
    "broken.mp4": "unreadable: Input/output error",
    "x" * 300 + ".mp4": "unreadable: File name too long",
    "nowhere/a.mp4": "missing: there is no such file",
    "good.mp4/a.mp4": "missing: there is no such file",
    "nul\0l.mp4": "missing: no file can have this name: ",
}


@pytest.mark.parametrize("name", REASONS, ids=lambda name: name.replace("\0", "0")[:10])
def test_each_is_refused_with_its_reason(folder, name):
    with pytest.raises(VideoError) as caught, open_video(f"{folder}/{name}") as video:
        video.frames([0])
    said = f"{caught.value.reason}: {caught.value.detail}"
    if "\0" in name:  # Python's words for it depend on its version.
        assert said.startswith(REASONS[name])
    else:
        assert said == REASONS[name]
    with pytest.raises(InputError, match=REASONS[name].split(":")[0]):
        read_clip(f"{folder}/{name}", VideoMAEConfig())


@pytest.mark.parametrize("code", [errno.EACCES, errno.ESTALE, errno.EIO])
def test_what_the_storage_refuses_is_named(folder, monkeypatch, code):
    def refuse(path, *, stat=os.stat):
        if str(path).endswith("good.mp4"):
            raise OSError(code, os.strerror(code))
        return stat(path)

    monkeypatch.setattr(regular_files.os, "stat", refuse)
    with pytest.raises(VideoError, match=f"unreadable: {os.strerror(code)}"), open_video(folder / "good.mp4"):
        pass


def test_a_file_is_read_to_its_end_to_find_what_fails(folder):
    assert why_unread(folder / "good.mp4") is None
    assert why_unread(folder / "broken.mp4") == ("unreadable", "Input/output error")
    assert why_unread(folder / "pipe.mp4") == ("not-a-file", "it is a named pipe (FIFO)")


def test_a_frame_that_is_a_pipe(folder):
    os.mkfifo(folder / "frame_1.jpg")
    with pytest.raises(VideoError, match=r"not-a-file: frame_1.jpg: it is a named pipe"):
        list(FrameFolder(str(folder)).read([0]))


def test_check_data_names_each_and_goes_on(folder, capsys):
    names = ["good.mp4", *(name for name in REASONS if "\0" not in name)]
    (folder / "list.txt").write_text("\n".join(names))
    assert check_data(CheckData((str(folder / "list.txt"),), num_workers=1)) == 1
    said = capsys.readouterr().out
    assert all(REASONS[name] in said for name in names[1:])
    assert f"{len(names)} videos: 0 good, 1 short, 0 odd, {len(names) - 1} bad" in said


def test_names_are_shown_so_that_no_terminal_obeys_them():
    assert printable("a\x1b[31m\n\tb.mp4") == r"a\x1b[31m\n\tb.mp4"
    assert printable(os.fsdecode(b"caf\xe9 \xc3\xbc.mp4")) == r"caf\xe9 ü.mp4"
    assert printable("two\nlines", keep="\n") == "two\nlines"
    assert str(VideoError("a\rb.mp4", "empty", "x")) == r"a\rb.mp4: empty: x"


@pytest.mark.parametrize(
    ("said", "passes"),
    [
        ("Retry policy exhausted, with a last message of PerformWork() - CURL error [52]=no data", True),
        ("UNAVAILABLE: the store is busy", True),
        ("Invalid chunk header", False),
    ],
)
def test_a_store_that_does_not_answer_is_not_damaged(said, passes):
    assert bool(passing_failure(RuntimeError(said))) == passes
