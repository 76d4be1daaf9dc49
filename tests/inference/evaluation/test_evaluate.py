"""Accuracy over views of each video: the command's files, and what must not change a score."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
import tyro
from PIL import Image
from random_classifier import CONFIG, DATA, VIEWS, random_classifier, softmax_of, write_run

from videomae_jax.checkpoints.trees import params_digest
from videomae_jax.config import ViewsConfig
from videomae_jax.data.clips.readers import TestViews as Views
from videomae_jax.data.labels import read_videos_of_model
from videomae_jax.data.records import VideoRecord
from videomae_jax.data.synthetic import MOTIONS, write_synthetic_videos
from videomae_jax.errors import InputError, RunError
from videomae_jax.inference.evaluation import command
from videomae_jax.inference.evaluation.command import (
    Evaluate,
    evaluate,
    evaluate_checkpoint,
    read_trained_videos,
)
from videomae_jax.inference.evaluation.evaluate import evaluate_videos
from videomae_jax.inference.normalization import read_normalization
from videomae_jax.inference.predictor import Predictor, rows
from videomae_jax.inference.processor import VideoMAEImageProcessor
from videomae_jax.inference.views import Inference, choose_views

NAMES = tuple(MOTIONS)


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    """A folder with val.csv and one video of each motion, 40 frames of 48 x 48."""
    folder = tmp_path_factory.mktemp("videos")
    write_synthetic_videos(folder, train_per_class=0, val_per_class=1, side=48)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(CONFIG, random_classifier()[1])


def records(folder: Path, names=NAMES) -> tuple[VideoRecord, ...]:
    return tuple(
        VideoRecord(str(folder / "val" / f"{name}_000.mp4"), name, NAMES.index(name)) for name in names
    )


def test_a_score_is_the_mean_of_the_softmax_of_each_view(videos, predictor):
    model, params = random_classifier()
    chosen = records(videos)[:3]
    found = evaluate_videos(predictor, chosen, NAMES, DATA, VIEWS, batch_size=4, num_workers=0)
    for record, scores in zip(chosen, found.scores, strict=True):
        clips = Views(CONFIG, DATA, VIEWS)(record, None)["video"]
        pixels = (clips / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        softmax = softmax_of(model, params, pixels)
        assert len(clips) == 6
        assert (
            np.abs(softmax - softmax.mean(0)).max() > 1e-4
        )  # Views differ, or the mean would prove nothing.
        np.testing.assert_allclose(scores, softmax.mean(0), atol=2e-5)
    assert np.abs(found.scores[0] - found.scores[1]).max() > 1e-2


def test_views_are_averaged_exactly_and_in_their_order(videos, predictor):
    record = records(videos)[0]
    found = evaluate_videos(predictor, (record,), NAMES, DATA, VIEWS, batch_size=1, num_workers=0)
    clips = Views(CONFIG, DATA, VIEWS)(record, None)["video"]
    total = np.zeros(len(NAMES))
    for clip in clips:
        total += rows(predictor.start(clip[None]))[0].astype(np.float64)
    assert (found.scores[0] == total / len(clips)).all()


@pytest.mark.parametrize(("batch_size", "num_workers"), [(4, 0), (100, 2)])
def test_batches_and_workers_do_not_change_predictions(videos, predictor, batch_size, num_workers):
    one, other = (
        evaluate_videos(
            predictor, records(videos)[:5], NAMES, DATA, VIEWS, batch_size=size, num_workers=workers
        )
        for size, workers in ((16, 0), (batch_size, num_workers))
    )
    np.testing.assert_allclose(one.scores, other.scores, atol=1e-6)


def test_a_corrupt_video_changes_the_count_and_no_other_score(videos, predictor, tmp_path):
    good = records(videos)[:5]
    broken = tmp_path / "broken.mp4"
    broken.write_text("no video\n" * 99)
    spoilt = (*good[:2], replace(good[2], path=str(broken)), *good[3:])
    before, after = (
        evaluate_videos(predictor, each, NAMES, DATA, VIEWS, batch_size=12, num_workers=0)
        for each in (good, spoilt)
    )
    assert (before.scores[[0, 1, 3, 4]] == after.scores[[0, 1, 3, 4]]).all()
    assert (before.top1.read, before.top1.failed) == (5, 0)
    assert (after.top1.read, after.top1.failed) == (4, 1)
    assert {position: failure.reason for position, failure in after.failures.items()} == {2: "not-a-video"}
    assert after.top1.share_failures_wrong == after.top1.correct / 5


def test_files_of_one_name_in_two_folders_stay_apart(videos, run, tmp_path):
    for folder, name in (("a", "left"), ("b", "grow")):
        (tmp_path / folder).mkdir()
        shutil.copy(videos / "val" / f"{name}_000.mp4", tmp_path / folder / "clip.mp4")
    (tmp_path / "list.csv").write_text("a/clip.mp4 0\nb/clip.mp4 7\na/clip.mp4 0\n")
    copied = shutil.copytree(run / "checkpoints/7", tmp_path / "my model")  # Its name tells no step.
    found = evaluate_checkpoint(
        Evaluate((str(tmp_path / "list.csv"),), str(copied), num_workers=0, out=tmp_path / "out")
    )
    assert json.loads((tmp_path / "out/evaluation.json").read_text())["checkpoint"]["step"] is None
    assert [video.name for video in found.videos] == ["a/clip.mp4", "b/clip.mp4"]  # The repeat counts once.
    assert np.abs(found.scores[0] - found.scores[1]).max() > 1e-2


def test_an_evaluation_says_where_the_trained_videos_are_not_found(videos, run, monkeypatch, caplog):
    assert read_trained_videos("somebody/on-the-hub") == ()
    said = {"config": {"data": {"train": [str(videos / "val.csv")]}}}
    monkeypatch.setattr(command, "read_description", lambda folder: said)
    assert len(read_trained_videos(str(run))) > 0
    assert not caplog.records
    said["config"]["data"]["train"] = ["gone/train.csv"]
    assert read_trained_videos(str(run)) == ()
    assert "was trained on some of these videos is not known: gone/train.csv" in caplog.text


def test_the_command_writes_its_files_and_prints_a_summary(videos, run, tmp_path, capsys):
    (tmp_path / "missing.csv").write_text("gone.mp4 3\n")
    lists = (str(videos / "val.csv"), str(tmp_path / "missing.csv"))
    out = tmp_path / "deep" / "out"
    args = tyro.cli(
        Evaluate, args=[*lists, "--checkpoint", str(run), "--num-workers", "0", "--out", str(out)]
    )
    assert evaluate(args) == 0
    said = capsys.readouterr()
    result = json.loads((out / "evaluation.json").read_text())
    predictions = list(csv.DictReader((out / "predictions.csv").open()))
    correct = [row["label"] == row["predicted"] for row in predictions]
    assert [int(row["correct"]) for row in predictions] == [int(hit) for hit in correct]
    assert result["top1"]["correct"] == sum(correct)
    assert result["top1"]["share"] == np.mean(correct)
    assert result["top5"]["correct"] == sum(
        row["label"] in [row[f"class_{place}"] for place in range(1, 6)] for row in predictions
    )
    assert result["videos"] | {"digest": ""} == {
        "listed": 9,
        "read": 8,
        "failed": 1,
        "reasons": {"missing": 1},
        "digest": "",
    }
    assert result["checkpoint"]["step"] == 7
    # As the run was trained and tested.
    assert result["views"]["sampling_rate"] == 2
    assert (result["views"]["num_segments"], result["views"]["num_crops"]) == (2, 3)
    assert sum(each["correct"] for each in result["classes"]) == sum(correct)
    classes = list(csv.DictReader((out / "classes.csv").open()))
    assert [row["name"] for row in classes] == [each["name"] for each in result["classes"]]
    assert [int(row["correct"]) for row in classes] == [each["correct"] for each in result["classes"]]
    assert {row["top1"] == "" for row in classes if row["videos"] == "0"} <= {True}
    assert [row["reason"] for row in csv.DictReader((out / "failures.csv").open())] == ["missing"]
    with Image.open(out / "confusion.png") as picture:
        assert picture.width > 500
    assert f"top-1 {np.mean(correct):.2%}" in said.out
    assert "1 of 9 videos could not be read: 1 missing" in said.out
    assert "evaluating: 100%" in said.err


def test_the_digest_is_of_the_weights_wherever_they_lie(run, predictor, tmp_path):
    model, params = random_classifier()
    model.save_pretrained(tmp_path / "hf", params)
    stored = (Predictor.from_pretrained(source).params for source in (tmp_path / "hf", run))
    assert {params_digest(each) for each in stored} == {params_digest(predictor.params)}
    other = params | {"head": jax.tree.map(lambda leaf: np.nextafter(leaf, 1), params["head"])}
    assert params_digest(other) != params_digest(params)


def test_the_normalisation_of_a_hugging_face_folder_counts(videos, predictor, tmp_path):
    model, params = random_classifier()
    model.save_pretrained(tmp_path, params)
    assert read_normalization(tmp_path) == predictor.normalization  # Nothing is said: ImageNet's.
    VideoMAEImageProcessor(image_mean=(0.5, 0.5, 0.5), image_std=(0.5, 0.4, 0.5)).save_pretrained(tmp_path)
    half = Predictor.from_pretrained(tmp_path)
    clip = Views(CONFIG, DATA, ViewsConfig(1, 1))(records(videos)[0], None)["video"]
    pixels = (clip / 255 - 0.5) / [0.5, 0.4, 0.5]
    expected = softmax_of(model, params, pixels)
    np.testing.assert_allclose(rows(half.start(clip)), expected, atol=2e-5)
    assert np.abs(rows(predictor.start(clip)) - expected).max() > 1e-2


def test_weights_that_are_not_finite_are_no_result(videos):
    _, params = random_classifier()
    broken = Predictor(CONFIG, params | {"head": jax.tree.map(lambda leaf: leaf * np.nan, params["head"])})
    with pytest.raises(RunError, match="not finite"):
        evaluate_videos(broken, records(videos)[:1], NAMES, DATA, ViewsConfig(1, 1), num_workers=0)


def test_without_one_video_that_reads_there_is_no_result(predictor, tmp_path):
    gone = (VideoRecord(str(tmp_path / "gone.mp4"), "gone", 0),)
    with pytest.raises(RunError, match=r"none of the 1 videos could be read, .*gone\.mp4: missing"):
        evaluate_videos(predictor, gone, NAMES, DATA, ViewsConfig(1, 1), num_workers=0)


@pytest.fixture
def class_folders(videos, tmp_path) -> str:
    """Folders of two classes of the eight, whose own order is not the model's."""
    for name in ("up", "grow"):
        (tmp_path / "val" / name).mkdir(parents=True)
        shutil.copy(videos / "val" / f"{name}_000.mp4", tmp_path / "val" / name / "clip.mp4")
    return str(tmp_path / "val")


def test_folders_are_matched_by_the_names_of_classes(class_folders):
    found, classes = read_videos_of_model((class_folders,), CONFIG)
    assert {NAMES[video.label] for video in found} == {"up", "grow"}
    assert all(Path(video.path).parent.name == NAMES[video.label] for video in found)
    assert classes.names == NAMES


def test_folders_need_names_where_the_model_knows_none(class_folders, tmp_path):
    nameless = replace(CONFIG, id2label=())
    with pytest.raises(InputError, match=r"2 classes, but the model has 8 .* --classes FILE"):
        read_videos_of_model((class_folders,), nameless)
    (tmp_path / "classes.txt").write_text("\n".join(NAMES))
    found, classes = read_videos_of_model((class_folders,), nameless, None, str(tmp_path / "classes.txt"))
    assert {NAMES[video.label] for video in found} == {"up", "grow"}
    assert classes.names == NAMES


def test_a_model_can_choose_among_the_classes_of_the_data_alone(class_folders, run, tmp_path, capsys):
    """As VideoMAE V2 measures a model of Kinetics-710 on Kinetics-400: by the logits of its classes."""
    settings = {"num_segments": 1, "num_crops": 1, "num_workers": 0}
    args = Evaluate((class_folders,), str(run), **settings, out=tmp_path / "all")
    whole = evaluate_checkpoint(args)
    among = evaluate_checkpoint(replace(args, only_data_classes=True, out=tmp_path / "two"))
    numbers = sorted([NAMES.index("up"), NAMES.index("grow")])
    assert among.class_names == tuple(NAMES[number] for number in numbers)
    kept = whole.scores[:, numbers]
    np.testing.assert_allclose(among.scores, kept / kept.sum(axis=1, keepdims=True), rtol=1e-4)
    assert [NAMES[v.label] for v in whole.videos] == [among.class_names[v.label] for v in among.videos]
    assert capsys.readouterr().out == "choosing among 2 classes: those that the data has\n"
    reports = [json.loads((tmp_path / name / "evaluation.json").read_text()) for name in ("all", "two")]
    assert reports[0]["checkpoint"] == reports[1]["checkpoint"], "of the weights as they are"
    assert [each["name"] for each in reports[1]["classes"]] == list(among.class_names)
    (tmp_path / "val.txt").write_text("val/up/clip.mp4 1\n")
    (tmp_path / "classes.txt").write_text("Right\nup\n")
    listed = replace(args, lists=(str(tmp_path / "val.txt"),), only_data_classes=True, out=tmp_path / "list")
    with pytest.raises(InputError, match=r"all videos are of one class.* --classes FILE"):
        evaluate_checkpoint(listed)
    found = evaluate_checkpoint(replace(listed, classes=str(tmp_path / "classes.txt")))
    assert set(found.class_names) == {"right", "up"}


def test_a_file_of_classes_renumbers_lists_by_name(videos, tmp_path):
    turned = NAMES[::-1]
    (tmp_path / "classes.txt").write_text("\n".join(turned))
    lines = [f"val/{name}_000.mp4 {number}\n" for number, name in enumerate(turned)]
    (videos / "turned.csv").write_text("".join(lines))
    found, classes = read_videos_of_model(
        (str(videos / "turned.csv"),), CONFIG, None, str(tmp_path / "classes.txt")
    )
    assert classes.names == NAMES
    assert all(video.name == f"val/{NAMES[video.label]}_000.mp4" for video in found)
    (tmp_path / "classes.txt").write_text("\n".join([*turned[:7], "backwards"]))
    with pytest.raises(InputError, match=r"does not know: backwards\. It knows left, right"):
        read_videos_of_model((str(videos / "turned.csv"),), CONFIG, None, str(tmp_path / "classes.txt"))


@pytest.mark.parametrize("config", [CONFIG, replace(CONFIG, id2label=())], ids=["names", "no names"])
@pytest.mark.parametrize("line", ["clip.mp4 8\n", "clip.mp4\n"], ids=["label too high", "no label"])
def test_labels_that_will_not_do_are_refused_with_the_list(tmp_path, line, config):
    (tmp_path / "odd.csv").write_text(line)
    with pytest.raises(InputError, match=r"odd\.csv"):
        read_videos_of_model((str(tmp_path / "odd.csv"),), config)


def test_one_video_with_two_labels_is_refused(tmp_path):
    (tmp_path / "list.csv").write_text("clip.mp4 1\nclip.mp4 2\n")
    with pytest.raises(InputError, match=r"clip\.mp4 is in the lists with the labels 1 and 2"):
        read_videos_of_model((str(tmp_path / "list.csv"),), CONFIG)


def test_views_are_those_asked_for_or_those_of_the_run(run, tmp_path):
    assert choose_views(run, Inference()) == (DATA, VIEWS)
    data, views = choose_views(run, Inference(sampling="uniform"), num_crops=1)
    assert (data.sampling, data.sampling_rate, views) == ("uniform", 2, ViewsConfig(2, 1))
    data, views = choose_views(tmp_path, Inference())  # No run: as published for Kinetics.
    assert (data.sampling, data.sampling_rate, views) == ("dense", 4, ViewsConfig(5, 3))
    with pytest.raises(InputError, match="--num-segments 0 must be 1 or more"):
        choose_views(run, Inference(), num_segments=0)
