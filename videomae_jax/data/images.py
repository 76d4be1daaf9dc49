"""Videos that come as folders of images, one file per frame."""

import os
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from videomae_jax.data.regular_files import why_not_readable
from videomae_jax.data.sources import VideoRecord
from videomae_jax.data.video import StreamedFrame, VideoError, fit_size

IMAGE_SUFFIXES = frozenset({".jpeg", ".jpg", ".png"})


def find_image_folders(folder: Path) -> tuple[VideoRecord, ...]:
    """Each folder below `folder` that holds images is a video; the folders directly in it are the classes.

    Without another level in between there are no classes.
    """
    names = []
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if any(_is_frame(name) for name in files):
            names.append(Path(parent).relative_to(folder).as_posix())
    classes = sorted({name.split("/")[0] for name in names if "/" in name})
    labels = {name: label for label, name in enumerate(classes)}
    return tuple(
        VideoRecord(str(folder / name), name, labels.get(name.split("/")[0]) if "/" in name else None)
        for name in sorted(names)
    )


def list_frames(folder: str) -> list[Path]:
    """The frames of a video in the order of the last number in their names; raises VideoError."""
    try:
        names = [name for name in os.listdir(folder) if _is_frame(name)]
    except OSError as error:
        raise VideoError(folder, "unreadable", str(error.strerror)) from error
    if not names:
        raise VideoError(folder, "no-frames", "the folder holds no image")
    numbered = sorted((_number(name), name) for name in names)
    numbers = [number for number, _ in numbered]
    if len(set(numbers)) < len(numbers):
        twice = next(a for a, b in pairwise(numbered) if a[0] == b[0])
        raise VideoError(folder, "mixed-frames", f"several images have the number {twice[0]}: {twice[1]}")
    return [Path(folder, name) for _, name in numbered]


def read_image(path: Path, short_side: int | None, *, even: bool = False) -> UInt8[np.ndarray, "h w 3"]:
    """One frame in RGB, at most `short_side` pixels on its short side; raises VideoError."""
    if unreadable := why_not_readable(path):
        raise VideoError(str(path.parent), unreadable[0], f"{path.name}: {unreadable[1]}")
    try:
        with Image.open(path) as image:
            height, width = fit_size(image.height, image.width, short_side, even=even)
            rgb = image.convert("RGB")
            if (rgb.height, rgb.width) != (height, width):
                rgb = rgb.resize((width, height), Image.Resampling.BICUBIC)
            return np.array(rgb)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise VideoError(str(path.parent), "damaged", f"{path.name} does not decode: {error}") from error


def stream_images(
    folder: str, files: list[Path], wanted: Sequence[int], short_side: int | None, *, even: bool
) -> Iterator[StreamedFrame]:
    """The frames at these positions, one by one; raises VideoError (mixed-sizes) when their sizes differ."""
    first = None
    for index in wanted:
        image = read_image(files[index], short_side, even=even)
        first = first or image.shape
        if image.shape != first:
            size, before = f"{image.shape[1]}x{image.shape[0]}", f"{first[1]}x{first[0]}"
            raise VideoError(folder, "mixed-sizes", f"{files[index].name} is {size}, earlier ones {before}")
        yield StreamedFrame(index, image, False)


def _is_frame(name: str) -> bool:
    # flow_x and flow_y beside the frames are optical flow, as MMAction's tools write it.
    return not name.startswith((".", "flow_")) and Path(name).suffix.lower() in IMAGE_SUFFIXES


def _number(name: str) -> int:
    found = re.findall(r"\d+", Path(name).stem)
    return int(found[-1]) if found else -1
