"""The processor: every accepted form gives the same clip, which is what transformers makes of it."""

import json
import logging
import sys
from dataclasses import replace

import jax
import numpy as np
import pytest
from PIL import Image

from videomae_jax import VideoMAEFeatureExtractor, VideoMAEImageProcessor
from videomae_jax.errors import InputError
from videomae_jax.models.pixels import normalize
from videomae_jax.processing import FILES

IMAGENET = {"image_mean": (0.485, 0.456, 0.406), "image_std": (0.229, 0.224, 0.225)}
HALF = {"image_mean": 0.5, "image_std": 0.5}
"""What transformers takes where nothing is said."""
CLIPS = ["ucf_soccerjuggling_g23_c01.avi", "k_making_cake.mp4", "hmdb_wave_ratrace.avi"]
RNG = np.random.default_rng(0)
VIDEO = RNG.integers(0, 256, (4, 30, 40, 3), np.uint8)
SMALL = VideoMAEImageProcessor(size=24, crop_size=(24, 24))


@pytest.mark.parametrize(
    "form",
    [
        lambda v: v,
        lambda v: list(v),
        lambda v: [Image.fromarray(frame) for frame in v],
        lambda v: v.transpose(0, 3, 1, 2),
        lambda v: list(v.transpose(0, 3, 1, 2)),
        lambda v: v[None],
        lambda v: [list(v)],
        lambda v: [v],
        lambda v: [[Image.fromarray(frame) for frame in v]],
    ],
    ids=["array", "list", "pil", "channels first", "list channels first", "batch", "lists", "arrays", "pils"],
)
def test_every_form_is_the_same_clip(form):
    out = SMALL(form(VIDEO))
    assert out.pixel_values.shape == (1, 4, 24, 24, 3)
    assert out.pixel_values.dtype == np.float32
    np.testing.assert_array_equal(out["pixel_values"], SMALL(list(VIDEO)).pixel_values)


def test_a_batch_is_its_videos():
    other = VIDEO[::-1]
    both = SMALL([list(VIDEO), list(other)]).pixel_values
    np.testing.assert_array_equal(both, np.concatenate([SMALL(v).pixel_values for v in (VIDEO, other)]))
    np.testing.assert_array_equal(both, SMALL(np.stack([VIDEO, other])).pixel_values)


def test_channels_that_could_be_either(caplog):
    plain = VideoMAEImageProcessor(do_resize=False, do_center_crop=False)
    frames = RNG.integers(0, 256, (2, 3, 5, 3), np.uint8)
    assert plain(frames).pixel_values.shape == (1, 2, 5, 3, 3)
    assert "channels first" in caplog.text
    caplog.clear()
    assert plain(frames, input_data_format="channels_last").pixel_values.shape == (1, 2, 3, 5, 3)
    assert not caplog.text


def test_the_model_cards_random_frames():
    video = list(np.random.default_rng(0).normal(size=(16, 3, 224, 224)))
    clip = VideoMAEFeatureExtractor(**IMAGENET)(video, return_tensors="np").pixel_values
    assert clip.shape == (1, 16, 224, 224, 3)
    wanted = (np.stack(video).transpose(0, 2, 3, 1) / 255 - IMAGENET["image_mean"]) / IMAGENET["image_std"]
    np.testing.assert_allclose(clip[0], wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("video", "says"),
    [
        (np.zeros((4, 8, 8, 5)), "5"),
        (np.zeros((8, 8)), "2 axes"),
        ([], "empty"),
        ([list(VIDEO), list(VIDEO[:2])], "as many frames"),
        (Image.fromarray(VIDEO[0]), "list of frames"),
    ],
)
def test_what_is_no_video_is_refused(video, says):
    with pytest.raises(InputError, match=says):
        SMALL(video)


def test_other_tensors():
    wanted = SMALL(VIDEO).pixel_values
    made = SMALL(VIDEO, return_tensors="jax").pixel_values
    assert isinstance(made, jax.Array)
    np.testing.assert_array_equal(made, wanted)
    with pytest.raises(InputError, match='"np"'):
        SMALL(VIDEO, return_tensors="tf")
    torch = pytest.importorskip("torch", reason="torch is not installed (the parity group of pyproject.toml)")
    made = SMALL(VIDEO, return_tensors="pt").pixel_values
    assert isinstance(made, torch.Tensor)
    np.testing.assert_array_equal(made, wanted.transpose(0, 1, 4, 2, 3))  # As torch's models take them.


def test_without_torch_its_tensors_are_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InputError, match="needs torch"):
        SMALL(VIDEO, return_tensors="pt")


def test_a_call_may_differ():
    wanted = SMALL(VIDEO).pixel_values
    np.testing.assert_array_equal(SMALL(images=list(VIDEO)).pixel_values, wanted)
    np.testing.assert_array_equal(SMALL.preprocess(VIDEO).pixel_values, wanted)
    first = SMALL(VIDEO, data_format="channels_first").pixel_values
    np.testing.assert_array_equal(first, wanted.transpose(0, 1, 4, 2, 3))
    plain = SMALL(VIDEO, do_normalize=False, do_rescale=False, size={"height": 24, "width": 24})
    assert plain.pixel_values.max() > 200
    half = SMALL(VIDEO, image_mean=0.5, image_std=[0.5, 0.5, 0.5]).pixel_values
    np.testing.assert_array_equal(
        half, VideoMAEImageProcessor(size=24, crop_size=24, image_mean=0.5, image_std=0.5)(VIDEO).pixel_values
    )
    for wrong, says in (
        ({"do_resise": True}, "do_resise is not a setting"),
        ({"data_format": "first"}, "data_format='first'"),
        ({"images": VIDEO}, "not as both"),
    ):
        with pytest.raises(InputError, match=says):
            SMALL(VIDEO, **wrong)
    with pytest.raises(InputError, match="give the frames"):
        SMALL()


def test_by_itself_it_is_as_training_is():
    """The numbers that models here and the published ones are trained with; transformers' default is 0.5."""
    np.testing.assert_allclose(
        VideoMAEImageProcessor(size=30, do_center_crop=False)(VIDEO).pixel_values[0],
        normalize(VIDEO),
        atol=1e-6,
    )


@pytest.mark.parametrize(
    ("given", "size", "crop"),
    [
        ({"size": {"shortest_edge": 30}, "crop_size": 20}, {"shortest_edge": 30}, (20, 20)),
        ({"size": 30, "crop_size": [20, 24]}, {"shortest_edge": 30}, (20, 24)),
        ({"size": (30, 40), "crop_size": {"height": 20, "width": 24}}, {"height": 30, "width": 40}, (20, 24)),
        (
            {"size": {"height": 30, "width": 40, "longest_edge": None}},
            {"height": 30, "width": 40},
            (224, 224),
        ),
    ],
)
def test_every_spelling_of_sizes(tmp_path, given, size, crop):
    processor = VideoMAEImageProcessor(**given)
    assert processor.size == size
    assert ("shortest_edge" in processor.size) is ("shortest_edge" in size)
    assert processor.crop_size == {"height": crop[0], "width": crop[1]}
    assert VideoMAEImageProcessor.from_dict(processor.to_dict()) == processor
    (tmp_path / FILES[0]).write_text(json.dumps(given | {"image_mean": 0.4}))
    read = VideoMAEImageProcessor.from_pretrained(tmp_path, image_std=[0.1, 0.2, 0.3])
    assert read == replace(processor, image_mean=0.4, image_std=(0.1, 0.2, 0.3))
    assert hash(read.size) == hash(processor.size)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"size": {"longest_edge": 30}}, "longest_edge.*not understood"),
        ({"size": (1, 2, 3)}, "not understood"),
        ({"size": "224"}, "must be a whole number"),
        ({"size": 0}, "1 or more"),
        ({"crop_size": {"shortest_edge": 30}}, "not understood"),
        ({"crop_size": 22.5}, "whole number"),
        ({"resample": 9}, "from 0 to 5"),
        ({"do_resize": "yes"}, "True or False"),
        ({"image_mean": (0.1, 0.2)}, "one for each channel"),
        ({"image_mean": "abc"}, "must be a number"),
        ({"image_std": (0.1, 0.0, 0.2)}, "has a 0"),
        ({"rescale_factor": None}, "must be a number"),
        ({"sampling": "sparse"}, "one of dense, uniform"),
        ({"sampling_rate": 0}, "1 or more"),
    ],
)
def test_what_would_fail_later_is_refused_at_once(given, says):
    processor = VideoMAEImageProcessor()
    vars(processor).update(given)  # Tests check types, before a value that is of none comes in.
    with pytest.raises(ValueError, match=says):
        processor.__post_init__()


def test_saved_and_read_back(tmp_path):
    processor = VideoMAEImageProcessor(size=30, crop_size=(24, 20), resample=3, do_rescale=False, **IMAGENET)
    processor.save_pretrained(tmp_path / "new")
    assert VideoMAEImageProcessor.from_pretrained(tmp_path / "new") == processor
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["preprocessor_config.json"]


def test_older_spellings(tmp_path):
    values = {
        "size": 20,
        "crop_size": 16,
        "feature_extractor_type": "VideoMAEFeatureExtractor",
        "resample": 2,
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(values))
    processor = VideoMAEImageProcessor.from_pretrained(tmp_path)
    assert processor == VideoMAEImageProcessor(size=20, crop_size=16, **HALF)


@pytest.mark.parametrize("text", [None, "{", "[]", '{"image_mean": "a"}', '{"size": {"width": 3}}'])
def test_a_folder_without_a_readable_processor(tmp_path, text):
    if text is not None:
        (tmp_path / "preprocessor_config.json").write_text(text)
    with pytest.raises(InputError, match=r"preprocessor_config\.json"):
        VideoMAEImageProcessor.from_pretrained(tmp_path)


def read_frames(path):
    from videomae_jax.data.video import open_video  # needs a decoder

    with open_video(path) as video:
        return video.frames([0, 7, 20])


def theirs(**settings):
    pytest.importorskip("torch", reason="torch is not installed (the parity group of pyproject.toml)")
    transformers = pytest.importorskip(
        "transformers", reason="transformers is not installed (the parity group)"
    )
    return transformers.VideoMAEImageProcessorPil(**settings)


@pytest.mark.parametrize("name", CLIPS)
@pytest.mark.parametrize(
    "settings",
    [{}, IMAGENET, IMAGENET | {"size": {"shortest_edge": 300}, "resample": 3}, {"do_resize": False}],
)
def test_real_clips_as_transformers_makes_them(real_videos, tmp_path, name, settings):
    frames = read_frames(real_videos / "action" / name)
    processor = theirs(**settings)
    processor.save_pretrained(tmp_path)
    wanted = processor(list(frames), return_tensors="np").pixel_values.transpose(0, 1, 3, 4, 2)
    ours = VideoMAEImageProcessor.from_pretrained(tmp_path)
    std = np.asarray(settings.get("image_std", (0.5, 0.5, 0.5)))
    levels = np.abs(ours(list(frames)).pixel_values - wanted) * std * 255
    assert levels.max() <= 1e-3  # grey levels: the same but for float32 rounding
    ours.save_pretrained(tmp_path / "back")
    again = type(processor).from_pretrained(tmp_path / "back")
    np.testing.assert_array_equal(
        again(list(frames), return_tensors="np").pixel_values.transpose(0, 1, 3, 4, 2), wanted
    )


def test_padding_as_transformers_pads():
    """Odd differences, and one axis to crop where the other is too short."""
    settings = {"crop_size": {"height": 45, "width": 27}, "do_resize": False}
    wanted = theirs(**settings)(list(VIDEO), return_tensors="np").pixel_values.transpose(0, 1, 3, 4, 2)
    ours = VideoMAEImageProcessor(crop_size=(45, 27), do_resize=False, **HALF)(VIDEO).pixel_values
    np.testing.assert_allclose(ours, wanted, rtol=0, atol=1e-6)


def test_floats_are_not_rounded_to_grey_levels():
    """transformers resizes floats in [0, 1] as truncated uint8; here they differ by less than one level."""
    frames = VIDEO.astype(np.float32) / 255
    processor = theirs(size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24}, do_rescale=False)
    logging.disable(logging.WARNING)
    wanted = processor(list(frames), return_tensors="np").pixel_values.transpose(0, 1, 3, 4, 2)
    logging.disable(logging.NOTSET)
    ours = VideoMAEImageProcessor(size=24, crop_size=24, do_rescale=False, **HALF)(frames).pixel_values
    levels = np.abs(ours - wanted) * 0.5 * 255
    assert 0 < levels.max() <= 2
