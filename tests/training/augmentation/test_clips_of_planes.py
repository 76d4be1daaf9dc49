"""Clips that the device makes of planes are those that workers make in RGB."""

from dataclasses import replace
from functools import partial

import av
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from videomae_jax.config import DataConfig, FinetuneConfig, LabelledDataConfig, PretrainConfig, VideoMAEConfig
from videomae_jax.data.records import VideoRecord
from videomae_jax.data.video.writing import write_video
from videomae_jax.training.augmentation.planes import filter_matrix
from videomae_jax.training.objectives.finetuning import Finetuning
from videomae_jax.training.objectives.pretraining import Pretraining

MODEL = VideoMAEConfig(image_size=64, num_frames=4)
CLIPS = DataConfig(sampling_rate=2, num_sample=3, flip=True)
LABELLED = LabelledDataConfig(sampling_rate=2, num_sample=2, canvas=(72, 128))
SIZES = {
    "small": (50, 66),
    "odd": (51, 65),
    "upright": (66, 50),
    "wide": (60, 126),
    "plain": (64, 90),
    "large": (90, 160),
}
KEYS = [(0, 0, place, 0) for place in range(4)]


def smooth(height, width):
    """Frames of brightness that changes fast and colours that do slowly, as in photographs."""
    y, x, t = np.mgrid[:height, :width, :24].astype(float)
    fast = np.sin(x / 3 + t / 9) * np.cos(y / 4 - t / 7)
    slow = [np.sin(x / (15 + c) + t / 9 + c) * np.cos(y / (16 - c)) for c in range(3)]
    return np.stack([128 + 60 * fast + 30 * wave for wave in slow], -1).transpose(2, 0, 1, 3).astype(np.uint8)


@pytest.fixture(scope="module", params=SIZES, ids=str)
def video(request, tmp_path_factory):
    """A video in YUV 4:2:0: the name of its size, and its file."""
    path = tmp_path_factory.mktemp("planes") / "smooth.mp4"
    height, width = SIZES[request.param]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264" if height % 2 == width % 2 == 0 else "libvpx-vp9", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for image in smooth(height, width):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return request.param, VideoRecord(str(path), "", 1)


@partial(jax.jit, static_argnums=0)
def with_video(objective, arrays):
    return objective.with_video(arrays)


def both(kind, config, record, key):
    """What the device has of a video, from a worker's RGB and from its planes."""
    found = []
    for pixels in ("rgb", "planes"):
        objective = kind(replace(config, data=replace(config.data, pixels=pixels)))
        arrays = objective.train_clips(record, key)
        assert {name: (each.shape, each.dtype) for name, each in arrays.items()} == {
            name: (each.shape, each.dtype) for name, each in objective.train_clips.blank().items()
        }
        assert ("planes" in arrays) == (pixels == "planes")
        found.append({name: np.asarray(each) for name, each in with_video(objective, arrays).items()})
    return found


@pytest.mark.parametrize("clips", [1, 3])
def test_pre_training_clips(video, clips):
    name, record = video
    config = PretrainConfig(MODEL, replace(CLIPS, num_sample=clips))
    for key in KEYS:
        wanted, found = both(Pretraining, config, record, key)
        assert found["video"].shape == wanted["video"].shape
        apart = np.abs(found["video"].astype(int) - wanted["video"]).reshape(clips, -1)
        # Boxes of 64 are not scaled: there workers take the decoder's quick conversion, which rounds down.
        # Those larger than the canvas are scaled twice.
        limits = (1.5, 24) if name in ("plain", "large") else (0.03, 1)
        assert (apart.mean(1) < limits[0]).all()
        assert apart.max() <= limits[1]


def test_fine_tuning_clips(video):
    _, record = video
    for key in KEYS[:2]:
        wanted, found = both(Finetuning, FinetuneConfig(replace(MODEL, num_labels=3), LABELLED), record, key)
        np.testing.assert_array_equal(found["box"], wanted["box"])
        np.testing.assert_array_equal(found["label"], wanted["label"])
        apart = found["video"].astype(int) - wanted["video"]
        assert np.abs(apart).mean() < 1.6
        assert np.abs(apart).max() <= 24
        height, width, _ = wanted["box"][0]
        assert not found["video"][:, :, height:].any()
        assert not found["video"][:, :, :, width:].any()


@pytest.mark.parametrize("clips", [1, 3])
def test_clips_of_other_shapes(video, clips):
    name, record = video
    model = replace(MODEL, image_size=(48, 80))
    wanted, found = both(
        Pretraining, PretrainConfig(model, replace(CLIPS, num_sample=clips)), record, KEYS[0]
    )
    assert found["video"].shape == (clips, 4, 48, 80, 3)
    apart = np.abs(found["video"].astype(int) - wanted["video"])
    assert apart.mean() < (0.03 if name in ("small", "odd") else 1.5)


def test_videos_of_other_planes_are_converted(tmp_path):
    write_video(tmp_path / "odd.mp4", smooth(51, 65), 25)  # Written with whole planes of colour.
    record = VideoRecord(str(tmp_path / "odd.mp4"), "")
    wanted, found = both(Pretraining, PretrainConfig(MODEL, CLIPS), record, KEYS[0])
    apart = np.abs(found["video"].astype(int) - wanted["video"])
    assert apart.mean() < 2
    assert apart.max() <= 24


def test_real_clips(real_videos):
    """The stated bound: see docs/data-speed.md."""
    model = VideoMAEConfig()
    scaled = plain = 0
    for path in sorted((real_videos / "action").glob("*.*"))[:4]:
        for key in KEYS[:2]:
            config = PretrainConfig(model, DataConfig())
            wanted, found = both(Pretraining, config, VideoRecord(str(path), ""), key)
            apart = np.abs(found["video"].astype(int) - wanted["video"])
            if apart.max() <= 1:
                scaled += 1
                assert apart.mean() < 0.02
            else:
                plain += 1
                assert apart.mean() < 1.5
    assert scaled > plain


@pytest.mark.parametrize(
    ("start", "length", "filled"), [(0, 90, 64), (3.5, 64, 64), (7.25, 21.5, 60), (1, 93, 33)]
)
def test_what_a_filter_takes_adds_up_to_one_without_a_sum_over_pixels(start, length, filled):
    def matrix(start, length, filled):
        return filter_matrix(start, length, filled, 96, 64)

    where = jnp.float32(start), jnp.float32(length), jnp.int32(filled)
    np.testing.assert_allclose(matrix(*where)[:filled].sum(axis=1), 1, rtol=0, atol=2e-6)
    assert "reduce" not in str(jax.make_jaxpr(matrix)(*where))  # What XLA takes minutes for on GPUs.


def test_planes_lie_there_once_for_all_clips_of_a_video():
    blank = Pretraining(PretrainConfig(VideoMAEConfig(), DataConfig(num_sample=4, pixels="planes")))
    rgb = Pretraining(PretrainConfig(VideoMAEConfig(), DataConfig(num_sample=4, pixels="rgb")))
    size, of_rgb = (sum(each.nbytes for each in run.train_clips.blank().values()) for run in (blank, rgb))
    assert size < 0.3 * of_rgb


def test_auto_is_planes_on_accelerators(monkeypatch):
    run = Pretraining(PretrainConfig(MODEL, DataConfig()))
    assert not run.reads_planes
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert run.reads_planes
    assert not Pretraining(PretrainConfig(MODEL, DataConfig(decoder="torchcodec"))).reads_planes
    assert not Pretraining(PretrainConfig(MODEL, DataConfig(pixels="rgb"))).reads_planes
