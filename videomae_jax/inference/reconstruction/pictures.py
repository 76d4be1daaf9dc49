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
    scale, height, width = _enlarged(result, 112)
    left, top = MARGIN + 118, MARGIN + LINE + 8 + LINE
    right = left + len(shown) * (width + GAP) + MARGIN
    paper = blank_paper(right, top + 3 * (height + GAP) + 6 + LINE * len(caption) + MARGIN, caption)
    draw = ImageDraw.Draw(paper)
    draw.text((MARGIN, MARGIN), title, TEXT, font(16))
    for column, frame in enumerate(shown):
        x = left + column * (width + GAP)
        draw.text((x, top - LINE), f"frame {frame + 1}", TEXT, font(12))
        for row, video in enumerate(rows):
            paper.paste(enlarge(video[frame], scale), (x, top + row * (height + GAP)))
    for row, name in enumerate(_ROWS):
        draw.text((MARGIN, top + row * (height + GAP) + height // 2), name, TEXT, font(15), anchor="lm")
    write_caption(draw, top + 3 * (height + GAP) + 6, caption)
    return paper


def draw_animation(result: Reconstruction, caption: Sequence[str]) -> list[Image.Image]:
    """One picture per frame: original, masked and reconstruction side by side."""
    scale, height, width = _enlarged(result, 192)
    top = MARGIN + LINE
    empty = blank_paper(
        2 * MARGIN + 3 * width + 2 * GAP, top + height + 6 + LINE * len(caption) + MARGIN, caption
    )
    draw = ImageDraw.Draw(empty)
    for column, name in enumerate(_ROWS):
        draw.text((MARGIN + column * (width + GAP), MARGIN - 4), name, TEXT, font(15))
    write_caption(draw, top + height + 6, caption)
    frames = []
    for panels in zip(result.original, result.masked, result.reconstruction, strict=True):
        frames.append(empty.copy())
        for column, panel in enumerate(panels):
            frames[-1].paste(enlarge(panel, scale), (MARGIN + column * (width + GAP), top))
    return frames


def _enlarged(result: Reconstruction, least: int) -> tuple[int, int, int]:
    """By how much frames are enlarged so that no side is shorter than `least`, and their height and width."""
    height, width = result.original.shape[1:3]
    scale = -(-least // min(height, width))
    return scale, scale * height, scale * width
