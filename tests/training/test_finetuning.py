"""Fine-tuning: what a run keeps, what it starts from, and that a disturbed run ends like one left alone."""

import shutil
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from videomae_jax.checkpoints.orbax import find_evaluated_folder, list_steps, read_description, read_params
from videomae_jax.checkpoints.trees import params_digest
from videomae_jax.config import load_config
from videomae_jax.errors import InputError
from videomae_jax.models.classification import VideoMAEForVideoClassification
from videomae_jax.processing import Processing
from videomae_jax.training import start as initial
from videomae_jax.training.loop import train
from videomae_jax.training.multihost.facts import Fact
from videomae_jax.training.objectives.finetuning import Finetuning, soft_cross_entropy
from videomae_jax.training.reporting.overview import describe_run
from videomae_jax.training.resolve import resolve_run
from videomae_jax.training.run_folder import read_rows
from videomae_jax.training.start import initial_state

SMALL = replace(load_config("tiny_finetune").model, num_hidden_layers=1)
LENGTH = ("--epochs", "15", "--checkpoint.every-steps", "7", "--log.no-tensorboard")


@pytest.fixture(scope="module")
def finished(tiny_finetune, tmp_path_factory):
    config = replace(tiny_finetune, checkpoint=replace(tiny_finetune.checkpoint, keep_last=1))
    workdir = tmp_path_factory.mktemp("finished")
    train(config, workdir)
    return config, workdir


def test_the_best_step_is_kept_and_is_what_is_read(finished):
    _, workdir = finished
    rows = read_rows(workdir / "metrics.jsonl")
    scores = {row["step"]: row["val_top1"] for row in rows if "val_top1" in row}
    assert list(scores) == list(range(2, 13, 2)), "every epoch"
    best = min(step for step in scores if scores[step] == max(scores.values()))
    assert {best, 12} >= set(list_steps(workdir)) >= {best}
    said = read_description(workdir / "checkpoints" / str(list_steps(workdir)[-1]))["best"]
    assert (said["step"], said["score"]) == (best, scores[best])
    assert find_evaluated_folder(workdir) == workdir / "checkpoints" / str(best)
    model, _ = read_params(workdir)
    assert model.id2label == ("0", "1", "2", "3")
    assert rows[-1]["val_skipped"] == 1


def test_a_run_learns_its_few_videos(finished):
    _, workdir = finished
    rows = read_rows(workdir / "metrics.jsonl")
    assert rows[0]["loss"] == pytest.approx(np.log(4), abs=0.02), "every class starts out equally likely"
    assert all(np.isfinite(row["loss"]) for row in rows)


def test_a_step_that_was_copied_or_renamed_is_not_continued(finished, tmp_path):
    config, workdir = finished
    shutil.copytree(workdir / "checkpoints/12", tmp_path / "checkpoints/20")
    with pytest.raises(InputError, match="20 holds step 12: it was copied or renamed"):
        train(config, tmp_path)


def test_the_average_of_the_weights_is_what_is_read(finished):
    _, workdir = finished
    folder = find_evaluated_folder(workdir)
    _, params = read_params(workdir)
    plan = resolve_run(finished[0])
    from videomae_jax.training.start import restored_state

    state = restored_state(plan, folder)
    jax.tree.map(np.testing.assert_array_equal, params, state.ema)
    assert not np.allclose(state.ema["head"]["kernel"], state.params["head"]["kernel"])


def test_the_average_follows_the_weights(tiny_finetune):
    plan = resolve_run(tiny_finetune)
    state, _ = initial_state(plan)
    jax.tree.map(np.testing.assert_array_equal, state.ema, state.params)
    from videomae_jax.training.step import make_train_step

    first = jax.device_get(state.params)
    arrays = {
        "video": np.random.default_rng(0).integers(0, 256, (8, 8, 32, 48, 3), np.uint8),
        "box": np.tile(np.int32([32, 40, 0]), (8, 1)),
        "label": np.arange(8, dtype=np.int32) % 4,
    }
    step = make_train_step(plan.objective, plan.mesh, lambda step: 1e-2)
    state, _ = step(state, jax.tree.map(jnp.asarray, arrays), jax.random.key(0))
    mean = jax.tree.map(lambda old, new: 0.8 * old + 0.2 * np.asarray(new), first, state.params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), state.ema, mean)


def test_held_out_scores_are_those_of_the_logits(tiny_finetune):
    config = replace(tiny_finetune, model=replace(tiny_finetune.model, num_labels=7))
    task = Finetuning(config)
    params = VideoMAEForVideoClassification(config.model, init_scale=100).init_params(jax.random.key(0))
    rng = np.random.default_rng(0)
    video = jnp.asarray(rng.integers(0, 256, (6, 8, 32, 32, 3), np.uint8))
    label, weights = jnp.asarray(rng.integers(0, 7, 6), jnp.int32), jnp.float32([1, 1, 0, 1, 1, 0])
    sums = task.validation_sums(params, {"video": video, "label": label}, weights, jax.random.key(1))
    from videomae_jax.models.pixels import normalize

    logits = np.asarray(task.model.apply({"params": params}, normalize(video)).logits)
    ranks = np.argsort(np.argsort(-logits, axis=1), axis=1)[np.arange(6), label]
    kept = np.asarray(weights) > 0
    assert float(sums["top1"]) == np.sum(ranks[kept] < 1)
    assert float(sums["top5"]) == np.sum(ranks[kept] < 5)
    assert float(sums["count"]) == 4
    hard = soft_cross_entropy(jnp.asarray(logits), jax.nn.one_hot(label, 7))
    assert float(sums["loss"]) == pytest.approx(float(hard[kept].sum()), rel=1e-5)


def test_a_classifier_starts_from_a_pre_trained_encoder(tiny, tiny_finetune, tmp_path, monkeypatch):
    train(replace(tiny, epochs=2), tmp_path)
    _, pretrained = read_params(tmp_path)
    compared = []
    two = SimpleNamespace(count=2, compare=compared.append)
    monkeypatch.setattr(initial, "Hosts", lambda: two)
    state, facts = initial_state(resolve_run(replace(tiny_finetune, init_from=str(tmp_path))))
    digest = params_digest(state.params)
    assert compared == [{"weights of --init-from": Fact(digest, digest[:12])}]
    assert facts == {"head": "drawn anew: the weights have none"}
    jax.tree.map(
        np.testing.assert_array_equal, state.params["encoder"]["blocks"], pretrained["encoder"]["blocks"]
    )
    assert np.abs(state.params["head"]["kernel"]).max() < 2e-4
    wide = replace(tiny_finetune, model=replace(tiny_finetune.model, num_attention_heads=6))
    with pytest.raises(InputError, match=r"num_attention_heads = 4 +num_attention_heads = 6"):
        initial_state(resolve_run(replace(wide, init_from=str(tmp_path))))
    longer = replace(
        tiny_finetune, init_from=str(tmp_path), model=replace(tiny_finetune.model, num_frames=16)
    )
    run = resolve_run(longer, tmp_path / "other")
    assert "is resized to 8 x 4 x 4: linearly in time" in describe_run(run, 0)
    assert "resized" not in describe_run(run, 5), "it has been trained on since"
    same = replace(tiny_finetune, init_from=str(tmp_path))
    assert " positions  " not in describe_run(resolve_run(same, tmp_path / "other"), 0)


def test_resized_positions_outlive_the_weights_that_they_came_with(tiny, tiny_finetune, tmp_path):
    train(tiny, tmp_path / "weights")
    longer = replace(
        tiny_finetune,
        init_from=str(tmp_path / "weights"),
        model=replace(tiny_finetune.model, num_frames=16),
    )
    train(longer, tmp_path / "run")
    grid = tiny.model.grid
    fresh = resolve_run(longer, tmp_path / "other").config.model
    assert fresh.position_grid == grid != longer.model.grid
    shutil.rmtree(tmp_path / "weights")
    assert resolve_run(longer, tmp_path / "run").config.model.position_grid == grid
    assert train(longer, tmp_path / "run").step > 0, "it continues"
    classifier, _ = VideoMAEForVideoClassification.from_pretrained(tmp_path / "run", num_frames=8)
    assert classifier.config.learned_grid == grid
    fresh = replace(longer, model=replace(longer.model, position_grid=longer.model.grid))
    with pytest.raises(InputError, match=r"model.position_grid: \[4, 4, 4\] -> \[8, 4, 4\]"):
        train(fresh, tmp_path / "run")


@pytest.mark.parametrize(
    ("old", "new", "kept", "said"),
    [
        (("a", "b"), ("a", "b"), True, "the weights are for the same 2 classes"),
        (("a", "b"), ("c", "d"), False, "none of these 2 classes is among the 2 of the weights, such as 'a'"),
        (("a", "b", "c"), ("0", "1"), False, "the weights are for 3 classes, these are 2"),
        (("LABEL_0", "LABEL_1"), ("a", "b"), False, "the weights know no names"),
        (("a", "b"), ("0", "1"), False, "these have no names: give --data.classes"),
        (("LABEL_0", "LABEL_1"), ("0", "1"), True, "the numbers are taken to mean the same"),
    ],
)
def test_a_head_is_kept_for_the_same_classes(tmp_path, caplog, old, new, kept, said):
    model = VideoMAEForVideoClassification(replace(SMALL, id2label=old), init_scale=1.0)
    params = model.init_params(jax.random.key(0))
    model.save_pretrained(tmp_path / "old", params)
    other = VideoMAEForVideoClassification(replace(SMALL, id2label=new))
    start, head = other.start_from(tmp_path / "old", jax.random.key(1))
    same = start["head"]["kernel"].shape == params["head"]["kernel"].shape and np.array_equal(
        start["head"]["kernel"], params["head"]["kernel"]
    )
    assert same == kept
    assert head.startswith("kept: " if kept else "drawn anew: ")
    assert said in head
    assert f"the head is {head}" in caplog.text


def test_classes_that_do_not_fit_are_refused(tiny_finetune):
    few = replace(tiny_finetune, model=replace(tiny_finetune.model, num_labels=3))
    with pytest.raises(
        InputError, match=r"label 3 of .* is not one of the 3 classes, .* as --model.num-labels 3 says"
    ):
        resolve_run(few)
    more = resolve_run(replace(tiny_finetune, model=replace(tiny_finetune.model, num_labels=6)))
    assert more.config.model.id2label == ("0", "1", "2", "3", "4", "5")
    assert more.unseen_classes == ("4", "5")


def test_other_labels_are_another_run(finished, video_list):
    config, workdir = finished
    other = video_list.with_name("other_labels.txt")
    lines = video_list.with_name("labelled.txt").read_text().replace("0.mp4 0", "0.mp4 1")
    other.write_text(lines)
    with pytest.raises(InputError, match="other videos"):
        train(replace(config, data=replace(config.data, train=(str(other),))), workdir)


def results(runs, workdir: Path):
    def numbers(row):
        return {
            name: value
            for name, value in row.items()
            if name not in ("clips_per_second", "tflops", "data_wait", "goodput")
        }

    newest = workdir / "checkpoints" / str(list_steps(workdir)[-1])
    return (
        [numbers(row) for row in runs.rows(workdir)],
        runs.rows(workdir, "skipped.jsonl"),
        read_description(newest)["best"],
        [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(read_params(workdir)[1])],
        [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(read_params(newest)[1])],
    )


@pytest.fixture(scope="module")
def undisturbed(runs, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("undisturbed") / "run"
    runs.end(runs.start(workdir, *LENGTH, command="finetune"), workdir, code=0)
    assert len(runs.rows(workdir)) == 30
    return results(runs, workdir)


def disturb(runs, workdir: Path, workers: str, rows: int, how: signal.Signals) -> None:
    """Send a signal once the run has written so many rows more."""
    wanted = len(runs.rows(workdir)) + rows
    process = runs.start(workdir, *LENGTH, "--data.num-workers", workers, command="finetune")
    runs.wait_until(process, workdir, lambda: len(runs.rows(workdir)) >= wanted)
    process.send_signal(how)
    runs.end(process, workdir, code=-how if how == signal.SIGKILL else 128 + how)


@pytest.mark.chaos
def test_a_killed_and_a_stopped_run_end_like_one_left_alone(runs, undisturbed, tmp_path):
    workdir = tmp_path / "disturbed"
    disturb(runs, workdir, "2", 9, signal.SIGKILL)
    disturb(runs, workdir, "0", 4, signal.SIGTERM)
    runs.end(runs.start(workdir, *LENGTH, command="finetune"), workdir, code=0)
    assert results(runs, workdir) == undisturbed


@pytest.mark.chaos
@pytest.mark.parametrize("repeat", range(5))
def test_campaign(runs, undisturbed, tmp_path, repeat):
    """Kills and stops at random moments, many of them during a validation or a save."""
    chance, workdir = np.random.default_rng(repeat), tmp_path / "disturbed"
    for how in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGTERM):
        disturb(runs, workdir, str(chance.choice([0, 2, 3])), int(chance.integers(1, 7)), how)
    runs.end(runs.start(workdir, *LENGTH, command="finetune"), workdir, code=0)
    assert results(runs, workdir) == undisturbed


@pytest.mark.parametrize("mean", [0.5, None])
def test_weights_of_other_pixels_are_warned_of(tiny_finetune, tmp_path, caplog, mean):
    """Weights trained with mean 0.5 are met by ImageNet's statistics here."""
    config = replace(tiny_finetune, model=replace(tiny_finetune.model, num_labels=4))
    model = VideoMAEForVideoClassification(
        config.model, processing=None if mean is None else Processing(image_mean=mean, image_std=mean)
    )
    model.save_pretrained(tmp_path / "a", model.init_params(jax.random.key(0)))
    initial_state(resolve_run(replace(config, init_from=str(tmp_path / "a"))))
    assert ("less (0.5, 0.5, 0.5), divided by (0.5, 0.5, 0.5)" in caplog.text) is (mean is not None)
