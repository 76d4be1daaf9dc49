"""How frames of a video become what a model is shown; it travels with the weights, in every form of them."""

import math
from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass, fields, replace
from numbers import Real
from typing import Any, Literal, TypeVar

from videomae_jax.model_config import settled

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
FILES = ("preprocessor_config.json", "video_preprocessor_config.json")
"""Where Hugging Face folders keep it; the first counts."""

_CLASS = "VideoMAEImageProcessor"
P = TypeVar("P", bound="Processing")
# What transformers uses where its file says nothing, unlike a processor made here.
_SILENT = {"image_mean": 0.5, "image_std": 0.5}


class Size(dict[str, int]):
    """{"shortest_edge": n} or {"height": h, "width": w}, as transformers writes sizes, and hashable."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))


@dataclass(frozen=True)
class Processing:
    """The fields of preprocessor_config.json, and how frames are chosen, which transformers has no word for.

    Raises ValueError for a value that no clip can be made with.
    """

    do_resize: bool = True
    size: Any = 224
    """Length of the shortest edge, or height and width, after resizing: a number, a pair, or as in `Size`."""
    resample: int = 2
    """The filter of resizing, as Pillow counts them; 2 is bilinear."""
    do_center_crop: bool = True
    crop_size: Any = 224
    """Height and width; smaller frames are padded with zeros."""
    do_rescale: bool = True
    rescale_factor: float = 1 / 255
    do_normalize: bool = True
    image_mean: Any = IMAGENET_MEAN
    """Of each channel, or one number for all three."""
    image_std: Any = IMAGENET_STD
    sampling: Literal["dense", "uniform"] | None = None
    """How frames were chosen in training; this and what follows is None where it is not known."""
    sampling_rate: int | None = None
    """Every n-th frame was taken."""
    num_segments: int | None = None
    """Temporal segments in a test."""
    num_crops: int | None = None
    """Spatial crops of each clip in a test."""
    mask_type: Literal["tube", "random", "frame", "motion"] | None = None
    """Which patches were masked in pre-training."""
    mask_ratio: float | None = None
    """The share that was masked."""

    def __post_init__(self) -> None:
        def settle(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        settle("size", _size("size", self.size, square=False))
        settle("crop_size", _size("crop_size", self.crop_size, square=True))
        if self.resample not in range(6):
            raise ValueError(f"resample={self.resample!r} must be a whole number, from 0 to 5")
        settle("resample", int(self.resample))
        for name in ("do_resize", "do_center_crop", "do_rescale", "do_normalize"):
            settled(name, getattr(self, name), bool)
        settle("rescale_factor", settled("rescale_factor", self.rescale_factor, float))
        lists = [each for each in (self.image_mean, self.image_std) if isinstance(each, Sized)]
        channels = max(map(len, lists), default=3)
        for name in ("image_mean", "image_std"):
            settle(name, _of_channels(name, getattr(self, name), channels))
        if 0 in self.image_std:
            raise ValueError(f"image_std={self.image_std} has a 0, by which nothing can be divided")
        for name in ("sampling_rate", "num_segments", "num_crops", "mask_ratio"):
            if getattr(self, name) is not None:
                settle(name, settled(name, getattr(self, name), float if name == "mask_ratio" else int))
        for name, choices in (
            ("sampling", ("dense", "uniform")),
            ("mask_type", ("tube", "random", "frame", "motion")),
        ):
            if getattr(self, name) not in (None, *choices):
                raise ValueError(f"{name}={getattr(self, name)!r} must be one of {', '.join(choices)}")

    @classmethod
    def for_size(cls: type[P], image_size: int | Sequence[int], **known: Any) -> P:
        """For a model of clips of `image_size`, trained as here: the centre crop, ImageNet's statistics.

        No word of preprocessor_config.json says that frames cover a crop that is not square. Its shorter side
        stands for that; the same for frames at least as far from square, others get black margins.
        """
        shorter = image_size if isinstance(image_size, int) else min(image_size)
        return cls(size=shorter, crop_size=image_size, **known)

    def fitted(self: P, image_size: int | Sequence[int]) -> P:
        """As it is where it makes frames of this size, else with the sizes of `for_size`."""
        made = self.crop_size if self.do_center_crop else self.size if self.do_resize else None
        wanted = self.for_size(image_size)
        if made in (None, wanted.crop_size):
            return self
        return replace(self, size=wanted.size, crop_size=wanted.crop_size)

    @property
    def normalization(self) -> tuple[tuple[float, ...], tuple[float, ...], float]:
        """Mean, standard deviation and the factor before them: what is done to a pixel's value in all."""
        scale = self.rescale_factor if self.do_rescale else 1.0
        if self.do_normalize:
            return self.image_mean, self.image_std, scale
        return (0.0,) * len(self.image_mean), (1.0,) * len(self.image_std), scale

    def normalizes_like(self, other: "Processing") -> bool:
        """Whether pixels become the same numbers, but for rounding."""
        ours, theirs = (
            (*mean, *std, scale) for mean, std, scale in (self.normalization, other.normalization)
        )
        return len(ours) == len(theirs) and all(
            math.isclose(a, b, rel_tol=1e-3, abs_tol=1e-6) for a, b in zip(ours, theirs, strict=True)
        )

    @classmethod
    def from_dict(cls: type[P], values: Mapping[str, Any], **changes: Any) -> P:
        """From what `to_dict` or transformers wrote: fields that are not known here are left out.

        What is missing is as transformers would have it: mean and standard deviation are then 0.5. `changes`
        come on top.
        """
        known = {field.name for field in fields(cls)}
        given = {name: value for name, value in values.items() if name in known and value is not None}
        return cls(**{**_SILENT, **given, **changes})

    def to_dict(self) -> dict[str, Any]:
        """For preprocessor_config.json, which transformers loads as its class for VideoMAE."""
        values: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None:
                values[field.name] = dict(value) if isinstance(value, Size) else value
        values |= {name: list(values[name]) for name in ("image_mean", "image_std")}
        return values | {"image_processor_type": _CLASS}


def _size(name: str, value: Any, square: bool) -> Size:
    """A size in any of its spellings; one number is a square, or the shortest edge."""
    if isinstance(value, Mapping):
        given = {edge: length for edge, length in value.items() if length is not None}
    elif isinstance(value, list | tuple):
        given = dict(zip(("height", "width"), value, strict=True)) if len(value) == 2 else {}
    else:
        given = {"height": value, "width": value} if square else {"shortest_edge": value}
    if set(given) not in ({"height", "width"}, set() if square else {"shortest_edge"}) or not given:
        ways = "a number, a pair" + ("" if square else ', {"shortest_edge": n}')
        raise ValueError(f'{name}={value!r} is not understood: give {ways} or {{"height": h, "width": w}}')
    return Size(**{edge: settled(f"{name}'s {edge}", length, int) for edge, length in given.items()})


def _of_channels(name: str, value: Any, channels: int) -> tuple[float, ...]:
    if isinstance(value, Real):
        return (settled(name, value, float),) * channels
    try:
        numbers = tuple(settled(name, each, float) for each in value)
    except TypeError:
        raise ValueError(f"{name}={value!r} must be a number, or one for each channel") from None
    if len(numbers) != channels or not numbers:
        raise ValueError(
            f"{name}={value!r} has {len(numbers)} numbers for {channels} channels: give image_mean and "
            "image_std one for each channel"
        )
    return numbers
