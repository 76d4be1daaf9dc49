"""Paper, type and files of the pictures that commands draw."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePath

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from videomae_jax.data.records import VideoRecord
from videomae_jax.errors import InputError
from videomae_jax.files import replacing
from videomae_jax.inference.lettering import draw_text, text_width

TEXT, PAPER = (30, 30, 30), (255, 255, 255)
GAP, MARGIN, LINE = 4, 12, 19
_FRAMES_IN_STRIP = 8
Clip = UInt8[np.ndarray, "T H W 3"]


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
    longest = max((text_width(line, 13) for line in caption), default=0)
    return Image.new("RGB", (max(width, longest + 2 * MARGIN), height), PAPER)


def write_caption(paper: Image.Image, top: int, caption: Sequence[str]) -> None:
    for number, line in enumerate(caption):
        draw_text(paper, (MARGIN, top + number * LINE), line, 13, TEXT)


def draw_strip(rows: Mapping[str, Clip], title: str, caption: Sequence[str]) -> Image.Image:
    """Up to 8 frames, evenly spread, side by side, in a row for each clip, which are all of one shape."""
    total = len(next(iter(rows.values())))
    shown = np.unique(np.linspace(0, total - 1, min(_FRAMES_IN_STRIP, total)).round().astype(int))
    scale, height, width = _enlarged(rows, 112)
    left, top = MARGIN + 118, MARGIN + LINE + 8 + LINE
    right = left + len(shown) * (width + GAP) + MARGIN
    paper = blank_paper(right, top + len(rows) * (height + GAP) + 6 + LINE * len(caption) + MARGIN, caption)
    draw_text(paper, (MARGIN, MARGIN), title, 16, TEXT)
    for column, frame in enumerate(shown):
        x = left + column * (width + GAP)
        draw_text(paper, (x, top - LINE), f"frame {frame + 1}", 12, TEXT)
        for row, video in enumerate(rows.values()):
            paper.paste(enlarge(video[frame], scale), (x, top + row * (height + GAP)))
    for row, name in enumerate(rows):
        draw_text(paper, (MARGIN, top + row * (height + GAP) + height // 2), name, 15, TEXT, "lm")
    write_caption(paper, top + len(rows) * (height + GAP) + 6, caption)
    return paper


def draw_animation(rows: Mapping[str, Clip], caption: Sequence[str]) -> list[Image.Image]:
    """One picture per frame: that of each clip side by side."""
    scale, height, width = _enlarged(rows, 192)
    top = MARGIN + LINE
    empty = blank_paper(
        2 * MARGIN + len(rows) * (width + GAP) - GAP, top + height + 6 + LINE * len(caption) + MARGIN, caption
    )
    for column, name in enumerate(rows):
        draw_text(empty, (MARGIN + column * (width + GAP), MARGIN - 4), name, 15, TEXT)
    write_caption(empty, top + height + 6, caption)
    frames = []
    for panels in zip(*rows.values(), strict=True):
        frames.append(empty.copy())
        for column, panel in enumerate(panels):
            frames[-1].paste(enlarge(panel, scale), (MARGIN + column * (width + GAP), top))
    return frames


def _enlarged(rows: Mapping[str, Clip], least: int) -> tuple[int, int, int]:
    """By how much frames are enlarged so that no side is shorter than `least`, and their height and width."""
    height, width = next(iter(rows.values())).shape[1:3]
    scale = -(-least // min(height, width))
    return scale, scale * height, scale * width


def places_in(out: Path, videos: Iterable[VideoRecord]) -> dict[Path, VideoRecord]:
    """Where the pictures of each video go, without a suffix; raises InputError when two would share one."""
    places: dict[Path, VideoRecord] = {}
    for video in videos:
        name = PurePath(video.name)
        if name.is_absolute() or ".." in name.parts:
            name = PurePath(name.name)
        place = out / name.with_name(name.stem)
        if place in places:
            raise InputError(
                f"the pictures of {places[place].path} and {video.path} would both be {place}.png; draw them "
                "into two folders, with --out"
            )
        places[place] = video
    return places
