"""A student learns what its frozen teacher says of the same clips, and not the labels."""

import shutil
from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, PartitionSpec

from videomae_jax import VideoMAEForPreTraining, VideoMAEForVideoClassification
from videomae_jax.checkpoints.orbax import find_step_folder, read_description, read_params
from videomae_jax.checkpoints.trees import params_digest
from videomae_jax.config import SIZES
from videomae_jax.errors import InputError
from videomae_jax.models.flops import classification_flops, flops_per_clip
from videomae_jax.models.pixels import denormalize
from videomae_jax.models.teacher import read_teacher, teacher_config
from videomae_jax.processing import Processing
from videomae_jax.training import start as starting
from videomae_jax.training.loop import train
from videomae_jax.training.multihost.facts import Fact
from videomae_jax.training.objectives.distillation import Distillation, distillation_losses
from videomae_jax.training.reporting.overview import describe_run
from videomae_jax.training.resolve import resolve_run
from videomae_jax.training.sharding import state_shardings
from videomae_jax.training.start import initial_state, taught_by
from videomae_jax.training.state import split_state, state_shapes
from videomae_jax.training.step import make_train_step

NAMES = ("bend", "jump", "run", "walk")


def softmax(values):
    shares = np.exp(values - values.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("temperature", [1.0, 0.5, 4.0])
def test_the_loss_is_the_published_one(temperature):
    """Hinton et al. (2015): T² KL, whose gradient is T (softmax(s / T) - softmax(t / T))."""
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(size=(2, 3, 7)) * 3
    shares, soft = softmax(ours / temperature), softmax(theirs / temperature)
    by_hand = temperature**2 * (soft * np.log(soft / shares)).sum(axis=1)
    given = jnp.float32(ours), jnp.float32(theirs)
    np.testing.assert_allclose(distillation_losses(*given, temperature), by_hand, rtol=1e-5, atol=1e-6)
    gradients = jax.grad(lambda *both: distillation_losses(*both, temperature).sum(), argnums=(0, 1))(*given)
    np.testing.assert_allclose(gradients[0], temperature * (shares - soft), rtol=1e-4, atol=1e-6)
    assert not np.any(gradients[1]), "nothing flows to the teacher"
    np.testing.assert_allclose(distillation_losses(given[1], given[1], temperature), 0, atol=1e-6)


def write_teacher(folder, config, names=NAMES, processing=None):
    """A classifier that is wider than the student, with a large head, so that it says something."""
    model_config = replace(
        config.model, hidden_size=64, num_hidden_layers=3, num_labels=len(names), id2label=names
    )
    model = VideoMAEForVideoClassification(model_config, init_scale=10, processing=processing)
    params = model.init_params(jax.random.key(7))
    model.save_pretrained(folder, params)
    return str(folder), params


@pytest.fixture(scope="module")
def student(tiny_finetune, video_list):
    (video_list.parent / "classes.txt").write_text("\n".join(NAMES))
    model = replace(tiny_finetune.model, drop_path=0.0, head_dropout=0.0)
    data = replace(tiny_finetune.data, classes=str(video_list.parent / "classes.txt"))
    augment = replace(tiny_finetune.augment, rand_num_ops=0)  # Which takes most of compiling.
    return replace(tiny_finetune, model=model, data=data, augment=augment, epochs=2, ema_decay=None)


@pytest.fixture(scope="module")
def taught(student, tmp_path_factory):
    """The student's settings with a teacher, and the teacher's parameters."""
    source, params = write_teacher(tmp_path_factory.mktemp("teachers") / "a", student)
    return replace(student, teacher=source), params


def batch():
    rng = np.random.default_rng(0)
    return {
        "video": jnp.asarray(rng.integers(0, 256, (4, 8, 32, 48, 3), np.uint8)),
        "box": jnp.tile(jnp.int32([32, 40, 0]), (4, 1)),
        "label": jnp.arange(4, dtype=jnp.int32),
    }


def test_both_see_the_same_mixed_clips(student, tmp_path):
    """The teacher with the mean and deviation that it was trained with, here one half."""
    halves = Processing(image_mean=(0.5,) * 3, image_std=(0.5,) * 3).fitted(32)
    source, theirs = write_teacher(tmp_path / "a", student, processing=halves)
    run = resolve_run(replace(student, teacher=source, teacher_temperature=2.0))
    task, key = run.objective, jax.random.key(3)
    assert isinstance(task, Distillation)
    params = VideoMAEForVideoClassification(run.config.model, init_scale=10).init_params(key)
    loss_of = jax.jit(task.loss_beside(read_teacher(run.config).params))
    loss = float(loss_of(params, batch(), key))
    clips, _ = jax.jit(task.augmented)(batch(), key)
    shown = (denormalize(clips) / 255 - 0.5) / 0.5
    ours = jax.jit(task.model.apply)({"params": params}, clips).logits
    said = jax.jit(task.teacher.apply)({"params": theirs}, shown).logits
    shares, soft = softmax(np.asarray(ours, np.float64) / 2), softmax(np.asarray(said, np.float64) / 2)
    assert loss == pytest.approx(4 * (soft * np.log(soft / shares)).sum(axis=1).mean(), rel=1e-4)
    assert loss > 1e-2, "or nothing would be shown"
    relabelled = batch() | {"label": jnp.zeros(4, jnp.int32)}
    assert loss == float(loss_of(params, relabelled, key))


def test_a_step_moves_the_student_and_leaves_the_teacher(taught):
    config, theirs = taught
    run = resolve_run(config)
    state, _ = initial_state(run, taught_by(run).params)
    before = jax.device_get(state.params)
    step = make_train_step(run.objective, run.mesh, lambda step: 1e-3)
    state, metrics = step(state, batch(), jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, state.teacher, theirs)
    moved, first = (tree["encoder"]["blocks"]["attn"]["qkv"]["kernel"] for tree in (state.params, before))
    assert not np.array_equal(moved, first)
    assert np.isfinite(metrics["loss"])
    saved = split_state(state)
    assert "teacher" not in saved.keys() | saved["training"].keys()


def config_of(config):
    return resolve_run(config).config


def test_a_stopped_run_ends_as_one_that_was_not(student, tmp_path):
    """And only with the teacher that it began with."""
    source, _ = write_teacher(tmp_path / "teacher", student)
    kept = replace(student.checkpoint, every_steps=2, keep_last=9)
    config = replace(student, teacher=source, checkpoint=kept)
    said = describe_run(resolve_run(config), 0)
    assert f"teacher  {source}, 3 layers of width 64" in said
    assert "frozen, in float32; temperature 1, labels count in validation only" in said
    whole, again = tmp_path / "whole", tmp_path / "again"
    outcome = train(config, whole)
    assert outcome.step == outcome.total_steps > 2
    folder = find_step_folder(whole)
    assert not (folder / "teacher").exists()
    assert read_description(folder)["teacher"] == read_teacher(config_of(config)).digest
    shutil.copytree(whole, again)
    for step in (again / "checkpoints").iterdir():
        if step.name.isdecimal() and int(step.name) > 2:
            shutil.rmtree(step)
    assert train(config, again).step == outcome.step
    one, other = (read_params(find_step_folder(each))[1] for each in (whole, again))
    jax.tree.map(np.testing.assert_array_equal, one, other)
    with pytest.raises(InputError, match=r"teacher: .* -> None"):
        train(replace(config, teacher=None), again)
    model, params = VideoMAEForVideoClassification.from_pretrained(source)
    model.save_pretrained(source, jax.tree.map(lambda leaf: leaf + 1, params))
    with pytest.raises(InputError, match="--teacher holds other weights than when this run began"):
        train(config, again)


def test_a_teacher_of_more_classes_teaches_those_of_the_videos(student, tmp_path):
    """As one of Kinetics-710 the 400 of Kinetics-400, by name."""
    source, theirs = write_teacher(tmp_path / "a", student, ("swim", "Walk", "run", "jump", "bend", "fly"))
    teacher = read_teacher(config_of(replace(student, teacher=source)))
    np.testing.assert_array_equal(teacher.params["head"]["kernel"], theirs["head"]["kernel"][:, [4, 3, 2, 1]])


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("bend", "jump", "swim", "fly"), "does not know 2 of the 4 classes of the videos: run, walk"),
        (("0", "1", "2", "3"), "has 4 classes, and the teacher knows no names of classes"),
    ],
)
def test_a_teacher_that_does_not_know_the_classes_is_refused(student, tmp_path, names, said):
    source, _ = write_teacher(tmp_path / "a", student, names)
    with pytest.raises(InputError, match=said):
        read_teacher(config_of(replace(student, teacher=source)))


def test_classes_without_names_are_told_by_their_number(student, tmp_path):
    nameless = replace(student, data=replace(student.data, classes=None))
    source, theirs = write_teacher(tmp_path / "a", student, ("0", "1", "2", "3"))
    teacher = read_teacher(config_of(replace(nameless, teacher=source)))
    np.testing.assert_array_equal(teacher.params["head"]["kernel"], theirs["head"]["kernel"])
    source, _ = write_teacher(tmp_path / "b", student)
    with pytest.raises(InputError, match=r"4 classes without names: give --data\.classes"):
        read_teacher(config_of(replace(nameless, teacher=source)))


def test_what_cannot_teach_is_refused(student, taught, tiny, tmp_path):
    model = VideoMAEForPreTraining(tiny.model)
    model.save_pretrained(tmp_path / "a", model.init_params(jax.random.key(0)))
    with pytest.raises(InputError, match="has no classification head: name a fine-tuned model"):
        read_teacher(config_of(replace(student, teacher=str(tmp_path / "a"))))
    odd = replace(
        student, teacher=taught[0].teacher, model=replace(student.model, image_size=36, patch_size=4)
    )
    with pytest.raises(InputError, match="the teacher, cannot see the student's clips: image_size"):
        resolve_run(odd)
    with pytest.raises(InputError, match="a student of a giant model needs its weights"):
        resolve_run(replace(student, teacher_size="giant"))
    with pytest.raises(InputError, match="teacher_temperature=0 must be above 0"):
        resolve_run(replace(taught[0], teacher_temperature=0.0))


def test_a_plan_needs_the_size_of_the_teacher_only(student):
    """The giant of 14 x 14 patches, on the student's clips and in the dtype that it computes in."""
    model = replace(student.model, image_size=224, patch_size=16, num_labels=4, dtype="bfloat16")
    config = replace(student, model=model, teacher_size="giant")
    seen_as = teacher_config(config)
    assert (seen_as.hidden_size, seen_as.patch_size) == (1408, 14)
    assert (seen_as.num_frames, seen_as.num_labels) == (8, 4)
    teacher = state_shapes(Distillation(config)).teacher
    assert {leaf.dtype.name for leaf in jax.tree.leaves(teacher)} == {"bfloat16"}
    assert teacher["encoder"]["blocks"]["mlp"]["fc1"]["kernel"].shape == (40, 1408, 6144)
    mesh = AbstractMesh((1, 2), ("data", "fsdp"))
    split = state_shardings(mesh, state_shapes(Distillation(config))).teacher
    assert split["encoder"]["blocks"]["mlp"]["fc1"]["kernel"].spec == PartitionSpec(None, None, "fsdp")
    both, alone = (flops_per_clip(each) for each in (config, replace(config, teacher_size=None)))
    giant = replace(SIZES["giant"], num_frames=8, num_labels=4)
    assert both.train - alone.train == classification_flops(giant).forward
    assert both.forward == alone.forward


def test_hosts_compare_their_teachers(taught, monkeypatch):
    compared = []
    monkeypatch.setattr(starting, "Hosts", lambda: SimpleNamespace(count=2, compare=compared.append))
    digest = taught_by(resolve_run(taught[0])).digest
    assert compared == [{"weights of --teacher": Fact(digest, digest[:12])}]
    assert len(digest) == len(params_digest({}))
