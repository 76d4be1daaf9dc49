"""The rank of a label: ties, scores that are no numbers, and the same on the host and on a device."""

import jax
import jax.numpy as jnp
import numpy as np

from videomae_jax.models.ranking import best_classes, classes_ahead

NAN = float("nan")
SCORES = np.float32([[0, 3, 3, 1], [2, 2, 2, 2], [5, 1, 0, 9], [NAN, NAN, NAN, NAN], [NAN, 1, 2, 3]])


def test_of_equal_scores_the_lowest_number_is_the_better():
    assert classes_ahead(SCORES[:3], np.array([2, 0, 3])).tolist() == [1, 0, 0]
    assert classes_ahead(SCORES[:3], np.array([1, 3, 2])).tolist() == [0, 3, 3]
    assert best_classes(SCORES[:2], 2).tolist() == [[1, 2], [0, 1]]


def test_scores_that_are_no_numbers_are_a_miss():
    assert (classes_ahead(SCORES[3:], np.array([0, 3])) > 0).all()


def test_a_device_ranks_as_the_host():
    for label in range(4):
        labels = np.full(len(SCORES), label)
        on_device = jax.jit(classes_ahead)(jnp.asarray(SCORES), jnp.asarray(labels))
        assert np.array_equal(on_device, classes_ahead(SCORES, labels))
