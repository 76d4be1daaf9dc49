"""What a model is shown goes with its weights from form to form, and to transformers and back."""

import json

import numpy as np
import pytest
from random_classifier import CONFIG, DATA, VIEWS, random_classifier, softmax_of, write_run

from videomae_jax import VideoMAEForVideoClassification, VideoMAEImageProcessor, cli
from videomae_jax.inference.normalization import Normalization, read_normalization
from videomae_jax.inference.predictor import Predictor, rows
from videomae_jax.inference.views import Inference, choose_views
from videomae_jax.processing import FILES, Processing

torch = pytest.importorskip("torch", reason="torch is not installed (the extra convert)")

FORMS = ("hf", "orbax", "torch", "orbax", "hf", "torch", "hf")
SAID = Processing(
    size={"shortest_edge": 40}, crop_size=32, resample=3, rescale_factor=1 / 200, image_mean=0.5,
    image_std=(0.5, 0.4, 0.3), sampling="uniform", sampling_rate=3, num_segments=2, num_crops=1,
)  # fmt: skip
FRAMES = np.random.default_rng(0).integers(0, 256, (CONFIG.num_frames, 40, 52, 3), np.uint8)


def through_all_forms(place, folder):
    """Convert from form to form; yields each folder, and of files the folder made of them."""
    for number, form in enumerate(FORMS):
        target = folder / (f"{number}.pth" if form == "torch" else str(number))
        assert cli.main(["convert", str(place), str(target), "--to", form]) == 0
        if form != "torch":
            yield target
        place = target


def test_a_processor_comes_through_every_form(tmp_path):
    params = random_classifier()[1]
    VideoMAEForVideoClassification(CONFIG, processing=SAID).save_pretrained(tmp_path / "a", params)
    clip = VideoMAEImageProcessor.from_pretrained(tmp_path / "a")(list(FRAMES))
    assert (
        np.abs(clip.pixel_values - VideoMAEImageProcessor(size=40, crop_size=32)(FRAMES).pixel_values).max()
        > 0.1
    )
    for place in through_all_forms(tmp_path / "a", tmp_path):
        assert vars(VideoMAEImageProcessor.from_pretrained(place)) == vars(SAID)
        again, params_again = VideoMAEForVideoClassification.from_pretrained(place)
        assert again.processing == SAID
        again.save_pretrained(tmp_path / "saved", params_again)
        assert (tmp_path / "saved" / FILES[0]).read_text() == (tmp_path / "a" / FILES[0]).read_text()
        assert read_normalization(place) == Normalization((0.5, 0.5, 0.5), (0.5, 0.4, 0.3), 1 / 200)
        data, views = choose_views(place, Inference())
        assert (data.sampling, data.sampling_rate, views.num_segments, views.num_crops) == (
            "uniform",
            3,
            2,
            1,
        )


def test_how_a_run_was_trained_comes_through_every_form(tmp_path):
    write_run(tmp_path / "run")
    for place in through_all_forms(tmp_path / "run", tmp_path):
        assert choose_views(place, Inference()) == (DATA, VIEWS)
        assert read_normalization(place) == Normalization()
        processor = VideoMAEImageProcessor.from_pretrained(place)
        assert processor.size == {"shortest_edge": CONFIG.image_size}
        assert processor.sampling_rate == DATA.sampling_rate


def test_transformers_is_shown_the_same(tmp_path):
    """A run is exported; transformers' own classes find the folder and give the same scores."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed (extra parity)")
    write_run(tmp_path / "run")
    model, params = VideoMAEForVideoClassification.from_pretrained(tmp_path / "run")
    model.save_pretrained(tmp_path / "saved", params)
    assert cli.main(["convert", str(tmp_path / "run"), str(tmp_path / "a"), "--to", "hf"]) == 0
    for name in ("config.json", FILES[0]):
        assert (tmp_path / "a" / name).read_text() == (tmp_path / "saved" / name).read_text()
    theirs = transformers.AutoModelForVideoClassification.from_pretrained(tmp_path / "a").eval()
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "a")
    assert transformers.AutoConfig.from_pretrained(tmp_path / "a").id2label[2] == CONFIG.id2label[2]
    with torch.no_grad():
        scores = theirs(**processor(list(FRAMES), return_tensors="pt")).logits.softmax(-1).numpy()
    ours = VideoMAEImageProcessor.from_pretrained(tmp_path / "a")(list(FRAMES)).pixel_values
    np.testing.assert_allclose(softmax_of(model, params, ours), scores, atol=2e-5)
    square = FRAMES[:, :32, :32]
    direct = rows(Predictor.from_pretrained(tmp_path / "a").start(square[None]))
    with torch.no_grad():
        scores = theirs(**processor(list(square), return_tensors="pt")).logits.softmax(-1).numpy()
    np.testing.assert_allclose(direct, scores, atol=2e-5)
    processor.save_pretrained(tmp_path / "b")  # What transformers does not know stays there all the same.
    assert json.loads((tmp_path / "b" / FILES[0]).read_text())["sampling_rate"] == DATA.sampling_rate
