"""Accuracies against plain loops and values worked out by hand, and the picture of a confusion."""

import numpy as np
import pytest
from PIL import Image

from videomae_jax.inference.evaluation.accuracy import Accuracy, class_accuracies, confusion_matrix
from videomae_jax.inference.evaluation.confusion import draw_confusion
from videomae_jax.models.ranking import best_classes, classes_ahead

# By hand: hit; second; a tie that the lower number wins, for and against; last.
SCORES = np.array([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2], [0.4, 0.4, 0.2], [0.4, 0.4, 0.2], [0.6, 0.3, 0.1]])
LABELS = np.array([1, 1, 0, 1, 2])


def test_accuracies_worked_out_by_hand():
    assert classes_ahead(SCORES, LABELS).tolist() == [0, 1, 0, 1, 2]
    assert [(classes_ahead(SCORES, LABELS) < k).sum() for k in (1, 2, 3)] == [2, 4, 5]
    assert best_classes(SCORES, 2).tolist() == [[1, 2], [0, 1], [0, 1], [0, 1], [0, 1]]
    assert confusion_matrix(SCORES, LABELS).tolist() == [[1, 0, 0], [2, 1, 0], [1, 0, 0]]
    classes = class_accuracies(SCORES, LABELS, ("a", "b", "c"))
    assert [(each.videos, each.correct) for each in classes] == [(1, 1), (3, 1), (1, 0)]


def test_accuracies_equal_a_plain_loop_with_many_ties():
    rng = np.random.default_rng(0)
    scores, labels = rng.integers(0, 4, (200, 12)).astype(float), rng.integers(0, 12, 200)
    ranked = [sorted(range(12), key=lambda number: (-row[number], number)) for row in scores]
    for k in (1, 5, 12):
        hits = sum(label in order[:k] for label, order in zip(labels, ranked, strict=True))
        assert (classes_ahead(scores, labels) < k).sum() == hits
    assert best_classes(scores, 5).tolist() == [order[:5] for order in ranked]
    confusion = np.zeros((12, 12), int)
    for label, order in zip(labels, ranked, strict=True):
        confusion[label, order[0]] += 1
    assert (confusion_matrix(scores, labels) == confusion).all()


def test_failures_lower_only_the_share_that_counts_them():
    value = Accuracy(correct=30, read=40, failed=10)
    assert (value.share, value.share_failures_wrong) == (0.75, 0.6)
    assert value.standard_error == pytest.approx(np.sqrt(0.75 * 0.25 / 40))


def test_a_class_without_videos_has_no_accuracy():
    classes = class_accuracies(SCORES[:1], LABELS[:1], ("a", "b", "c"))
    assert [each.share for each in classes] == [None, 1.0, None]


@pytest.mark.parametrize("count", [2, 12, 30, 700])
def test_a_confusion_is_drawn_for_few_and_many_classes(tmp_path, count):
    rng = np.random.default_rng(count)
    confusion = 5 * np.eye(count, dtype=np.int64) + (rng.random((count, count)) < 2 / count)
    confusion[1] = 0  # A class without videos.
    names = tuple(f"class number {number} with quite a long name" for number in range(count))
    draw_confusion(tmp_path / "confusion.png", confusion, names, "top-1 80.0% of 9 videos")
    with Image.open(tmp_path / "confusion.png") as picture:
        assert 500 <= picture.width <= 2000
        assert 500 <= picture.height <= 2000
        blue = np.asarray(picture.convert("RGB")).astype(int)
    assert (blue[..., 2] - blue[..., 0] > 60).sum() > 500  # The diagonal is there.
