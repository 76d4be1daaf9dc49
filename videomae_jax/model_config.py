"""The architecture of a model and its classes, named as in Hugging Face's configuration. No jax here."""

import difflib
import functools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from importlib import import_module
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_type_hints

from videomae_jax.errors import InputError
from videomae_jax.files import write_json
from videomae_jax.transformers_names import from_json, own_names, to_json

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
AttentionBackend = Literal["auto", "xla", "blockwise", "cudnn", "splash"]
DecoderType = Literal["self", "cross"]
ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]
ScoreKind = Literal["softmax", "sigmoid", "value"]

Grid = tuple[int, int, int]
"""Tokens along time, height and width: (t, h, w)."""
FrameSize = tuple[int, int]
"""Height and width in pixels."""

T = TypeVar("T")
_CHOICES: dict[str, tuple[str | None, ...]] = {
    "dtype": get_args(Dtype),
    "attention": get_args(AttentionBackend),
    "decoder_type": get_args(DecoderType),
    "problem_type": (None, *get_args(ProblemType)),
}
_MAY_BE_NONE = ("num_labels", "num_hidden_layers", "decoder_num_hidden_layers")


def _takes_names_of_transformers(cls: type[T]) -> type[T]:
    """Let a class be made with `qkv_bias`, `label2id`, a dict as `id2label` and the like; see `own_names`."""
    init: Any = vars(cls)["__init__"]

    @functools.wraps(init)
    def __init__(self: Any, *args: Any, **settings: Any) -> None:
        init(self, *args, **own_names(settings))

    setattr(cls, "__init__", __init__)  # noqa: B010
    return cls


@_takes_names_of_transformers
@dataclass(frozen=True)
class VideoMAEConfig:
    """The architecture, with the field names of Hugging Face's VideoMAEConfig.

    The epsilons are per module, because the originals use 1e-6 everywhere and Hugging Face does not.
    """

    image_size: int | FrameSize = 224
    """Side of a clip's square frames in pixels, or height and width; multiples of the patch size."""
    patch_size: int = 16
    """Height and width of a tubelet in pixels."""
    num_channels: int = 3
    """Colour channels. Commands read RGB, so there is no option for it; models compute with any number."""
    num_frames: int = 16
    """Frames of a clip; a multiple of the tubelet size."""
    tubelet_size: int = 2
    """Frames of a tubelet."""
    position_grid: Grid | None = None
    """Tokens along time, height and width for which the table of positions is made; for clips of another size
    it is resized, linearly in time and cubically in space. By default that of the weights started from, or
    else of the model's own clips; given as that of its own clips, the table is a fresh one."""
    hidden_size: int = 768
    """Width of the encoder; a multiple of its heads."""
    num_hidden_layers: int = 12
    """Blocks of the encoder."""
    num_attention_heads: int = 12
    """Attention heads of the encoder."""
    intermediate_size: int = 3072
    """Width inside the encoder's MLPs."""
    decoder_hidden_size: int = 384
    """Width of the decoder, which only pre-training has; a multiple of its heads."""
    decoder_num_hidden_layers: int = 4
    """Blocks of the decoder."""
    decoder_num_attention_heads: int = 6
    """Attention heads of the decoder."""
    decoder_intermediate_size: int = 1536
    """Width inside the decoder's MLPs."""
    decoder_type: DecoderType = "self"
    """What masked tokens see in the decoder: "self" all tokens, as published; "cross" the visible ones alone,
    for about half of the decoder's operations."""
    qv_bias: bool = True
    """Learned biases on queries and values (never on keys)."""
    cosine_attention: bool = False
    """Scores of attention are cosines of queries and keys, times a learned factor of each head."""
    layer_scale: float = 0.0
    """First value of learned factors on each block's attention and MLP branch; 0 for none."""
    norm_pix_loss: bool = True
    """Predict pixels normalised per patch and channel; False predicts pixels in [0, 1]."""
    use_mean_pooling: bool = True
    """For classifiers: mean of all tokens, then fc_norm. Pre-training always has the encoder's norm."""
    layer_norm_eps: float = 1e-6
    """Epsilon of the encoder's norms."""
    decoder_norm_eps: float = 1e-6
    """Epsilon of the decoder's norms."""
    fc_norm_eps: float = 1e-6
    """Epsilon of the norm before a classifier's head."""
    encoder_norm: bool = True
    """False only for a loaded Hugging Face pre-training checkpoint that has no encoder norm."""
    num_labels: int = 0
    """Classes of a classifier; the length of `id2label` where that is given."""
    id2label: tuple[str, ...] = ()
    """Names of the classes, in the order of their numbers."""
    problem_type: ProblemType | None = None
    """What a classifier's outputs mean: exactly one class, independent labels, or plain numbers. None means
    exactly one class, or a number if there is a single output. Only the first kind can be trained here."""
    dtype: Dtype = "float32"
    """Compute dtype; "auto" is bfloat16 on GPUs and TPUs, float16 on GPUs without bfloat16 (T4), float32 on
    a CPU. Parameters are float32; in float16 the loss is scaled while training."""
    remat: bool = False
    """Recompute each block in the backward pass: less memory, about a third more time."""
    attention: AttentionBackend = "auto"
    """What computes attention over 512 tokens and more: "auto" is cuDNN where an NVIDIA GPU has it for the
    dtype, splash on TPUs, else blockwise. Shorter sequences always take plain XLA."""
    drop_path: float = 0.0
    """In training, the chance that a clip skips the last block's branches; rising from 0 at the first."""
    head_dropout: float = 0.0
    """In training of a classifier, the dropout rate before the head."""

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self)).items():
            if hint in (int, float, bool):
                object.__setattr__(self, name, settled(name, getattr(self, name), hint))
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name}={getattr(self, name)!r} must be one of {', '.join(map(str, known))}"
                )
        if self.layer_scale < 0:
            raise ValueError(f"layer_scale={self.layer_scale:g} must be 0 or more")
        self._settle_size()
        self._settle_labels()
        self._settle_positions()
        for name, part in (
            ("num_frames", "tubelet_size"),
            ("hidden_size", "num_attention_heads"),
            ("decoder_hidden_size", "decoder_num_attention_heads"),
        ):
            _check_multiple(f"{name}={getattr(self, name)}", getattr(self, name), part, getattr(self, part))

    def _settle_size(self) -> None:
        """Equal sides as one number, and a list of JSON as a tuple; raises ValueError for what cannot be."""
        given = self.image_size
        sides = tuple(given) if isinstance(given, Sequence) and not isinstance(given, str) else (given,)
        if len(sides) > 2 or not sides:
            raise ValueError(f"image_size={given!r} must be one number, or height and width")
        sizes = tuple(int(settled("image_size", side, int)) for side in sides)
        if len(set(sizes)) == 1:
            _check_multiple(f"image_size={sizes[0]}", sizes[0], "patch_size", self.patch_size)
            object.__setattr__(self, "image_size", sizes[0])
            return
        for name, side in zip(("height", "width"), sizes, strict=True):
            said = f"the {name} {side} of image_size={sizes}"
            _check_multiple(said, side, "patch_size", self.patch_size)
        object.__setattr__(self, "image_size", sizes)

    def _settle_labels(self) -> None:
        """Let `id2label` and `num_labels` agree, whichever was given."""
        names = self.id2label
        if len(names) != self.num_labels and (not names or (self.num_labels and are_numbers(names))):
            names = tuple(f"LABEL_{number}" for number in range(self.num_labels))
        if self.num_labels not in (0, len(names)):
            raise ValueError(
                f"num_labels={self.num_labels}, but id2label names {len(names)} classes; change one of them"
            )
        object.__setattr__(self, "id2label", names)
        object.__setattr__(self, "num_labels", len(names))

    def _settle_positions(self) -> None:
        """A list of JSON as a tuple; raises ValueError for what is not three whole numbers."""
        if (given := self.position_grid) is None:
            return
        counts = tuple(given) if isinstance(given, Sequence) else ()
        if len(counts) != 3 or not all(type(count) is int and count > 0 for count in counts):
            raise ValueError(f"position_grid={given!r} must be three whole numbers of 1 or more: (t, h, w)")
        object.__setattr__(self, "position_grid", counts)

    @property
    def label2id(self) -> dict[str, int]:
        """The number of each class by its name."""
        return {name: number for number, name in enumerate(self.id2label)}

    @property
    def score_kind(self) -> ScoreKind:
        """What outputs become: shares that add up to 1, a probability each, or themselves."""
        if self.problem_type == "multi_label_classification":
            return "sigmoid"
        if self.problem_type == "regression" or (self.problem_type is None and self.num_labels == 1):
            return "value"
        return "softmax"

    @property
    def frame_size(self) -> FrameSize:
        """Height and width of a clip in pixels, also of a square one."""
        size = self.image_size
        return (size, size) if isinstance(size, int) else size

    @property
    def clip_in_words(self) -> str:
        """Frames, height and width: `16 frames of 224x224`."""
        height, width = self.frame_size
        return f"{self.num_frames} frames of {height}x{width}"

    @property
    def grid(self) -> Grid:
        """Tokens of a clip along time, height and width: (t, h, w)."""
        height, width = self.frame_size
        return self.num_frames // self.tubelet_size, height // self.patch_size, width // self.patch_size

    @property
    def learned_grid(self) -> Grid:
        """The grid of the table of positions before it is resized to `grid`."""
        return self.position_grid or self.grid

    def following(self, weights: "VideoMAEConfig") -> "VideoMAEConfig":
        """With the positions that these weights learned, unless a grid was given or tubelets are others."""
        alike = (weights.patch_size, weights.tubelet_size) == (self.patch_size, self.tubelet_size)
        if self.position_grid or weights.learned_grid == self.grid or not alike:
            return self
        return replace(self, position_grid=weights.learned_grid)

    @property
    def num_tokens(self) -> int:
        t, h, w = self.grid
        return t * h * w

    @property
    def values_per_tubelet(self) -> int:
        return self.tubelet_size * self.patch_size**2 * self.num_channels

    def changed(self, **changes: Any) -> "VideoMAEConfig":
        """With other values, under the names of transformers too; other classes take the place of all.

        Raises InputError for a name that is not a field, and ValueError for values that cannot be built.
        """
        changes = own_names(changes)
        known = [each.name for each in fields(self)]
        if unknown := sorted(changes.keys() - set(known)):
            near = difflib.get_close_matches(unknown[0], known, n=1)
            raise InputError(
                f"{unknown[0]} is neither a field of VideoMAEConfig nor an argument here; "
                + (f"did you mean {near[0]}?" if near else f"its fields are {', '.join(known)}")
            )
        if changes.keys() & {"num_labels", "id2label"}:
            changes = {"num_labels": 0, "id2label": (), **changes}
        return replace(self, **changes)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], **changes: Any) -> "VideoMAEConfig":
        """From what a config.json holds; what it does not say is as transformers has it, or as by default.

        Entries that mean nothing here are left out; `changes` come on top. Raises ValueError for what cannot
        be built.
        """
        return cls(**from_json(values, {each.name for each in fields(cls)})).changed(**changes)

    def to_dict(self) -> dict[str, Any]:
        """For a config.json, which transformers loads: architecture and classes, not how to compute."""
        return to_json(asdict(self))

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        revision: str | None = None,
        subfolder: str = "",
        local_files_only: bool = False,
        **changes: Any,
    ) -> "VideoMAEConfig":
        """That of a Hugging Face folder or hub id, a work folder or a step folder; `changes` come on top.

        Raises InputError where there is none.
        """
        # By name, as the package's own names are found: reading folders is above this module.
        reader = import_module("videomae_jax.checkpoints.source")
        config = reader.read_config_of(str(source), revision, subfolder, local_files_only)
        return config.changed(**changes).following(config)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json alone; a model's `save_pretrained` writes it beside its weights."""
        file = Path(folder) / "config.json"
        try:
            write_json(file, self.to_dict())
        except OSError as error:
            raise InputError(f"{file} could not be written: {error}") from error


def settled(name: str, value: Any, kind: type[int | float | bool]) -> Any:
    """A setting as Python's own kind of number; raises ValueError for what is none of its kind."""
    if kind is bool:
        if not isinstance(value, bool):
            raise ValueError(f"{name}={value!r} must be True or False")
        return value
    if isinstance(value, bool) or not isinstance(value, Integral if kind is int else Real):
        raise ValueError(f"{name}={value!r} must be {'a whole number' if kind is int else 'a number'}")
    if not isinstance(value, Integral):
        return float(value)
    if kind is int and value < (least := 0 if name in _MAY_BE_NONE else 1):
        raise ValueError(f"{name}={value} must be {least} or more")
    return kind(int(value))


def _check_multiple(said: str, value: int, part: str, divisor: int) -> None:
    """Raise ValueError, with the nearest values that divide, where a part does not divide a whole."""
    if rest := value % divisor:
        near = [each for each in (value - rest, value - rest + divisor) if each]
        raise ValueError(
            f"{said} is not a multiple of {part}={divisor}; change one of the two: the nearest "
            f"{'is' if len(near) == 1 else 'are'} {' and '.join(map(str, near))}"
        )


def check_rgb(what: str, config: VideoMAEConfig) -> None:
    """Raise InputError for a model that takes no RGB, where videos are read for it."""
    if config.num_channels != 3:
        raise InputError(
            f"the model takes num_channels={config.num_channels}, but {what} reads videos as RGB, of 3: "
            "use the model classes themselves, in Python, which take arrays of any number of channels"
        )


def are_numbers(names: Sequence[str]) -> bool:
    """Whether these stand for classes without names: each is its number, or Hugging Face's LABEL_number."""
    return all(name in (str(number), f"LABEL_{number}") for number, name in enumerate(names))
