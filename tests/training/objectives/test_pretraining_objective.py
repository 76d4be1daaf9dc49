from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from videomae_jax.config import load_config
from videomae_jax.models.flops import flops_per_clip
from videomae_jax.training.objectives.pretraining import Pretraining


def test_every_mask_of_a_clip_hides_something_else():
    config = replace(load_config("tiny"), num_masks=3)
    model = config.model
    shape = 2, model.num_frames, model.image_size, model.image_size, 3
    video = jax.random.randint(jax.random.key(1), shape, 0, 256, "uint8")
    task, key = Pretraining(config), jax.random.key(0)
    clips, mask = task.draw({"video": video}, key)
    np.testing.assert_array_equal(clips, np.repeat(video, 3, axis=0))
    assert len(np.unique(np.asarray(mask[1]), axis=0)) == 6
    params = task.init_params(key)
    loss = jax.jit(task.loss)
    losses = [loss(params, (clips[n][None], (mask[0][n][None], mask[1][n][None])), key) for n in range(6)]
    np.testing.assert_allclose(loss(params, (clips, mask), key), np.mean(losses), rtol=1e-5)


def test_a_run_has_the_mask_ratio_of_its_part():
    config = replace(load_config("tiny"), earlier_mask_ratios=(0.5, 0.6), mask_ratio=0.75)
    run = Pretraining(config)
    assert [run.at(step, 7).config.mask_ratio for step in range(7)] == [0.5] * 3 + [0.6] * 2 + [0.75] * 2
    assert run.at(6, 7) == run.at(5, 7) == Pretraining(replace(config, earlier_mask_ratios=()))
    plain = Pretraining(load_config("tiny"))
    assert plain.at(3, 7) == plain
    video = jnp.zeros((2, 8, 32, 32, 3), "uint8")
    seen = [run.at(step, 7).draw({"video": video}, jax.random.key(0))[1][0].shape[1] for step in (0, 3, 6)]
    assert seen == [32, 28, 16]
    parts = [flops_per_clip(run.at(step, 7).config).train for step in (0, 3, 6)]
    assert parts[0] > parts[1] > parts[2]
    assert flops_per_clip(config).train == sum(parts) // 3
