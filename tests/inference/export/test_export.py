"""Exported files score as the checkpoint does, and none is left that does not."""

import json
import re
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec

import jax
import numpy as np
import pytest
from random_classifier import CONFIG, random_classifier, write_run

from videomae_jax import VideoClassifier, cli
from videomae_jax.errors import InputError
from videomae_jax.inference.export import stablehlo
from videomae_jax.inference.export.formats import FORMS
from videomae_jax.inference.export.graph import Graph, build
from videomae_jax.inference.export.trial import logits_on_cpu, try_out
from videomae_jax.inference.normalization import Normalization

NORMALIZATION = Normalization((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 1 / 255)


@pytest.fixture(params=list(FORMS))
def form(request):
    for module in FORMS[request.param].needs:
        if find_spec(module) is None:
            pytest.skip(f"{module} is not installed (the extra export)")
    return request.param


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("classifier"))


@pytest.fixture
def clips():
    return np.random.default_rng(0).integers(0, 256, (3, 8, 32, 32, 3), np.uint8)


def test_a_file_is_written_tried_and_described(form, classifier, videos, tmp_path, capsys):
    out = tmp_path / f"deep/model.{form}"
    words = ["export", str(videos / "val"), "--checkpoint", str(classifier), "--to", form, "--out", str(out)]
    assert cli.main(words) == 0
    said = capsys.readouterr().out
    assert "8 of 8 have the same best class" in said
    assert {path.name for path in out.parent.iterdir()} == {out.name, f"{out.name}.json", f"{out.name}.md"}
    about = json.loads(out.with_name(f"{out.name}.json").read_text())
    assert about["labels"] == list(CONFIG.id2label)
    assert about["input"]["shape"] == ["b", 8, 32, 32, 3]
    assert about["input"]["sampling_rate"] == 2
    assert about["tried"]["difference"] < 1e-4
    page = out.with_name(f"{out.name}.md").read_text()
    assert FORMS[form].example in page
    assert FORMS[form].promise in page


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"use_mean_pooling": False},
        {"qv_bias": False},
        {"num_attention_heads": 3},
        {"tubelet_size": 4},
        {"layer_scale": 0.5},
    ],
    ids=str,
)
def test_every_kind_of_classifier_scores_as_in_jax(form, changes, clips, tmp_path):
    if form == "stablehlo" and changes:
        pytest.skip("StableHLO is of the model itself, whose kinds have tests of their own")
    model, params = random_classifier(replace(CONFIG, **changes))
    keys = iter(jax.random.split(jax.random.key(1), 99))
    params = jax.tree.map(lambda leaf: leaf + 0.1 * jax.random.normal(next(keys), leaf.shape), params)
    writer, file = import_module(f"videomae_jax.inference.export.{form}"), tmp_path / "model"
    writer.write(file, model.config, NORMALIZATION, params, clips.shape[1:])
    wanted, seconds = logits_on_cpu(model.config, NORMALIZATION, params, clips)
    mean, std = np.float32(NORMALIZATION.mean), np.float32(NORMALIZATION.std)
    plain = jax.jit(model.apply)({"params": params}, (clips / np.float32(255) - mean) / std).logits
    np.testing.assert_allclose(wanted, plain, rtol=1e-5, atol=1e-5 * np.abs(plain).max())
    trial = try_out(file, form, clips, wanted, seconds)
    assert trial.difference <= 1e-5 * np.abs(wanted).max()
    assert (trial.clips, trial.same_best) == (3, 3)


def test_an_onnx_file_scores_a_video_as_classify_does(classifier, video, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (the extra export)")
    out = str(tmp_path / "model.onnx")
    assert (
        cli.main(["export", str(video), "--checkpoint", str(classifier), "--to", "onnx", "--out", out]) == 0
    )
    about = json.loads((tmp_path / "model.onnx.json").read_text())
    from videomae_jax.inference.clip import read_clip

    clip = read_clip(video, CONFIG, about["input"]["sampling_rate"])
    [logits] = onnxruntime.InferenceSession(out).run(None, {"clips": clip[None]})[0]
    shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    best = VideoClassifier.from_pretrained(classifier)(video, top_k=3)
    for each in best:
        assert shares[about["labels"].index(each.label)] == pytest.approx(each.score, abs=1e-5)


def test_a_file_that_scores_otherwise_is_not_left(classifier, video, tmp_path, capsys, monkeypatch):
    onnx = pytest.importorskip("videomae_jax.inference.export.onnx", reason="onnx is not installed")
    monkeypatch.setattr(onnx.OnnxGraph, "gelu", lambda self, x: x)
    out = tmp_path / "model.onnx"
    words = ["export", str(video), "--checkpoint", str(classifier), "--to", "onnx", "--out", str(out)]
    assert cli.main(words) == 1
    assert "gives other logits than JAX, by up to" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_exported_is_said(classifier, pretrained, video, tmp_path, capsys, monkeypatch):
    words = ["export", str(video), "--to", "stablehlo", "--out", str(tmp_path / "model"), "--checkpoint"]
    assert cli.main([*words, str(pretrained)]) == 2
    assert "has no classification head" in capsys.readouterr().err
    assert cli.main([*words[:1], *words[2:], str(classifier)]) == 2
    assert "0 videos: name 1 to 64" in capsys.readouterr().err
    command = import_module("videomae_jax.inference.export.command")
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    assert cli.main([*words[:3], "onnx", *words[4:], str(classifier)]) == 2
    assert "--to onnx needs onnx and onnxruntime: pip install" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_file_for_all_platforms_attends_with_all_heads_at_once():
    """The only loops are those over two layers and three blocks of queries, none over clips or heads."""
    config = replace(CONFIG, image_size=96, patch_size=8, num_hidden_layers=2)
    assert config.num_tokens == 576
    model, params = random_classifier(config)
    clips = jax.ShapeDtypeStruct((5, 8, 96, 96, 3), np.uint8)
    program = str(jax.make_jaxpr(stablehlo.classifier(model.config, NORMALIZATION))(params, clips))
    assert set(re.findall(r"\blength=(\d+)", program)) == {"2", "3"}


def test_parameters_that_a_graph_does_not_know_are_refused():
    names = [name for name in vars(Graph) if not name.startswith("_")]
    nothing = type("Nothing", (), {name: lambda self, *arguments: None for name in names})()
    model, params = random_classifier(replace(CONFIG, cosine_attention=True))
    with pytest.raises(InputError, match=r"only --to stablehlo takes along: attn\.scale"):
        build(nothing, None, model.config, NORMALIZATION, params)
