"""Probes: what they find on features that are known, how they choose, and what they keep on disk."""

import json
from dataclasses import replace
from functools import partial

import jax
import numpy as np
import pytest
from random_classifier import write_run

from videomae_jax.data.synthetic import write_synthetic_videos
from videomae_jax.errors import InputError, RunError
from videomae_jax.files import locked_folder
from videomae_jax.inference.features import parts as in_parts
from videomae_jax.inference.features.parts import FeatureParts
from videomae_jax.inference.probe import command as probe_command
from videomae_jax.inference.probe import training
from videomae_jax.inference.probe.choice import Method, measure, split_rows
from videomae_jax.inference.probe.command import Probe, probe, run_probe, table
from videomae_jax.inference.probe.features import HeldFeatures, ProbeSet
from videomae_jax.inference.probe.neighbours import TEMPERATURE, neighbour_scores
from videomae_jax.inference.probe.training import Recipe, _schedule, probe_scores, train_probes
from videomae_jax.models.probes import AttentiveProbe, LinearProbe

CLASSES, WIDTH = 4, 12
DIRECTIONS = np.random.default_rng(9).standard_normal((CLASSES, WIDTH)).astype(np.float32)


def features_of(labels, seed, noise=0.3, clips=1, tokens=None):
    """Features around one point for each class; with tokens, only one token in a clip tells."""
    rng = np.random.default_rng(seed)
    shape = (len(labels), clips, WIDTH) if tokens is None else (len(labels), clips, tokens, WIDTH)
    features = noise * rng.standard_normal(shape).astype(np.float32)
    told = DIRECTIONS[labels][:, None]
    if tokens is None:
        features += 5 + told
    else:
        places = rng.integers(tokens, size=shape[:2])
        rows, columns = np.indices(places.shape)
        features[rows, columns, places] += 3 * told
    return ProbeSet(HeldFeatures(features), labels, np.arange(len(labels)))


def scores_of(head, trained, data, rows, batch_size):
    return np.concatenate(list(probe_scores(head, trained, data.features, rows, batch_size)), axis=1)


def labels_of(count, seed=0):
    return np.random.default_rng(seed).permutation(np.arange(count) % CLASSES)


@pytest.mark.parametrize("kind", ["linear", "knn", "attentive"])
def test_classes_that_are_apart_are_all_found(kind):
    tokens, rates = (3, (3e-3,)) if kind == "attentive" else (None, (0.1,))
    train = features_of(labels_of(48), 1, clips=2, tokens=tokens)
    val = features_of(labels_of(16, 3), 2, clips=2, tokens=tokens)
    method = Method(CLASSES, 2, kind=kind, learning_rates=rates, epochs=80, train_batch_size=16)
    result = measure(method, train, val)
    assert result.val_accuracy == 1
    assert result.train_accuracy == (None if kind == "knn" else 1)
    assert (result.num_train, result.num_held_out, result.num_val) == (48, 8, 16)


@pytest.mark.parametrize(
    "head", [LinearProbe(CLASSES), AttentiveProbe(CLASSES, 2)], ids=["linear", "attentive"]
)
def test_products_are_in_full_float32(head):
    """GPUs would take TF32, and TPUs bfloat16."""
    tokens = (3,) * isinstance(head, AttentiveProbe)
    features, labels = np.ones((2, *tokens, WIDTH), np.float32), np.zeros(2, np.int32)
    state = training._start(jax.random.key(0), features[:1], probe=head, optimizer="sgd", rates=1)
    step = partial(training._step, probe=head, optimizer="sgd")
    for program in (
        jax.make_jaxpr(step)(state, np.ones(1, np.float32), features, labels),
        jax.make_jaxpr(partial(training._scores, head))(state["variables"], features),
    ):
        assert "HIGHEST" in str(program)
        assert "precision=None" not in str(program)
    assert jax.config.jax_default_matmul_precision is None


@pytest.mark.parametrize("kind", ["linear", "knn"])
def test_random_labels_are_not_learned(kind):
    rng = np.random.default_rng(0)
    train, val = (
        ProbeSet(
            HeldFeatures(rng.standard_normal((count, 1, WIDTH), np.float32)),
            labels_of(count),
            np.arange(count),
        )
        for count in (200, 800)
    )
    result = measure(Method(CLASSES, kind=kind), train, val)
    assert abs(result.val_accuracy - 1 / CLASSES) < 0.06
    assert result.val_standard_error == pytest.approx(
        np.sqrt(result.val_accuracy * (1 - result.val_accuracy) / 800)
    )
    assert all(trial.held_out < 0.5 for trial in result.trials)


def test_a_mean_and_scale_of_features_far_from_0_and_1_do_no_harm():
    train, val = features_of(labels_of(64), 1), features_of(labels_of(40), 2)
    stretch = np.logspace(-3, 3, WIDTH).astype(np.float32)
    moved = [
        replace(each, features=HeldFeatures(each.features.features * stretch + 100 * stretch))
        for each in (train, val)
    ]
    assert measure(Method(CLASSES), *moved).val_accuracy == 1


@pytest.mark.parametrize(
    ("head", "recipe", "rates"),
    [
        (LinearProbe(CLASSES), Recipe("sgd", 5, 30, 16), (0.001, 0.03, 0.3)),
        (AttentiveProbe(CLASSES, 2), Recipe("adamw", 5, 10, 16), (1e-3, 3e-3, 1e-2)),
    ],
)
def test_a_sweep_is_the_single_runs(head, recipe, rates):
    data = features_of(labels_of(40), 1, noise=2, tokens=3 if isinstance(head, AttentiveProbe) else None)
    inputs = data.features, data.clip_rows, data.clip_labels
    together = train_probes(head, *inputs, rates, recipe)
    scores = scores_of(head, together, data, data.clip_rows, 16)
    assert np.abs(scores[0] - scores[2]).max() > 0.05
    for number, rate in list(enumerate(rates))[1:]:
        alone = train_probes(head, *inputs, (rate,), recipe)
        jax.tree.map(
            lambda one, many, number=number: np.testing.assert_allclose(one[0], many[number], atol=2e-4),
            alone,
            together,
        )
        np.testing.assert_allclose(
            scores_of(head, alone, data, data.clip_rows, 16)[0], scores[number], atol=1e-4
        )


def test_the_rate_rises_and_falls_over_however_few_steps():
    one, twenty = (np.asarray(_schedule(steps)(np.arange(steps))) for steps in (1, 20))
    assert one.tolist() == [1]
    np.testing.assert_allclose(twenty[:3], [0.5, 1, 1])
    assert np.all(np.diff(twenty[2:]) < 0)
    assert 0 < twenty[-1] < 0.02


def test_scores_do_not_depend_on_the_batch_they_are_in():
    data = features_of(labels_of(40), 1)
    trained = train_probes(
        LinearProbe(CLASSES),
        data.features,
        data.clip_rows,
        data.clip_labels,
        (0.1,),
        Recipe("sgd", 5, 30, 16),
    )
    whole = scores_of(LinearProbe(CLASSES), trained, data, data.clip_rows, 40)
    single = scores_of(LinearProbe(CLASSES), trained, data, data.clip_rows[7:8], 3)
    np.testing.assert_allclose(whole[:, 7:8], single, atol=1e-6)


def test_neighbours_are_those_of_brute_force():
    rng = np.random.default_rng(0)
    bank, queries = (rng.standard_normal((count, 6)).astype(np.float32) for count in (30, 300))
    labels, ks = rng.integers(0, 3, 30), (1, 4, 28)
    found = neighbour_scores(bank, labels, queries, ks, 3)
    for row in range(0, 300, 7):
        cosines = [
            bank[other] @ queries[row] / np.linalg.norm(bank[other]) / np.linalg.norm(queries[row])
            for other in range(30)
        ]
        for number, k in enumerate(ks):
            votes = np.zeros(3)
            for other in np.argsort(cosines)[::-1][:k]:
                votes[labels[other]] += np.exp(cosines[other] / TEMPERATURE)
            np.testing.assert_allclose(found[number, row], votes / votes.sum(), atol=1e-4)


def test_the_held_out_part_has_every_class_and_no_row_twice():
    labels = np.array([0] * 10 + [1] * 3 + [2] * 2 + [3])
    fit, held = split_rows(labels, 0.2, 0)
    assert sorted([*fit, *held]) == list(range(16))
    assert np.bincount(labels[held], minlength=4).tolist() == [2, 1, 1, 0]
    assert split_rows(labels, 0.2, 1)[1].tolist() != held.tolist()
    assert np.bincount(labels[split_rows(labels, 0.99, 0)[0]]).tolist() == [1, 1, 1, 1]
    with pytest.raises(InputError, match="no class has two videos"):
        split_rows(np.arange(5), 0.2, 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """train.csv and val.csv of the synthetic videos, with one that is missing, and a classifier's run."""
    folder = tmp_path_factory.mktemp("videos")
    write_synthetic_videos(folder, train_per_class=3, val_per_class=1, side=32, num_frames=16)
    with (folder / "train.csv").open("a") as file:
        file.write("train/missing.mp4 3\n")
    write_run(folder / "run")
    return folder


@pytest.fixture
def settings(folder, tmp_path):
    lists = ((str(folder / f"{name}.csv"),) for name in ("train", "val"))
    return Probe(*lists, str(folder / "run"), tmp_path, epochs=1, num_workers=0)


def test_all_kinds_from_the_same_features(settings, folder, tmp_path, capsys, monkeypatch):
    assert probe(settings) == 0
    said = capsys.readouterr().out
    assert "features of 24 videos written" in said
    assert "24: train" not in said
    assert "\ntrain " in said
    assert "what the classifier's head sees; 8 classes" in said
    assert "16 fitted    8 held out" in said
    assert "1 videos could not be read, the first: " in said
    result = json.loads((tmp_path / "probe.json").read_text())
    assert len(result["trials"]) == 7
    assert result["num_val"] == 8
    assert result["settings"]["checkpoint"] == str(folder / "run")

    def extract(*_):
        raise AssertionError("extracted again")

    monkeypatch.setattr(FeatureParts, "_write", extract)
    _, result = run_probe(replace(settings, kind="knn", out=tmp_path / "b", features=tmp_path / "features"))
    assert [trial.value for trial in result.trials] == [1, 5, 10]
    assert [trial.fit for trial in result.trials] == [None] * 3
    assert "features of 24 videos found" in capsys.readouterr().out
    lines = table("features", result)
    assert lines[2].split()[:2] == ["1", "-"]
    assert lines[6].startswith("val ")
    with pytest.raises(AssertionError, match="again"):
        run_probe(replace(settings, layer=1))


def tokens_of(data):
    (clips,) = data.features.batches([np.arange(np.prod(data.features.shape[:2]))])
    return clips.reshape(data.features.shape)


def mean_tokens(data):
    return HeldFeatures(tokens_of(data).mean(2))


def test_attentive_probe_gets_all_tokens_and_the_encoders_heads(settings, monkeypatch):
    given = []

    def pooled(method, *sets):
        given.extend([method, *sets])
        return measure(
            replace(method, kind="knn"), *(replace(each, features=mean_tokens(each)) for each in sets)
        )

    monkeypatch.setattr(probe_command, "measure", pooled)
    what, _ = run_probe(replace(settings, kind="attentive", num_segments=2, learning_rates=(1e-3,)))
    assert what == "the last block's tokens without a norm"
    method, train, val = given
    assert train.features.shape == (24, 2, 64, 48)
    assert tokens_of(val).shape == (8, 2, 64, 48)
    assert method.num_heads == 4
    assert method.values(0) == (1e-3,)


@pytest.mark.parametrize("share", [0, 0.4])
def test_clips_beyond_the_cache_are_encoded_at_each_use(settings, tmp_path, monkeypatch, share):
    monkeypatch.setattr(in_parts, "_MOST_VIDEOS", 4)
    whole = replace(settings, kind="attentive", num_segments=2, learning_rates=(1e-3, 3e-3), batch_size=8)
    given = []
    measured = probe_command.measure
    monkeypatch.setattr(probe_command, "measure", lambda *sets: given.append(sets) or measured(*sets))
    _, kept = run_probe(whole)
    room = share * 24 * 2 * 64 * 48 * 4 / 1e9
    out = tmp_path / "bounded"
    _, result = run_probe(replace(whole, out=out, max_cache_gb=room, num_workers=2))
    files = sum(file.stat().st_size for file in out.rglob("*.npy"))
    assert (0 if share else -1) < files <= 1.02 * room * 1e9
    for (_, *all_kept), (_, *some) in [given]:
        for one, other in zip(all_kept, some, strict=True):
            np.testing.assert_allclose(tokens_of(one), tokens_of(other), atol=1e-5)
    assert result.failures == kept.failures
    assert (result.chosen, result.val_accuracy) == (kept.chosen, kept.val_accuracy)
    for one, other in zip(kept.trials, result.trials, strict=True):
        assert other.held_out_loss == pytest.approx(one.held_out_loss, abs=1e-4)
    _, again = run_probe(replace(whole, out=out, max_cache_gb=room))
    assert again.trials == result.trials


def test_a_rate_that_ends_in_nan_is_not_chosen():
    train, val = features_of(labels_of(32), 1), features_of(labels_of(16), 2)
    result = measure(Method(CLASSES, learning_rates=(1e38, 0.1), epochs=20), train, val)
    assert result.chosen == 0.1
    assert result.val_accuracy == 1
    json.dumps([trial.held_out_loss for trial in result.trials], allow_nan=False)


def test_damaged_features_are_extracted_again(settings, tmp_path, capsys):
    run_probe(replace(settings, kind="knn"))
    for number, path in enumerate(sorted((tmp_path / "features").rglob("*.npy"))):
        content = bytearray(path.read_bytes())
        content[-5] ^= 1
        path.write_bytes(content if number else b"cut short")
    capsys.readouterr()
    first = run_probe(replace(settings, kind="knn"))
    said = capsys.readouterr().out
    assert "is damaged: its features are not those" in said
    assert "is not a file of features" in said
    assert run_probe(replace(settings, kind="knn")) == first
    with (  # As if another probe were writing there.
        locked_folder(path.parent, "--features"),
        pytest.raises(InputError, match=r"or choose another --features$"),
    ):
        run_probe(replace(settings, kind="knn"))


def test_a_changed_video_is_extracted_again(settings, folder, capsys):
    run_probe(replace(settings, kind="knn"))
    path = folder / "val" / "up_000.mp4"
    path.write_bytes((folder / "val" / "down_000.mp4").read_bytes())
    capsys.readouterr()
    run_probe(replace(settings, kind="knn"))
    said = capsys.readouterr().out
    assert "train: features of 24 videos found" in said
    assert "val: features of 8 videos written" in said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train": ()}, "--train"),
        ({"held_out": 1.0}, "--held-out 1.0"),
        ({"batch_size": 0}, "--batch-size 0"),
        ({"learning_rates": (0.1, -1.0)}, "--learning-rates"),
        ({"val": "train"}, "videos are in --train and in --val"),
        ({"layer": 7}, "--layer 7"),
    ],
)
def test_settings_that_make_no_sense(settings, changes, said):
    if changes.get("val") == "train":
        changes = {"val": settings.train}
    with pytest.raises(InputError, match=said):
        run_probe(replace(settings, **changes))


def test_no_readable_video_ends_the_probe(settings, tmp_path):
    (tmp_path / "list.csv").write_text("missing.mp4 0\n")
    with pytest.raises(RunError, match=r"none of the 1 videos could be read.*missing\.mp4"):
        run_probe(replace(settings, val=(str(tmp_path / "list.csv"),)))
