"""torchcodec beside PyAV: the same frames, for all kinds of files."""

import importlib
import struct
from contextlib import closing
from types import SimpleNamespace

import numpy as np
import pytest
from built_videos import Build, build
from test_decoder import encode, moving_square
from test_faults import ShownWhenDecoded, remux

from videomae_jax.config import DataConfig, VideoMAEConfig
from videomae_jax.data.clips.readers import centre_view
from videomae_jax.data.records import VideoRecord
from videomae_jax.data.sets import open_record
from videomae_jax.data.video import VideoError, open_video
from videomae_jax.data.video import torchcodec as video_torchcodec
from videomae_jax.data.video.torchcodec import TorchcodecVideo
from videomae_jax.data.video.writing import write_video
from videomae_jax.errors import InputError


@pytest.fixture(scope="module")
def torchcodec():
    try:
        return importlib.import_module("torchcodec.decoders")
    except (ImportError, OSError, RuntimeError) as error:
        pytest.skip(f"needs torchcodec and the shared libraries of FFmpeg: {str(error).splitlines()[0]}")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "ramp.mp4"
    frames = np.random.default_rng(0).integers(0, 256, (40, 4, 6, 3), np.uint8).repeat(16, 1).repeat(16, 2)
    write_video(path, frames, 25)
    return path


def same(path):
    with open_video(path) as one:
        indices = np.linspace(0, len(one.timestamps) - 1, 9).astype(int)
        expected = one.frames(indices)
        other = TorchcodecVideo(str(path))
        found = other.frames(indices)
        other.close()
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).mean() < 2


def test_the_same_frames(torchcodec, path):
    same(path)


def test_the_same_frames_of_real_videos(torchcodec, real_videos):
    """Of other codecs, turned ones, with a variable rate or several streams too: none that it gets wrong."""
    refused = []
    for clip in sorted([*(real_videos / "action").iterdir(), *(real_videos / "edge").iterdir()]):
        try:
            same(clip)
        except VideoError as error:
            refused.append((clip.name, error.reason))
    assert len(refused) <= 6, refused


def test_a_reader_takes_the_decoder_of_its_settings(torchcodec, path, monkeypatch):
    model = VideoMAEConfig(image_size=32, patch_size=8, num_frames=4)
    record = VideoRecord(str(path), "ramp")
    used = []
    load = video_torchcodec._load
    monkeypatch.setattr(video_torchcodec, "_load", lambda: used.append(True) or load())
    clips = [centre_view(model, DataConfig(decoder=each))(record, None) for each in ("pyav", "torchcodec")]
    assert used == [True]
    assert np.abs(clips[0]["video"].astype(int) - clips[1]["video"]).mean() < 2


class Tensor(np.ndarray):
    """As much of torch's tensors as is used."""

    def numpy(self):
        return np.asarray(self)


class Decoder:
    """Stands in for torchcodec: gives frames that are late, or fails."""

    late = 0.0
    failure = None

    def __init__(self, source, **settings):
        pass

    def get_frames_played_at(self, seconds):
        if self.failure:
            raise self.failure
        images = np.zeros((len(seconds), 64, 96, 3), np.uint8)
        times = np.asarray(seconds) + self.late
        return SimpleNamespace(data=images.view(Tensor), pts_seconds=times.view(Tensor))


@pytest.mark.parametrize(
    ("late", "failure", "said"),
    [
        (0.0, None, None),
        (0.04, None, r"needs-pyav: torchcodec gives a frame 0\.040 s from frame [39]"),
        (0.0, RuntimeError("no more frames\nat line 3"), "needs-pyav: torchcodec says: no more frames$"),
    ],
)
def test_other_frames_are_refused_and_failures_named(path, monkeypatch, late, failure, said):
    monkeypatch.setattr(video_torchcodec, "_load", lambda: Decoder)
    monkeypatch.setattr(Decoder, "late", late)
    monkeypatch.setattr(Decoder, "failure", failure)
    with closing(TorchcodecVideo(str(path))) as video:
        if said is None:
            assert video.frames([3, 9]).shape == (2, 64, 96, 3)
            return
        with pytest.raises(VideoError, match=said):
            video.frames([3, 9])


def test_without_torchcodec_the_way_out_is_told(path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torchcodec.decoders", None)
    with (
        open_record(VideoRecord(str(path), "ramp"), "torchcodec") as video,
        pytest.raises(InputError, match=r"leave --data.decoder at pyav"),
    ):
        video.frames([0])


@pytest.mark.parametrize("fault", ["order", "mirror", "keyframes", "index"])
def test_what_it_would_give_wrong_is_refused(tmp_path, monkeypatch, fault):
    monkeypatch.setattr(video_torchcodec, "_load", lambda: Decoder)
    source = encode(tmp_path / "a.mp4", moving_square(20, 32, 48), options={"bf": "3", "b_strategy": "0"})
    if fault == "keyframes":
        encode(source, moving_square(20, 32, 48), "mpeg4", options={"g": "8"})
        source.write_bytes(source.read_bytes().replace(b"stss", b"free"))
    elif fault == "index":
        source = build(Build("mpeg4-p", "avi", damage="idx1"), tmp_path)
    elif fault == "order":
        source = remux(source, tmp_path / "b.mp4", ShownWhenDecoded())
    else:
        content = bytearray(source.read_bytes())
        struct.pack_into(">i", content, content.index(b"tkhd") + 44, -65536)
        source.write_bytes(content)
    with (
        closing(TorchcodecVideo(str(source))) as video,
        pytest.raises(VideoError, match=r"needs-pyav: .*(prove|mirrored|index)"),
    ):
        video.frames([3, 9])
