"""What a classifier's outputs mean goes with it: one class of all, labels by themselves, or numbers."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_classifier import CONFIG, random_classifier

from videomae_jax import VideoClassifier, VideoMAEConfig, cli
from videomae_jax.config import FinetuneConfig, PretrainConfig, check_trainable, load_config
from videomae_jax.errors import InputError
from videomae_jax.inference.clip import read_clip
from videomae_jax.inference.features.clip_encoder import ClipEncoder
from videomae_jax.inference.normalization import read_normalization
from videomae_jax.inference.predictor import Predictor, rows
from videomae_jax.models.encoder import VideoMAEModel
from videomae_jax.plan.program import step_on
from videomae_jax.plan.topology import read_target
from videomae_jax.training.resolve import resolve_run

KINDS = {"multi_label_classification": "sigmoid", "regression": "value", None: "softmax"}
CLIP = np.random.default_rng(0).integers(0, 256, (1, CONFIG.num_frames, 32, 32, 3), np.uint8)


def saved(folder, problem, **changes):
    """A folder with a classifier whose outputs differ much, and what it makes of `CLIP`."""
    model, params = random_classifier(replace(CONFIG, problem_type=problem, **changes))
    model.save_pretrained(folder, params)
    logits = jax.jit(model.apply)({"params": params}, read_normalization(folder)(jnp.asarray(CLIP))).logits
    return np.asarray(logits, np.float64)[0]


@pytest.mark.parametrize("problem", KINDS)
def test_scores_are_what_the_outputs_mean(tmp_path, problem):
    logits = saved(tmp_path, problem)
    predictor = Predictor.from_pretrained(tmp_path)
    assert predictor.config.score_kind == KINDS[problem]
    wanted = {
        "sigmoid": 1 / (1 + np.exp(-logits)),
        "value": logits,
        "softmax": np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum(),
    }[KINDS[problem]]
    np.testing.assert_allclose(rows(predictor.start(CLIP))[0], wanted, rtol=1e-3, atol=2e-5)


def test_one_output_is_a_number():
    """As transformers trains a model of one label for which no problem is named."""
    assert VideoMAEConfig(num_labels=1).score_kind == "value"
    assert VideoMAEConfig(num_labels=1, problem_type="multi_label_classification").score_kind == "sigmoid"


@pytest.mark.parametrize("problem", ["multi_label_classification", "regression"])
def test_classify_prints_them(tmp_path, video, problem, capsys):
    saved(tmp_path, problem)
    assert cli.main(["classify", str(video), "--checkpoint", str(tmp_path), "--json", "--top-k", "8"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    predictions = json.loads(line)["predictions"]
    scores = {each["number"]: each["score"] for each in predictions}
    clip = read_clip(video, CONFIG)
    np.testing.assert_allclose(
        [scores[number] for number in range(8)],
        rows(Predictor.from_pretrained(tmp_path).start(clip[None]))[0],
        rtol=0.05,
        atol=0.02,
    )
    order = [each["number"] for each in predictions]
    assert order == (list(range(8)) if problem == "regression" else sorted(scores, key=lambda n: -scores[n]))
    assert abs(sum(scores.values()) - 1) > 1e-3
    assert cli.main(["classify", str(video), "--checkpoint", str(tmp_path)]) == 0
    assert ("%" in capsys.readouterr().out) is (problem != "regression")


def test_evaluate_says_what_it_measures(tmp_path, videos, capsys):
    arguments = ["evaluate", str(videos / "val.csv"), "--num-workers", "0", "--out", str(tmp_path / "out")]
    arguments += ["--num-segments", "1", "--num-crops", "1", "--checkpoint"]
    saved(tmp_path / "labels", "multi_label_classification")
    assert cli.main([*arguments, str(tmp_path / "labels")]) == 0
    assert "each class has a probability of its own" in capsys.readouterr().out
    assert json.loads((tmp_path / "out/evaluation.json").read_text())["scores"] == "sigmoid"
    saved(tmp_path / "value", "regression")
    assert cli.main([*arguments, str(tmp_path / "value")]) == 2
    assert "is a regression model" in capsys.readouterr().err


def test_conversion_keeps_the_problem(tmp_path):
    pytest.importorskip("torch", reason="torch is not installed (the extra convert)")
    saved(tmp_path / "0", "multi_label_classification")
    place = tmp_path / "0"
    for number, form in enumerate(("orbax", "torch", "hf"), start=1):
        target = tmp_path / (f"{number}.pth" if form == "torch" else str(number))
        assert cli.main(["convert", str(place), str(target), "--to", form]) == 0
        place = target
    assert VideoClassifier.from_pretrained(place).predictor.config.score_kind == "sigmoid"
    assert json.loads((place / "config.json").read_text())["problem_type"] == "multi_label_classification"


def test_a_run_of_one_class_is_no_regression(videos, tmp_path):
    """Where nothing is said, transformers and we take one output for a number."""
    (tmp_path / "train.csv").write_text(f"{videos / 'val/up_000.mp4'} 0\n")
    tuning = load_config("tiny_finetune")
    data = replace(tuning.data, train=(str(tmp_path / "train.csv"),))
    model = resolve_run(replace(tuning, data=data)).config.model
    assert (model.num_labels, model.score_kind) == (1, "softmax")


def test_what_cannot_be_trained_is_refused():
    tuning = FinetuneConfig(replace(CONFIG, problem_type="regression"))
    with pytest.raises(
        InputError, match=r"problem_type=regression, but fine-tuning is for exactly one class"
    ):
        check_trainable(tuning)
    check_trainable(FinetuneConfig(replace(CONFIG, problem_type="single_label_classification")))
    grey = PretrainConfig(replace(load_config("tiny").model, num_channels=1))
    with pytest.raises(InputError, match="num_channels=1, but training reads videos as RGB"):
        check_trainable(grey)
    with pytest.raises(InputError, match="num_channels=1"):
        step_on(grey, "train", read_target("v5e:2x2"))


def test_no_door_reads_videos_for_other_channels(tmp_path, video, capsys):
    grey = replace(CONFIG, num_channels=1)
    with pytest.raises(InputError, match="read_clip reads videos as RGB"):
        read_clip(video, grey)
    model = VideoMAEModel(replace(grey, use_mean_pooling=True))
    params = model.init_params(jax.random.key(0))
    with pytest.raises(InputError, match="extracting features reads videos as RGB"):
        ClipEncoder(model, params, read_normalization(tmp_path))
    model, params = random_classifier(grey)
    with pytest.raises(InputError, match="scoring reads videos as RGB"):
        Predictor(grey, params)
    lists = ["--data.train", str(video.parent)]
    run = ["--workdir", str(tmp_path / "run")]
    for command, like in (("pretrain", "tiny"), ("show-batch", "tiny"), ("finetune", "tiny_finetune")):
        recipe = tmp_path / f"grey_{command}.py"
        recipe.write_text(
            "from dataclasses import replace\nfrom videomae_jax.config import load_config\n"
            f"known = load_config({like!r})\n"
            "config = replace(known, model=replace(known.model, num_channels=1))\n"
        )
        assert cli.main([command, str(recipe), *lists, *(run if command != "show-batch" else [])]) == 2
        assert "num_channels=1, but training reads videos as RGB" in capsys.readouterr().err
