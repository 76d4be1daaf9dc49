"""Frames to the normalised clips that the models take, as preprocessor_config.json says."""

import json
import logging
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Num, Shaped
from PIL import Image

from videomae_jax.checkpoints.hugging_face import find_folder
from videomae_jax.errors import InputError

log = logging.getLogger(__name__)

Frame = Image.Image | np.ndarray
ChannelOrder = Literal["channels_first", "channels_last"]
FILES = ("preprocessor_config.json", "video_preprocessor_config.json")


class Features(dict[str, np.ndarray]):
    """The keyword arguments of a model's call: `pixel_values` (b, T, H, W, c), float32."""

    @property
    def pixel_values(self) -> np.ndarray:
        return self["pixel_values"]


@dataclass(frozen=True)
class VideoMAEImageProcessor:
    """Resizes, crops, rescales and normalises frames of videos, as transformers' class of this name does.

    Its defaults are those of transformers, mean and std 0.5; the published checkpoints say ImageNet's in
    their preprocessor_config.json. It takes every frame that it is given: choose the frames first.
    """

    do_resize: bool = True
    size: int | tuple[int, int] = 224
    """Length of the shortest edge, or height and width, after resizing."""
    resample: int = Image.Resampling.BILINEAR
    do_center_crop: bool = True
    crop_size: tuple[int, int] = (224, 224)
    """Height and width; smaller frames are padded with zeros."""
    do_rescale: bool = True
    rescale_factor: float = 1 / 255
    do_normalize: bool = True
    image_mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    image_std: tuple[float, ...] = (0.5, 0.5, 0.5)

    @classmethod
    def from_pretrained(cls, source: str | Path, *, revision: str | None = None) -> "VideoMAEImageProcessor":
        """Read preprocessor_config.json of a Hugging Face folder or hub id.

        Raises InputError when there is none or it is not understood.
        """
        folder = find_folder(str(source), revision, FILES)
        file = next((folder / name for name in FILES if (folder / name).is_file()), None)
        if file is None:
            raise InputError(
                f"{source} has no {FILES[0]}: make VideoMAEImageProcessor(image_mean=..., image_std=...) "
                "with the values of its training; videomae-jax trains with ImageNet's (0.485, 0.456, 0.406) "
                "and (0.229, 0.224, 0.225)"
            )
        try:
            return cls(**_settings(json.loads(file.read_text())))
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(f"{file} is not a processor's configuration: {error!r}") from error

    def save_pretrained(self, folder: str | Path) -> None:
        """Write preprocessor_config.json, which transformers loads as the class of this name."""
        size = self.size
        edges = {"shortest_edge": size} if isinstance(size, int) else {"height": size[0], "width": size[1]}
        values = {field.name: getattr(self, field.name) for field in fields(self)} | {
            "size": edges,
            "resample": int(self.resample),
            "crop_size": {"height": self.crop_size[0], "width": self.crop_size[1]},
            "image_processor_type": "VideoMAEImageProcessor",
        }
        file = Path(folder) / FILES[0]
        partial = file.with_name(f".{file.name}.partial-{os.getpid()}")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(json.dumps(values, indent=2) + "\n")
            partial.replace(file)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise InputError(f"{file} could not be written: {error}") from error

    def __call__(
        self,
        videos: Any,
        return_tensors: str | None = "np",
        input_data_format: ChannelOrder | None = None,
    ) -> Features:
        """Make clips of videos.

        Args:
          videos: the frames of one video (a list of arrays or PIL images, or an array of four axes), or
            several such videos with as many frames each (a list of them, or an array of five axes).
          input_data_format: where the channels of arrays are; by default found out from their shapes.

        Returns `pixel_values` (b, T, H, W, c): channels last, unlike transformers. Raises InputError.
        """
        if return_tensors not in ("np", None):
            raise InputError(
                f'return_tensors={return_tensors!r}, but only NumPy arrays are made here: use "np"'
            )
        clips = [
            np.stack(
                [self._frame(_channels_last(frame, input_data_format, len(self.image_mean))) for frame in v]
            )
            for v in _nested(videos)
        ]
        if len(shapes := {clip.shape for clip in clips}) > 1:
            raise InputError(
                f"the videos of a batch must become clips of one shape, but these become {sorted(shapes)}: "
                "give each as many frames, and crop"
            )
        return Features(pixel_values=np.stack(clips))

    def _frame(self, image: Num[np.ndarray, "h w c"]) -> Float[np.ndarray, "H W c"]:
        if self.do_resize:
            image = self._resized(image)
        if self.do_center_crop:
            for axis, length in enumerate(self.crop_size):
                image = _centred(image, axis, length)
        image = image.astype(np.float32)
        if self.do_rescale:
            image = image * np.float32(self.rescale_factor)
        if self.do_normalize:
            image = (image - np.array(self.image_mean, np.float32)) / np.array(self.image_std, np.float32)
        return image

    def _resized(self, image: Num[np.ndarray, "h w c"]) -> Num[np.ndarray, "H W c"]:
        """Resize each channel; uint8 stays uint8, everything else becomes float32 and is not rounded."""
        height, width = image.shape[:2]
        if isinstance(self.size, int):
            short = min(height, width)
            height, width = (int(self.size * length / short) for length in (height, width))
        else:
            height, width = self.size
        pixels = image if image.dtype == np.uint8 else image.astype(np.float32)
        channels = [
            Image.fromarray(np.ascontiguousarray(pixels[..., channel])).resize((width, height), self.resample)
            for channel in range(pixels.shape[-1])
        ]
        return np.stack([np.asarray(channel) for channel in channels], axis=-1)


VideoMAEFeatureExtractor = VideoMAEImageProcessor
"""The older name, which the model cards still use."""


def _settings(values: dict[str, Any]) -> dict[str, Any]:
    """The fields in a preprocessor_config.json, in which sizes come in several spellings."""
    known = {field.name for field in fields(VideoMAEImageProcessor)}
    settings = {name: value for name, value in values.items() if name in known and value is not None}
    for name in ("image_mean", "image_std"):
        if name in settings:
            settings[name] = tuple(settings[name])
    if isinstance(size := settings.get("size"), dict):
        settings["size"] = size.get("shortest_edge") or (size["height"], size["width"])
    if isinstance(size := settings.get("crop_size"), dict):
        settings["crop_size"] = (size["height"], size["width"])
    elif size is not None:
        settings["crop_size"] = (size, size)
    return settings


def _nested(videos: Any) -> list[Sequence[Frame]]:
    """Videos as a list of sequences of frames, whichever of the accepted forms they came in."""
    if isinstance(videos, Image.Image):
        raise InputError("one image is no video: give a list of frames")
    if not isinstance(videos, list | tuple):
        videos = list(_axes(np.asarray(videos), 4, 5))
    if not len(videos):
        raise InputError("there is no frame in an empty video")
    first = videos[0]
    if isinstance(first, list | tuple) or (not isinstance(first, Image.Image) and np.ndim(first) == 4):
        return [_nested(video)[0] for video in videos]
    return [videos]


def _axes(array: Shaped[np.ndarray, "..."], *allowed: int) -> Shaped[np.ndarray, "..."]:
    if array.ndim not in allowed:
        raise InputError(
            f"an array of shape {array.shape} is not a video: it has {array.ndim} axes, not "
            f"{' or '.join(map(str, allowed))}"
        )
    return array


def _channels_last(frame: Any, order: ChannelOrder | None, channels: int) -> Num[np.ndarray, "h w c"]:
    """One frame as an array; shapes that could be read both ways count as channels first, with a warning."""
    if isinstance(frame, Image.Image):
        return np.asarray(frame.convert("RGB"))
    array = _axes(np.asarray(frame), 3)
    if order is None:
        first, last = (array.shape[axis] == channels for axis in (0, 2))
        if not first and not last:
            raise InputError(
                f"a frame of shape {array.shape} has {channels} channels neither first nor last: give frames "
                f"as ({channels}, height, width) or (height, width, {channels})"
            )
        if first and last:
            log.warning("a frame of shape %s is taken as channels first; input_data_format says", array.shape)
        order = "channels_first" if first else "channels_last"
    return np.moveaxis(array, 0, -1) if order == "channels_first" else array


def _centred(image: Num[np.ndarray, "h w c"], axis: int, length: int) -> Num[np.ndarray, "H W c"]:
    """Crop one axis to its middle, or pad it with zeros on both sides."""
    spare = image.shape[axis] - length
    if spare >= 0:
        return image.take(np.arange(spare // 2, spare // 2 + length), axis=axis)
    widths = [(0, 0)] * 3
    widths[axis] = (math.ceil(-spare / 2), -spare - math.ceil(-spare / 2))
    return np.pad(image, widths)
