"""Opening a file with the decoder, or saying why that cannot be done."""

import io
from itertools import islice
from pathlib import Path
from typing import Any

import av

from videomae_jax.data.regular_files import why_not_readable, why_unread
from videomae_jax.data.video.frames import DECODER_ERRORS, VideoError

# Formats of pictures, which are videos only where there are several in a file.
_PICTURE_FORMATS = frozenset({"image2", "gif", "apng", "ico", "webp", "webp_anim"})
_STILL = av.stream.Disposition.attached_pic | av.stream.Disposition.still_image
_PADDING = 1 << 20
# Text that is not UTF-8 must not stop the reading; from PyAV 19 on it never does.
OPEN_OPTIONS: dict[str, Any] = (
    {"metadata_errors": "surrogateescape"} if int(av.__version__.split(".")[0]) < 19 else {}
)


def open_stream(path: str, content: bytes | None, max_pixels: int) -> tuple[Any, Any]:
    """The container and the best video stream of a file, or of its bytes `content`; raises VideoError.

    Beside `content`, `path` only names it in errors.
    """
    if content is None and (unreadable := why_not_readable(path)):
        raise VideoError(path, *unreadable)
    try:
        container = _open(path, content, max_pixels)
    except (*DECODER_ERRORS, OSError, ValueError) as error:
        if content is None:
            raise VideoError(path, *_why_not_opened(Path(path), error)) from error
        raise VideoError(path, *_why_not_decoded(content[:200], error)) from error
    stream = container.streams.best("video")
    reason = None
    if stream is None:
        reason = ("no-video-stream", "it holds no video, perhaps only sound")
    elif stream.codec_context is None:
        reason = ("no-decoder", "its video codec is not known here")
    elif stream.disposition & _STILL or _is_one_picture(container, stream, path, content, max_pixels):
        reason = ("still-image", "it holds a picture, such as the cover of a song, and no video")
    if reason:
        container.close()
        raise VideoError(path, *reason)
    stream.codec_context.thread_count = 1  # Processes share the cores; threads here only add cost.
    return container, stream


def decoder_limits(max_pixels: int) -> dict[str, str]:
    """Options by which the decoder refuses much larger pictures before it takes memory for them.

    The limit is wider, as the decoder also counts what it pads pictures with.
    """
    return {"max_pixels": str(2 * max_pixels + _PADDING)}


def _open(path: str, content: bytes | None, max_pixels: int) -> Any:
    # With the scheme spelled out, no path is taken for an address.
    file = "file:" + path if content is None else io.BytesIO(content)
    return av.open(file, options=decoder_limits(max_pixels), **OPEN_OPTIONS)


def _is_one_picture(opened: Any, stream: Any, path: str, content: bytes | None, max_pixels: int) -> bool:
    name = opened.format.name
    if name not in _PICTURE_FORMATS and not name.endswith("_pipe"):
        return False
    try:
        with _open(path, content, max_pixels) as container:
            packets = container.demux(container.streams[stream.index])
            return sum(packet.size > 0 for packet in islice(packets, 2)) < 2
    except (*DECODER_ERRORS, OSError, ValueError):
        return False


def _why_not_opened(path: Path, error: Exception) -> tuple[str, str]:
    """The reason and the detail of a file that does not open."""
    if unreadable := why_unread(path):
        return unreadable
    with path.open("rb") as file:
        return _why_not_decoded(file.read(200), error)


def _why_not_decoded(head: bytes, error: Exception) -> tuple[str, str]:
    """The reason and the detail of a file that begins with these bytes."""
    if not head:
        return "empty", "the file has 0 bytes"
    if head.startswith(b"version https://git-lfs"):
        return "pointer", "this is a git-LFS pointer; run `git lfs pull` to get the video"
    return "not-a-video", f"the decoder says: {getattr(error, 'strerror', None) or error}"
