"""The classes that are seen in videos, on the command line and in Python."""

import json

import numpy as np
import pytest
import tyro
from random_classifier import CONFIG, DATA, random_classifier, softmax_of, write_run

from videomae_jax.config import ViewsConfig
from videomae_jax.data.clips.readers import TestViews as Views
from videomae_jax.data.loading.failures import Failure
from videomae_jax.data.records import VideoRecord
from videomae_jax.data.synthetic import write_synthetic_videos
from videomae_jax.errors import InputError
from videomae_jax.hardware import Hardware
from videomae_jax.inference.classify import Classify, VideoClassifier, classify
from videomae_jax.inference.features.video_encoder import VideoEncoder
from videomae_jax.models.blocks import compute_dtype
from videomae_jax.models.compiled_for import compiling_for
from videomae_jax.models.encoder import VideoMAEModel
from videomae_jax.models.pixels import normalize


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two good videos in val/, one bad one beside, and a run."""
    folder = tmp_path_factory.mktemp("videos")
    write_synthetic_videos(folder, train_per_class=0, val_per_class=1, side=48)
    for path in (folder / "val").iterdir():
        if path.stem not in ("up_000", "grow_000"):
            path.unlink()
    (folder / "bad.mp4").write_text("no video")
    write_run(folder / "run")
    return folder


@pytest.fixture(scope="module")
def classifier(folder):
    return VideoClassifier.from_pretrained(folder / "run")


def test_a_file_gets_its_best_classes(folder, classifier):
    path = folder / "val" / "up_000.mp4"
    found = classifier(str(path), top_k=8)
    model, params = random_classifier()
    clip = Views(CONFIG, DATA, ViewsConfig(1, 1))(VideoRecord(str(path), "up"), None)["video"]
    softmax = softmax_of(model, params, np.asarray(normalize(clip)))[0]
    order = np.argsort(-softmax)
    assert [each.number for each in found] == order.tolist()
    assert [each.label for each in found] == [CONFIG.id2label[number] for number in order]
    np.testing.assert_allclose([each.score for each in found], softmax[order], atol=2e-5)
    assert classifier(path, top_k=3) == found[:3]


def test_each_takes_paths_and_gives_a_reason_in_place_of_classes(folder, classifier):
    good, bad = folder / "val" / "up_000.mp4", folder / "bad.mp4"
    found = dict(classifier.each([good, str(bad)], top_k=3))
    assert [each.label for each in found[str(good)]] == [each.label for each in classifier(good, top_k=3)]
    assert isinstance(found[str(bad)], Failure)


def test_scores_are_computed_in_the_dtype_that_is_asked_for(folder, classifier, capsys):
    path = folder / "val" / "up_000.mp4"
    assert command(path, "--checkpoint", folder / "run", "--json", "--top-k", 8, "--dtype", "float16") == 0
    rounded = {each["label"]: each["score"] for each in json.loads(capsys.readouterr().out)["predictions"]}
    exact = {each.label: each.score for each in classifier(path, top_k=8)}
    assert rounded != exact
    assert rounded == pytest.approx(exact, abs=1e-2)


def test_weights_are_computed_in_what_suits_the_device(folder, classifier):
    for config in (classifier.predictor.config, VideoEncoder.from_pretrained(folder / "run").config):
        assert config.dtype == "auto"
        with compiling_for(Hardware("gpu", "NVIDIA H100", 9.0)):
            assert compute_dtype(config) == np.dtype("bfloat16")


def test_several_files_get_a_list_each_in_their_order(folder, classifier):
    paths = [folder / "val" / f"{name}_000.mp4" for name in ("up", "grow")]
    both = classifier(paths)
    assert len(both) == 2
    for path, found in zip(paths, both, strict=True):
        np.testing.assert_allclose(
            [each.score for each in found], [e.score for e in classifier(path)], atol=1e-6
        )
    assert both[0] != both[1]


def test_more_views_are_averaged(folder, classifier):
    path = folder / "val" / "up_000.mp4"
    many = VideoClassifier(classifier.predictor, DATA, ViewsConfig(3, 1))(path, top_k=8)
    assert sum(each.score for each in many) == pytest.approx(1, abs=1e-6)
    assert many != classifier(path, top_k=8)


def test_in_python_a_bad_file_raises_with_the_reason(folder, classifier):
    with pytest.raises(InputError, match=r"bad\.mp4: not-a-video"):
        classifier([folder / "val" / "up_000.mp4", folder / "bad.mp4"])


def command(*arguments: object) -> int:
    return classify(tyro.cli(Classify, args=[*map(str, arguments)]))


def test_the_command_prints_tables_and_goes_on_after_a_bad_file(folder, capsys):
    sources = (folder / "bad.mp4", folder / "val")
    assert command(*sources, "--checkpoint", folder / "run", "--top-k", 2) == 1
    said = capsys.readouterr()
    assert "bad.mp4: not-a-video" in said.err
    lines = said.out.splitlines()
    assert [line for line in lines if line.endswith(".mp4")] == [
        str(folder / "val" / "grow_000.mp4"),
        str(folder / "val" / "up_000.mp4"),
    ]
    assert len(lines) == 6
    assert "%" in lines[1]


def test_the_command_prints_lines_of_json(folder, classifier, capsys):
    path = folder / "val" / "up_000.mp4"
    assert command(path, "--checkpoint", folder / "run", "--json") == 0
    row = json.loads(capsys.readouterr().out)
    assert row["path"] == str(path)
    assert row["predictions"] == [vars(each) for each in classifier(path)]


def test_a_model_without_a_head_is_refused(tmp_path):
    _, params = random_classifier()
    VideoMAEModel(CONFIG).save_pretrained(tmp_path / "encoder", {"encoder": params["encoder"]})
    with pytest.raises(InputError, match="has no weights for fc_norm and head"):
        VideoClassifier.from_pretrained(tmp_path / "encoder")


@pytest.mark.parametrize("option", ["--top-k", "--batch-size", "--num-crops", "--sampling-rate"])
def test_numbers_below_one_are_refused(folder, option):
    with pytest.raises(InputError, match=f"{option} 0 must be 1 or more"):
        command(folder / "val", "--checkpoint", folder / "run", option, 0)
