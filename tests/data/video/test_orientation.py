"""Turns and mirrors that a file asks for: applied exactly to every frame, or noted."""

import struct

import numpy as np
import pytest
from test_decoder import encode, moving_square
from test_faults import each_alone_is_right, remux

from videomae_jax.data.video import open_video
from videomae_jax.data.video.frames import Orientation

MATRICES = {
    "hflip": ((-1, 0, 0, 1), lambda image: image[:, ::-1], Orientation(True, 0)),
    "vflip": ((1, 0, 0, -1), lambda image: image[::-1], Orientation(True, 2)),
    "transpose": ((0, 1, 1, 0), lambda image: image.transpose(1, 0, 2), Orientation(True, 1)),
    "antitranspose": ((0, -1, -1, 0), lambda i: i[::-1, ::-1].transpose(1, 0, 2), Orientation(True, 3)),
    "left": ((0, -1, 1, 0), lambda image: np.rot90(image, 1), Orientation(False, 1)),
    "half": ((-1, 0, 0, -1), lambda image: np.rot90(image, 2), Orientation(False, 2)),
    "right": ((0, 1, -1, 0), lambda image: np.rot90(image, 3), Orientation(False, 3)),
    "slanted": ((0.7071, -0.7071, 0.7071, 0.7071), lambda image: image, Orientation(ignored_degrees=45)),
    "nearly": ((0.9848, -0.1736, 0.1736, 0.9848), lambda image: image, Orientation(ignored_degrees=10)),
    "sheared": ((1, 1024, 0, 1), lambda image: image, Orientation(ignored_degrees=-90)),
    "stretched": ((0, 2, -1, 0), lambda image: np.rot90(image, 3), Orientation(False, 3)),
}


@pytest.mark.parametrize("name", list(MATRICES))
def test_display_matrices_are_applied_exactly_or_noted(tmp_path, name):
    (a, b, c, d), turn, orientation = MATRICES[name]
    path = encode(tmp_path / "a.mp4", moving_square(12, 32, 48))
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd") + 4 + 40
    numbers = (round(65536 * number) for number in (a, b, 0, c, d, 0, 0, 0))
    assert struct.unpack_from(">i", content, place) == (65536,)
    struct.pack_into(">8i", content, place, *numbers)
    path.write_bytes(content)
    assert each_alone_is_right(path, turn) == 12
    with open_video(path) as video:
        assert video.orientation == orientation
        assert ("not undone" in video.orientation.note) == bool(orientation.ignored_degrees)
        assert len(video.frames([])) == 0
        assert video.frames([]).shape[1:] == video.frames([3]).shape[1:]


@pytest.mark.parametrize("container", ["mp4", "mkv", "ts"])
def test_a_turn_that_stands_in_the_first_picture_only(tmp_path, container):
    source = encode(tmp_path / "a.mp4", moving_square(30, 32, 48), options={"g": "100"})
    path = remux(
        source, tmp_path / f"b.{container}", filters="h264_metadata=display_orientation=insert:rotate=90"
    )
    assert each_alone_is_right(path, lambda image: np.rot90(image, 1)) == 30
