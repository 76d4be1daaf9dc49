"""The shapes of a run's state."""

from dataclasses import replace

from videomae_jax.config import load_config
from videomae_jax.models.compiled_for import compiling_for
from videomae_jax.plan.topology import read_target
from videomae_jax.training.objectives.pretraining import Pretraining
from videomae_jax.training.state import state_shapes


def test_the_shapes_of_a_state_are_traced_once_for_each_hardware():
    tiny = load_config("tiny")
    task = Pretraining(replace(tiny, model=replace(tiny.model, dtype="auto")))
    here = state_shapes(task)
    assert state_shapes(task) is here
    assert here.loss_scale is None
    with compiling_for(read_target("t4:1").hardware):
        assert state_shapes(task).loss_scale is not None
