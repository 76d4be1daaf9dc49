"""The head with which fine-tuning starts: rows of the weights' own, by the names of classes."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from tiny_models import NAMED, make

from videomae_jax import VideoMAEForVideoClassification
from videomae_jax.class_names import plain_spelling, same_classes
from videomae_jax.models.head import rows_to_start_with

K710 = ("abseiling", "air drumming", "petting animal (not cat)", "massaging person's head", "tai chi")


@pytest.mark.parametrize(
    ("published", "plain"),
    [
        ("petting_animal_(not_cat)", "petting animal not cat"),
        ("massaging_person's_head", "massaging person s head"),
        ("Massaging Person_s Head ", "massaging person s head"),
        ("TaiChi", "taichi"),
        ("Straße_2", "strasse 2"),
        ("++", ""),
    ],
)
def test_the_plain_spelling_of_a_name(published, plain):
    assert plain_spelling(published) == plain


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (("tai chi", "abseiling"), (4, 0)),
        (("Air_Drumming", "petting_animal_(not_cat)", "juggling"), (1, 2, None)),
        (("massaging_person_s_head",), (3,)),
        (("tai chi", "Tai_Chi"), (4, None)),
        (("Tai Chi", "Tai_Chi"), (None, None)),
        ((), ()),
    ],
)
def test_classes_are_the_same_by_name(wanted, found):
    """As spelled where that is found, and never two for one row."""
    assert same_classes(wanted, K710) == found


def test_a_spelling_that_two_known_classes_share_is_none_of_theirs():
    assert same_classes(("Golf", "golf swing", "+"), ("golf", "GOLF", "Golf_Swing", "-")) == (None, 2, None)
    assert same_classes(("golf", "GOLF"), ("golf", "GOLF")) == (0, 1)


@pytest.fixture(scope="module")
def of_k710(tmp_path_factory):
    model, params = make(VideoMAEForVideoClassification, replace(NAMED, id2label=K710, num_labels=5))
    folder = tmp_path_factory.mktemp("weights") / "k710"
    model.save_pretrained(folder, params)
    return folder, params


def start(folder, names):
    model = VideoMAEForVideoClassification(replace(NAMED, id2label=names, num_labels=len(names)))
    return model.start_from(folder, jax.random.key(0))


def test_rows_of_a_head_are_taken_by_name(of_k710, caplog):
    folder, params = of_k710
    started, said = start(folder, ("Tai_Chi", "juggling", "air_drumming"))
    kernel, bias = started["head"]["kernel"], started["head"]["bias"]
    np.testing.assert_array_equal(kernel[:, [0, 2]], params["head"]["kernel"][:, [4, 1]])
    np.testing.assert_array_equal(bias, [params["head"]["bias"][4], 0, params["head"]["bias"][1]])
    assert 0 < np.abs(kernel[:, 1]).max() < 1e-4, "drawn as a fresh head is"
    np.testing.assert_array_equal(
        started["fc_norm"]["scale"], params["fc_norm"]["scale"], "and the rest is kept"
    )
    assert said == "taken by name: 2 of 3 classes are among the 5 of the weights; 1 drawn anew: juggling"
    assert f"the head is {said}" in caplog.text


def test_all_classes_may_be_there(of_k710):
    folder, params = of_k710
    started, said = start(folder, K710[::-1])
    np.testing.assert_array_equal(started["head"]["kernel"], params["head"]["kernel"][:, ::-1])
    assert said == "taken by name: 5 of 5 classes are among the 5 of the weights"
    assert start(folder, K710)[1] == "kept: the weights are for the same 5 classes"


def test_many_fresh_classes_are_counted():
    rows, said = rows_to_start_with(K710, ("abseiling", *(f"class {letter}" for letter in "abcdefg")))
    assert rows == (0, *[None] * 7)
    assert said.endswith("7 drawn anew: class a, class b, class c, class d, class e and 2 more")
