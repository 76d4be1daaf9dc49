"""Checkpoints: none dropped, the right ones kept, a full disk survived, wrong shapes named."""

import resource
import shutil
from dataclasses import asdict
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from videomae_jax.checkpoints.orbax import (
    CheckpointWriter,
    find_step_folder,
    list_steps,
    read_description,
    read_params,
    restore,
)
from videomae_jax.config import CheckpointConfig, VideoMAEConfig
from videomae_jax.errors import InputError, RunError

MODEL = VideoMAEConfig(image_size=32)
DESCRIPTION = {"config": {"model": asdict(MODEL) | {"id2label": []}}, "version": "1"}


def trees(seed: int = 0, size: int = 8) -> dict:
    kernel = jnp.asarray(np.random.default_rng(seed).normal(size=(size, size)), jnp.float32)
    return {"params": {"head": {"kernel": kernel}}, "training": {"step": jnp.int32(seed)}}


def abstract(tree: dict) -> dict:
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), tree
    )


@pytest.fixture
def small_files():
    """Writing more than 100 kB to one file fails, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(on: bool) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]) if on else before)

    yield limit
    limit(False)


def test_what_is_saved_comes_back(tmp_path):
    writer = CheckpointWriter(tmp_path, CheckpointConfig())
    writer.save(7, trees(3), DESCRIPTION)
    writer.wait()
    back = restore(tmp_path / "checkpoints/7", abstract(trees()))
    jax.tree.map(np.testing.assert_array_equal, back, trees(3))
    config, params = read_params(tmp_path)
    assert config == MODEL
    np.testing.assert_array_equal(params["head"]["kernel"], trees(3)["params"]["head"]["kernel"])
    assert read_description(tmp_path / "checkpoints/7") == DESCRIPTION


def test_saves_in_quick_succession_are_all_made_even_when_their_arrays_are_donated(tmp_path):
    writer = CheckpointWriter(tmp_path, CheckpointConfig(keep_last=5))
    double = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf * 2, tree), donate_argnums=0)
    state = trees(1, size=500)
    expected = np.asarray(state["params"]["head"]["kernel"])
    for step in range(5):
        writer.save(step, state, DESCRIPTION)
        state = double(state)
    writer.wait()
    assert list_steps(tmp_path) == [0, 1, 2, 3, 4]
    for step in range(5):
        _, params = read_params(tmp_path / f"checkpoints/{step}")
        np.testing.assert_array_equal(params["head"]["kernel"], expected * 2**step)


def test_the_last_ones_and_each_mth_are_kept(tmp_path):
    writer = CheckpointWriter(tmp_path, CheckpointConfig(keep_last=2, keep_every_steps=4))
    for step in range(1, 11):
        writer.save(step, trees(), DESCRIPTION)
    writer.wait()
    assert list_steps(tmp_path) == [4, 8, 9, 10]


def test_a_full_disk_is_reported_and_the_last_good_checkpoint_stays(tmp_path, small_files):
    writer = CheckpointWriter(tmp_path, CheckpointConfig(keep_last=1))
    writer.save(1, trees(1, 500), DESCRIPTION)
    writer.wait()
    small_files(True)
    writer.save(2, trees(2, 500), DESCRIPTION)
    with pytest.raises(RunError, match=r"checkpoints/2 could not be written.*step 1 is intact.*Make room"):
        writer.save(3, trees(3, 500), DESCRIPTION)
    small_files(False)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["1"]
    jax.tree.map(
        np.testing.assert_array_equal,
        restore(find_step_folder(tmp_path), abstract(trees(1, 500))),
        trees(1, 500),
    )
    writer.save(3, trees(3, 500), DESCRIPTION)
    writer.wait()
    assert list_steps(tmp_path) == [3]


def test_poll_notices_a_failure_without_waiting_for_it(tmp_path, small_files):
    writer = CheckpointWriter(tmp_path, CheckpointConfig())
    small_files(True)
    writer.save(2, trees(2, 500), DESCRIPTION)

    def poll_until_it_failed() -> None:
        while True:
            writer.wait(timeout=0)

    with pytest.raises(RunError, match="there is no earlier checkpoint"):
        poll_until_it_failed()


def test_debris_is_cleared_and_never_taken_for_a_checkpoint(tmp_path):
    folder = tmp_path / "checkpoints"
    for name in ("3.orbax-checkpoint-tmp", "2.deleted"):
        (folder / name / "params").mkdir(parents=True)
    assert list_steps(tmp_path) == []
    CheckpointWriter(tmp_path, CheckpointConfig())
    assert list(folder.iterdir()) == []


def test_every_path_that_does_not_fit_is_named_at_once(tmp_path):
    writer = CheckpointWriter(tmp_path, CheckpointConfig())
    writer.save(1, trees(), DESCRIPTION)
    writer.wait()
    wanted = abstract(trees(size=9))
    wanted["params"]["head"]["bias"] = jax.ShapeDtypeStruct((9,), jnp.float32)
    with pytest.raises(InputError) as error:
        restore(tmp_path / "checkpoints/1", wanted)
    assert "missing head/bias float32(9,)" in str(error.value)
    assert "head/kernel is float32(8, 8), not float32(9, 9)" in str(error.value)


@pytest.mark.parametrize(("name", "said"), [("nowhere", "does not exist"), ("", "has no checkpoint in it")])
def test_a_folder_without_checkpoints_is_refused(tmp_path, name, said):
    with pytest.raises(InputError, match=said):
        find_step_folder(Path(tmp_path / name))


@pytest.mark.parametrize("lost", ["_CHECKPOINT_METADATA", "params/_METADATA", "params/d", "params"])
def test_a_damaged_newest_step_is_told_with_another_to_use(tmp_path, lost):
    writer = CheckpointWriter(tmp_path, CheckpointConfig())
    for step in (1, 2):
        writer.save(step, trees(step), DESCRIPTION)
    writer.wait()
    damaged = tmp_path / "checkpoints/2" / lost
    shutil.rmtree(damaged) if damaged.is_dir() else damaged.unlink()
    for source in (tmp_path, tmp_path / "checkpoints"):
        with pytest.raises(InputError, match=r"2 is damaged.*name another step, such as .*checkpoints/1, or"):
            read_params(source)
    if lost.startswith("params"):
        with pytest.raises(InputError, match="2 is damaged"):
            restore(tmp_path / "checkpoints/2", abstract(trees()))
    _, params = read_params(tmp_path / "checkpoints/1")
    jax.tree.map(np.testing.assert_array_equal, params, trees(1)["params"])


def test_a_step_folder_may_be_copied_anywhere_under_any_name(tmp_path):
    writer = CheckpointWriter(tmp_path, CheckpointConfig())
    writer.save(3, trees(3), DESCRIPTION)
    writer.wait()
    for copy in ("elsewhere/best", "checkpoints/3 (copy)", "checkpoints/03"):
        shutil.copytree(tmp_path / "checkpoints/3", tmp_path / copy)
        _, params = read_params(tmp_path / copy)
        jax.tree.map(np.testing.assert_array_equal, params, trees(3)["params"])
    assert list_steps(tmp_path) == [3]


def test_a_model_of_a_newer_version_is_told(tmp_path):
    writer = CheckpointWriter(tmp_path, CheckpointConfig())
    model = DESCRIPTION["config"]["model"] | {"rotary": True}
    writer.save(3, trees(3), {"config": {"model": model}, "version": "9.1"})
    writer.wait()
    with pytest.raises(InputError, match=r"rotary.*version 9\.1"):
        read_params(tmp_path)
