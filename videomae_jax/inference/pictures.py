"""Reconstructions as pictures: a strip of frames, and an animation, both with captions."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from videomae_jax.files import replacing
from videomae_jax.inference.reconstruct import Reconstruction

_ROWS = ("original", "masked", "reconstruction")
TEXT, PAPER = (30, 30, 30), (255, 255, 255)
GAP, MARGIN, LINE = 4, 12, 19
_FRAMES_IN_STRIP = 8


def draw_strip(result: Reconstruction, title: str, caption: Sequence[str]) -> Image.Image:
    """Up to 8 frames, evenly spread, side by side: original above, then masked, then reconstruction."""
    rows = (result.original, result.masked, result.reconstruction)
    total = len(result.original)
    shown = np.unique(np.linspace(0, total - 1, min(_FRAMES_IN_STRIP, total)).round().astype(int))
    scale = _enlargement(result, 112)
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
    _write_caption(draw, top + 3 * (side + GAP) + 6, caption)
    return paper


def draw_animation(result: Reconstruction, caption: Sequence[str]) -> list[Image.Image]:
    """One picture per frame: original, masked and reconstruction side by side."""
    scale = _enlargement(result, 192)
    side = result.original.shape[1] * scale
    top = MARGIN + LINE
    width = 2 * MARGIN + 3 * side + 2 * GAP
    empty = blank_paper(width, top + side + 6 + LINE * len(caption) + MARGIN, caption)
    draw = ImageDraw.Draw(empty)
    for column, name in enumerate(_ROWS):
        draw.text((MARGIN + column * (side + GAP), MARGIN - 4), name, TEXT, font(15))
    _write_caption(draw, top + side + 6, caption)
    frames = []
    for panels in zip(result.original, result.masked, result.reconstruction, strict=True):
        frames.append(empty.copy())
        for column, panel in enumerate(panels):
            frames[-1].paste(enlarge(panel, scale), (MARGIN + column * (side + GAP), top))
    return frames


def save_gif(path: Path, frames: Sequence[Image.Image], seconds_per_frame: float) -> None:
    """Write an endless GIF; all frames share one palette, so that still parts do not flicker."""
    everything = Image.fromarray(np.concatenate([np.asarray(frame) for frame in frames]))
    palette = everything.quantize(256, Image.Quantize.MEDIANCUT)
    drawn = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    milliseconds = round(1000 * seconds_per_frame)
    with replacing(path) as partial:
        drawn[0].save(partial, save_all=True, append_images=drawn[1:], duration=milliseconds, loop=0)


def save_picture(path: Path, picture: Image.Image) -> None:
    """Write a PNG."""
    with replacing(path) as partial:
        picture.save(partial, format="PNG")


def _enlargement(result: Reconstruction, smallest: int) -> int:
    """How often a pixel is repeated so that frames have at least the smallest side."""
    return -(-smallest // result.original.shape[1])


def enlarge(frame: UInt8[np.ndarray, "H W 3"], scale: int) -> Image.Image:
    """A frame with every pixel repeated `scale` times both ways."""
    return Image.fromarray(frame.repeat(scale, 0).repeat(scale, 1))


def blank_paper(width: int, height: int, caption: Sequence[str]) -> Image.Image:
    """White paper that is wide enough for the caption too."""
    longest = max((font(13).getlength(line) for line in caption), default=0)
    return Image.new("RGB", (max(width, int(longest) + 2 * MARGIN), height), PAPER)


def _write_caption(draw: ImageDraw.ImageDraw, top: int, caption: Sequence[str]) -> None:
    for number, line in enumerate(caption):
        draw.text((MARGIN, top + number * LINE), line, TEXT, font(13))


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font of all texts."""
    return ImageFont.load_default(size)


__all__ = [
    "GAP",
    "LINE",
    "MARGIN",
    "TEXT",
    "blank_paper",
    "draw_animation",
    "draw_strip",
    "enlarge",
    "font",
    "save_gif",
    "save_picture",
]
