"""Reconstructions as pictures: a strip of frames, and an animation, both with captions."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from videomae_jax.inference.pictures import GAP, LINE, MARGIN, TEXT, blank_paper, enlarge, font, write_caption
from videomae_jax.inference.reconstruction.reconstruct import Reconstruction

_ROWS = ("original", "masked", "reconstruction")
_FRAMES_IN_STRIP = 8


def draw_strip(result: Reconstruction, title: str, caption: Sequence[str]) -> Image.Image:
    """Up to 8 frames, evenly spread, side by side: original above, then masked, then reconstruction."""
    rows = (result.original, result.masked, result.reconstruction)
    total = len(result.original)
    shown = np.unique(np.linspace(0, total - 1, min(_FRAMES_IN_STRIP, total)).round().astype(int))
    scale = -(-112 // result.original.shape[1])
    side = result.original.shape[1] * scale
    left, top = MARGIN + 118, MARGIN + LINE + 8 + LINE
    width = left + len(shown) * (side + GAP) + MARGIN
    paper = blank_paper(width, top + 3 * (side + GAP) + 6 + LINE * len(caption) + MARGIN, caption)
    draw = ImageDraw.Draw(paper)
    draw.text((MARGIN, MARGIN), title, TEXT, font(16))
    for column, frame in enumerate(shown):
        x = left + column * (side + GAP)
        draw.text((x, top - LINE), f"frame {frame + 1}", TEXT, font(12))
        for row, video in enumerate(rows):
            paper.paste(enlarge(video[frame], scale), (x, top + row * (side + GAP)))
    for row, name in enumerate(_ROWS):
        draw.text((MARGIN, top + row * (side + GAP) + side // 2), name, TEXT, font(15), anchor="lm")
    write_caption(draw, top + 3 * (side + GAP) + 6, caption)
    return paper


def draw_animation(result: Reconstruction, caption: Sequence[str]) -> list[Image.Image]:
    """One picture per frame: original, masked and reconstruction side by side."""
    scale = -(-192 // result.original.shape[1])
    side = result.original.shape[1] * scale
    top = MARGIN + LINE
    width = 2 * MARGIN + 3 * side + 2 * GAP
    empty = blank_paper(width, top + side + 6 + LINE * len(caption) + MARGIN, caption)
    draw = ImageDraw.Draw(empty)
    for column, name in enumerate(_ROWS):
        draw.text((MARGIN + column * (side + GAP), MARGIN - 4), name, TEXT, font(15))
    write_caption(draw, top + side + 6, caption)
    frames = []
    for panels in zip(result.original, result.masked, result.reconstruction, strict=True):
        frames.append(empty.copy())
        for column, panel in enumerate(panels):
            frames[-1].paste(enlarge(panel, scale), (MARGIN + column * (side + GAP), top))
    return frames
