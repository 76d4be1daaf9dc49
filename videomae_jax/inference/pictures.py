"""Paper, type and files of the pictures that commands draw."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from videomae_jax.files import replacing

TEXT, PAPER = (30, 30, 30), (255, 255, 255)
GAP, MARGIN, LINE = 4, 12, 19


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


def enlarge(frame: UInt8[np.ndarray, "H W 3"], scale: int) -> Image.Image:
    """A frame with every pixel repeated `scale` times both ways."""
    return Image.fromarray(frame.repeat(scale, 0).repeat(scale, 1))


def blank_paper(width: int, height: int, caption: Sequence[str]) -> Image.Image:
    """White paper that is wide enough for the caption too."""
    longest = max((font(13).getlength(line) for line in caption), default=0)
    return Image.new("RGB", (max(width, int(longest) + 2 * MARGIN), height), PAPER)


def write_caption(draw: ImageDraw.ImageDraw, top: int, caption: Sequence[str]) -> None:
    for number, line in enumerate(caption):
        draw.text((MARGIN, top + number * LINE), line, TEXT, font(13))


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
