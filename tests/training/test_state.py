"""The shapes of a run's state, and how the first one is compiled."""

from dataclasses import replace
from functools import partial

import jax
import numpy as np

from videomae_jax.config import load_config
from videomae_jax.models.compiled_for import compiling_for
from videomae_jax.plan.topology import read_target
from videomae_jax.training import state
from videomae_jax.training.objectives.pretraining import Pretraining
from videomae_jax.training.sharding import make_mesh
from videomae_jax.training.state import jitted_first_state, state_shapes


def test_the_shapes_of_a_state_are_traced_once_for_each_hardware():
    tiny = load_config("tiny")
    task = Pretraining(replace(tiny, model=replace(tiny.model, dtype="auto")))
    here = state_shapes(task)
    assert state_shapes(task) is here
    assert here.loss_scale is None
    with compiling_for(read_target("t4:1").hardware):
        assert state_shapes(task).loss_scale is not None


def temporaries(compiled):
    return compiled.memory_analysis().temp_size_in_bytes


def test_drawing_a_first_state_on_a_cpu_takes_little_memory_and_draws_the_same(monkeypatch):
    task, mesh = Pretraining(load_config("tiny")), make_mesh(devices=jax.devices("cpu")[:1])
    ours = jitted_first_state(task, mesh).lower(jax.random.key(0)).compile()
    monkeypatch.setattr(state, "compiler_options", lambda platform, called_once: {})
    plain = jitted_first_state(task, mesh).lower(jax.random.key(0)).compile()
    assert temporaries(ours) < temporaries(plain) / 4
    drawn, wanted = ours(jax.random.key(0)), plain(jax.random.key(0))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6), drawn, wanted)
