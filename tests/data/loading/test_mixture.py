"""Sources with weights: how much of an epoch each gives, that all of its videos come, and what is refused."""

from collections import Counter

import pytest

from videomae_jax.data.loading.order import video_of_mixture
from videomae_jax.data.sources import split_weights
from videomae_jax.errors import InputError

SHARES = ((10, 0.7), (40, 0.3))


def epoch(number, shares=SHARES, seed=0):
    return [video_of_mixture(shares, seed, number, place) for place in range(50)]


def test_each_source_has_its_share_of_every_epoch():
    for number in range(4):
        small = sum(video < 10 for video in epoch(number))
        assert small == 35, "70 % of 50 videos"


def test_all_videos_of_a_source_come_once_before_any_comes_twice():
    seen = [video for number in range(8) for video in epoch(number)]
    large = [video for video in seen if video >= 10]
    assert len(large) == 8 * 15
    assert set(Counter(large).values()) == {3}
    small = Counter(video for video in seen if video < 10)
    assert set(small.values()) == {28}


def test_an_order_is_a_function_of_seed_and_epoch():
    assert epoch(3) == epoch(3)
    assert epoch(3) != epoch(4)
    assert epoch(3) != epoch(3, seed=1)


def test_a_batch_larger_than_all_videos_goes_round():
    places = [video_of_mixture(((2, 0.5), (2, 0.5)), 0, 0, place) for place in range(12)]
    assert Counter(places) == {0: 3, 1: 3, 2: 3, 3: 3}


def test_weights_are_taken_off_the_sources(tmp_path):
    assert split_weights(["a.csv", "b"]) == (("a.csv", "b"), ())
    assert split_weights(["a.csv:0.7", "gs://b/c#train:3"]) == (("a.csv", "gs://b/c#train"), (0.7, 3.0))
    odd = tmp_path / "take:2"
    odd.touch()
    assert split_weights([str(odd)]) == ((str(odd),), ()), "a file of that name is no weight"


@pytest.mark.parametrize(
    ("sources", "said"),
    [(["a.csv:0.7", "b.csv"], "b.csv has no weight"), (["a.csv:0", "b.csv:1"], "must be above 0")],
)
def test_weights_that_make_no_sense(sources, said):
    with pytest.raises(InputError, match=said):
        split_weights(sources)
