from dataclasses import replace

import jax
import numpy as np

from videomae_jax.config import load_config
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
    losses = [
        task.loss(params, (clips[n][None], (mask[0][n][None], mask[1][n][None])), key) for n in range(6)
    ]
    np.testing.assert_allclose(task.loss(params, (clips, mask), key), np.mean(losses), rtol=1e-5)
