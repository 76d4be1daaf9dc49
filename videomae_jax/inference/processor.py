"""Frames to the normalised clips that the models take, as preprocessor_config.json says."""

import importlib
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Num, Shaped
from PIL import Image

from videomae_jax.checkpoints.processing_json import read_processing
from videomae_jax.errors import InputError
from videomae_jax.files import write_json
from videomae_jax.processing import FILES, Processing

log = logging.getLogger(__name__)

Frame = Image.Image | np.ndarray


class Features(dict[str, Any]):
    """The keyword arguments of a model's call: `pixel_values` (b, T, H, W, c), float32."""

    @property
    def pixel_values(self) -> Any:
        return self["pixel_values"]


@dataclass(frozen=True)
class VideoMAEImageProcessor(Processing):
    """Resizes, crops, rescales and normalises frames of videos, as transformers' class of this name does.

    Unlike there, mean and standard deviation are ImageNet's unless given: VideoMAE is trained with them, here
    as in the original. It takes every frame that it is given: choose the frames first.
    """

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        revision: str | None = None,
        subfolder: str = "",
        local_files_only: bool = False,
        **changes: Any,
    ) -> "VideoMAEImageProcessor":
        """From a Hugging Face folder or hub id, a work folder or a step folder; `changes` come on top.

        Raises InputError when it has no preprocessor_config.json, or one that is not understood, and
        ValueError for a change that is not.
        """
        found = read_processing(source, revision, subfolder, local_files_only)
        if found is None:
            raise InputError(
                f"{source} has no {FILES[0]}: make VideoMAEImageProcessor(size=..., image_mean=..., "
                "image_std=...) with the values of its training, by default ImageNet's"
            )
        return cls(**vars(found) | changes)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write preprocessor_config.json, which transformers loads as the class of this name."""
        file = Path(folder) / FILES[0]
        try:
            write_json(file, self.to_dict())
        except OSError as error:
            raise InputError(f"{file} could not be written: {error}") from error

    def __call__(
        self,
        videos: Any = None,
        return_tensors: str | None = "np",
        data_format: str | None = None,
        input_data_format: str | None = None,
        *,
        images: Any = None,
        **changes: Any,
    ) -> Features:
        """Make clips of videos; `preprocess` is the same.

        Args:
          videos: the frames of one video (a list of arrays or PIL images, or an array of four axes), or
            several such videos with as many frames each (a list of them, or an array of five axes).
          return_tensors: "np" or "jax", or "pt" where torch is installed.
          data_format: where the channels of the clips shall be; by default last, as the models here take
            them, and for "pt" (b, T, c, H, W), as transformers' models do.
          input_data_format: where the channels of arrays are; by default found out from their shapes.
          images: another name for `videos`.
          changes: fields of the processor that differ for this call, as `do_rescale=False`.

        Returns `pixel_values` (b, T, H, W, c), unless `data_format` says otherwise. Raises InputError.
        """
        if (videos is None) == (images is None):
            raise InputError("give the frames as the first argument, or as images=..., and not as both")
        if return_tensors not in (None, "np", "jax", "pt"):
            raise InputError(f'return_tensors={return_tensors!r} is not made here: use "np", "jax" or "pt"')
        for name, order in (("data_format", data_format), ("input_data_format", input_data_format)):
            if order not in (None, "channels_first", "channels_last"):
                raise InputError(f'{name}={order!r} must be "channels_first" or "channels_last"')
        clips = self._changed(changes)._clips(images if videos is None else videos, input_data_format)
        if data_format == "channels_first" or (data_format is None and return_tensors == "pt"):
            clips = np.ascontiguousarray(np.moveaxis(clips, -1, 2))
        return Features(pixel_values=_as_tensors(clips, return_tensors))

    preprocess = __call__

    def _changed(self, changes: Mapping[str, Any]) -> "VideoMAEImageProcessor":
        if unknown := changes.keys() - {field.name for field in fields(self)}:
            raise InputError(
                f"{', '.join(sorted(unknown))} is not a setting of VideoMAEImageProcessor, which has "
                f"{', '.join(field.name for field in fields(self))}"
            )
        return replace(self, **{name: value for name, value in changes.items() if value is not None})

    def _clips(self, videos: Any, order: str | None) -> Float[np.ndarray, "b T H W c"]:
        clips = [
            np.stack([self._frame(_channels_last(frame, order, len(self.image_mean))) for frame in video])
            for video in _nested(videos)
        ]
        if len(shapes := {clip.shape for clip in clips}) > 1:
            raise InputError(
                f"the videos of a batch must become clips of one shape, but these become {sorted(shapes)}: "
                "give each as many frames, and crop"
            )
        return np.stack(clips)

    def _frame(self, image: Num[np.ndarray, "h w c"]) -> Float[np.ndarray, "H W c"]:
        if self.do_resize:
            image = self._resized(image)
        if self.do_center_crop:
            for axis, edge in enumerate(("height", "width")):
                image = _centred(image, axis, self.crop_size[edge])
        image = image.astype(np.float32)
        if self.do_rescale:
            image = image * np.float32(self.rescale_factor)
        if self.do_normalize:
            image = (image - np.array(self.image_mean, np.float32)) / np.array(self.image_std, np.float32)
        return image

    def _resized(self, image: Num[np.ndarray, "h w c"]) -> Num[np.ndarray, "H W c"]:
        """Resize each channel; uint8 stays uint8, everything else becomes float32 and is not rounded."""
        height, width = image.shape[:2]
        if edge := self.size.get("shortest_edge"):
            short = min(height, width)
            height, width = (int(edge * length / short) for length in (height, width))
        else:
            height, width = self.size["height"], self.size["width"]
        pixels = image if image.dtype == np.uint8 else image.astype(np.float32)
        channels = [
            Image.fromarray(np.ascontiguousarray(pixels[..., channel])).resize((width, height), self.resample)
            for channel in range(pixels.shape[-1])
        ]
        return np.stack([np.asarray(channel) for channel in channels], axis=-1)


VideoMAEFeatureExtractor = VideoMAEImageProcessor
"""The older name, which the model cards still use."""


def _as_tensors(clips: Float[np.ndarray, "..."], kind: str | None) -> Any:
    if kind == "jax":
        return jnp.asarray(clips)
    if kind == "pt":
        try:
            return importlib.import_module("torch").from_numpy(clips)
        except ModuleNotFoundError:
            raise InputError(
                'return_tensors="pt" needs torch, which is not installed: use "np" or "jax"'
            ) from None
    return clips


def _nested(videos: Any) -> list[Sequence[Frame]]:
    """Videos as a list of sequences of frames, whichever of the accepted forms they came in."""
    if isinstance(videos, Image.Image):
        raise InputError("one image is not a video: give a list of frames")
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


def _channels_last(frame: Any, order: str | None, channels: int) -> Num[np.ndarray, "h w c"]:
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
