"""Text of any script stands in pictures, with fonts of the machine, or as numbers where it has none."""

import logging

import numpy as np
import pytest
from matplotlib import font_manager
from PIL import Image

from videomae_jax.inference import lettering
from videomae_jax.inference.evaluation.confusion import draw_confusion
from videomae_jax.inference.lettering import draw_text, font, for_matplotlib, text_width

HIGH_JUMP = "跳高"


def drawn(text, anchor="la"):
    paper = Image.new("RGB", (400, 60), "white")
    draw_text(paper, (10, 20), text, 20, (0, 0, 0), anchor)
    return np.asarray(paper).min(axis=2)


@pytest.fixture
def only_dejavu(monkeypatch):
    """A machine with no font but the one that matplotlib brings."""
    for cached in (lettering._font_files, lettering._face, lettering._number):
        cached.cache_clear()
    own = font_manager.findfont("DejaVu Sans")
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [own])
    yield
    for cached in (lettering._font_files, lettering._face, lettering._number):
        cached.cache_clear()


def test_letters_of_another_font_stand_on_the_same_line_beside_the_others(only_dejavu):
    text = "jump прыжок"
    assert text_width(text, 20) > text_width("jump ", 20) + 50
    assert len(lettering._runs(text)) == 2
    ink = drawn(text) < 128
    columns = np.flatnonzero(ink.any(axis=0))
    assert columns[-1] == pytest.approx(10 + text_width(text, 20), abs=3)
    latin, cyrillic = (np.flatnonzero(ink[:, part].any(axis=1)) for part in (slice(0, 60), slice(62, 400)))
    assert latin[-1] == pytest.approx(cyrillic[-1], abs=2)  # Both have a p, below the line.


def test_text_of_the_own_font_stands_as_pillow_puts_it():
    from PIL import ImageDraw

    paper = Image.new("RGB", (400, 60), "white")
    ImageDraw.Draw(paper).text((10, 20), "high jump", (0, 0, 0), font(20))
    assert (np.asarray(paper).min(axis=2) == drawn("high jump")).all()


def test_a_letter_that_no_font_has_is_its_number_and_the_log_says_so_once(only_dejavu, caplog):
    with caplog.at_level(logging.WARNING):
        assert (drawn(HIGH_JUMP) == drawn("U+8DF3U+9AD8")).all()
        assert (drawn("跳", "lm") < 128).any()
    assert [record.getMessage() for record in caplog.records] == [
        "no font of this machine has 跳: pictures show U+8DF3",
        "no font of this machine has 高: pictures show U+9AD8",
    ]
    families, (jump, run) = for_matplotlib([HIGH_JUMP, "бег"])
    assert (families, jump, run) == (["DejaVu Sans"], "U+8DF3U+9AD8", "бег")


def test_classes_of_any_script_stand_at_the_confusion_matrix(tmp_path, recwarn):
    draw_confusion(tmp_path / "confusion.png", np.eye(3, dtype=int), (HIGH_JUMP, "🏃 run", "прыжок"), "title")
    assert not [each for each in recwarn if "missing from font" in str(each.message)]


@pytest.mark.parametrize("word", [HIGH_JUMP, "バレーボール", "배구", "🏃"])
def test_a_font_of_this_machine_is_found(word):
    if not lettering._face(word[0], True):
        pytest.skip(f"no font of this machine has {word[0]}")
    [(face, letters)] = lettering._runs(word)
    assert letters == word
    assert face
    assert (drawn(word) < 200).any()
