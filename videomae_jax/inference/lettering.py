"""Text in pictures, of any script: what Pillow's own font lacks comes from the fonts of this machine."""

import logging
import unicodedata
from collections.abc import Sequence
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Literal

from PIL import Image, ImageDraw, ImageFont

_STRIKE = 109
"""The one size of fonts that hold pictures of letters, as those of coloured emoji do."""
_JOINS = {"Mn", "Mc", "Me", "Cf"}
"""Kinds of characters that change the letter before them: accents, joiners, variants."""
log = logging.getLogger(__name__)


def font(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's own, of a height in pixels."""
    found = ImageFont.load_default(size)
    assert isinstance(found, ImageFont.FreeTypeFont)
    return found


def text_width(text: str, size: int) -> int:
    """Pixels that `draw_text` takes."""
    return sum(_width(*run, size) for run in _runs(text))


def draw_text(
    paper: Image.Image,
    place: tuple[int, int],
    text: str,
    size: int,
    colour: tuple[int, int, int],
    anchor: Literal["la", "lm"] = "la",
) -> None:
    """Write on a picture. A letter that no font has becomes its number, U+8DF3, and the log says so once.

    Args:
      place: where the text begins, x and y, in pixels.
      anchor: as in Pillow: whether y is that of the top of letters, or of their middle.
    """
    draw, x = ImageDraw.Draw(paper), place[0]
    ascent, descent = font(size).getmetrics()
    baseline = place[1] + (ascent if anchor == "la" else (ascent - descent) // 2)
    for face, letters in _runs(text):
        drawn = _opened(face, size)
        if drawn.size == size:
            draw.text((x, baseline), letters, colour, drawn, "ls")
        else:
            picture = _scaled(letters, drawn, size)
            paper.paste(picture, (x, baseline - size), picture)
        x += _width(face, letters, size)


def for_matplotlib(texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """Font families with the letters of texts, and the texts, with numbers in place of letters without."""
    from matplotlib import font_manager
    from matplotlib.font_manager import FontProperties

    own = Path(font_manager.findfont("DejaVu Sans"))
    asked = {
        letter for letter in "".join(texts) if not letter.isspace() and ord(letter) not in _letters(own)[0]
    }
    faces = {letter: _face(letter, False) for letter in asked}
    paths = sorted({path for path in faces.values() if path})
    for path in paths:
        font_manager.fontManager.addfont(path)
    families = [FontProperties(fname=path).get_name() for path in paths]
    shown = {letter: _number(letter) for letter, path in faces.items() if path is None}
    return ["DejaVu Sans", *families], [
        "".join(shown.get(letter, letter) for letter in text) for text in texts
    ]


def _runs(text: str) -> list[tuple[Path | None, str]]:
    """Stretches of one font each: None is Pillow's own."""
    faces: list[Path | None] = []
    letters: list[str] = []
    is_drawn = False
    for letter in text:
        if is_drawn and unicodedata.category(letter) in _JOINS:
            face, shown = faces[-1], letter
        else:
            is_own = letter.isspace() or ord(letter) in _letters(None)[0]
            face = None if is_own else _face(letter, True)
            is_drawn = is_own or face is not None
            shown = letter if is_drawn else _number(letter)
        faces.append(face)
        letters.append(shown)
    return [
        (face, "".join(letter for _, letter in run))
        for face, run in groupby(zip(faces, letters, strict=True), key=lambda each: each[0])
    ]


@cache
def _number(letter: str) -> str:
    name = f"U+{ord(letter):04X}"
    log.warning(f"no font of this machine has {letter}: pictures show {name}")
    return name


@cache
def _face(letter: str, pictures: bool) -> Path | None:
    """The first font of this machine with a letter, sans and regular ones first."""
    for path in _font_files():
        letters, is_picture = _letters(path)
        if ord(letter) in letters and (pictures or not is_picture):
            return path
    return None


@cache
def _font_files() -> list[Path]:
    from matplotlib import font_manager

    found = map(Path, font_manager.findSystemFonts())
    return sorted(found, key=lambda path: ("Emoji" not in path.stem, *_plainness(path.stem), path))


def _plainness(name: str) -> tuple[bool, bool]:
    return "Sans" not in name, any(word in name for word in ("Bold", "Italic", "Oblique", "Light", "Thin"))


@cache
def _letters(path: Path | None) -> tuple[frozenset[int], bool]:
    """Numbers of the letters that a font has, and whether they are pictures of one size."""
    from matplotlib.ft2font import FT2Font

    try:
        opened = FT2Font(font(12).path if path is None else str(path))
    except (OSError, RuntimeError):  # Not a font that can be drawn.
        return frozenset(), False
    return frozenset(opened.get_charmap()), not opened.scalable


@cache
def _opened(path: Path | None, size: int) -> ImageFont.FreeTypeFont:
    if path is None:
        return font(size)
    return ImageFont.truetype(str(path), _STRIKE if _letters(path)[1] else size)


def _width(path: Path | None, letters: str, size: int) -> int:
    drawn = _opened(path, size)
    return -int(-drawn.getlength(letters) * size // drawn.size)


def _scaled(letters: str, drawn: ImageFont.FreeTypeFont, size: int) -> Image.Image:
    """Letters that are pictures, at the height of the text around them."""
    left, top, right, bottom = drawn.getbbox(letters)
    picture = Image.new("RGBA", (max(int(right), 1), max(int(bottom), 1)))
    ImageDraw.Draw(picture).text((0, 0), letters, font=drawn, embedded_color=True)
    picture = picture.crop((int(left), int(top), int(right), int(bottom)))
    return picture.resize((max(round(picture.width * size / drawn.size), 1), size + 2))
