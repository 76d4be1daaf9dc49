"""Every setting of a run, as frozen dataclasses; those of its model are in `model_config`. No jax here."""

from dataclasses import dataclass, field, is_dataclass, replace
from typing import Literal

from videomae_jax.errors import InputError
from videomae_jax.model_config import VideoMAEConfig, check_rgb
from videomae_jax.recipes import check_types, find_recipe, run_recipe
from videomae_jax.sizes import SIZES as SIZES  # Recipes take all that they are made of from here.

MaskType = Literal["tube", "random", "frame", "motion"]


@dataclass(frozen=True)
class VideosConfig:
    """Which videos are read and how, in pre-training and fine-tuning alike."""

    train: tuple[str, ...] = ()
    """Folders of videos or list files to train on."""
    val: tuple[str, ...] = ()
    """Folders or list files of validation videos, for the masked loss."""
    root: str | None = None
    """What relative paths in lists start from; by default the folder of the list."""
    sampling_rate: int = 4
    """Take every n-th frame."""
    num_sample: int = 1
    """Crops of the clip drawn from each video, each with its own mask; batch_size counts videos."""
    decoder: Literal["pyav", "torchcodec"] = "pyav"
    """The library that decodes; torchcodec only where it is installed. Pixels differ a little."""
    pixels: Literal["auto", "rgb", "planes"] = "auto"
    """What workers hand over to train on: RGB, or planes as decoded, of which the device makes crops in RGB;
    auto is planes for GPUs and TPUs. Pixels differ a little."""
    num_workers: int = 4
    """Decoding processes; 0 decodes in the training process. Never changes what is read."""
    max_failed_share: float = 0.1
    """Stop when more than this share of the videos asked for could not be read."""
    max_pixels: int = 8192 * 8192
    """Refuse videos with more pixels in a frame, which bounds the memory of reading."""


@dataclass(frozen=True)
class DataConfig(VideosConfig):
    """Which videos are read and how clips are cut from them."""

    crop_scales: tuple[float, ...] = (1.0, 0.875, 0.75, 0.66)
    """Crop sides of MultiScaleCrop, as fractions of the largest box of the clip's shape: of squares, of the
    short side."""
    flip: bool = False
    """Mirror half of the clips; the published code does not."""


@dataclass(frozen=True)
class LabelledDataConfig(VideosConfig):
    """Which labelled videos are read and how clips are cut from them, for fine-tuning."""

    train: tuple[str, ...] = ()
    """List files with a line `path label` for each video, or folders with a folder of videos per class."""
    val: tuple[str, ...] = ()
    """Validation lists or folders: accuracy on the middle clip's centre crop, measured while training."""
    test: tuple[str, ...] = ()
    """Test lists or folders: accuracy over several views of each video, measured once at the end."""
    classes: str | None = None
    """A file with the name of each class on a line, in the order of their numbers."""
    sampling: Literal["dense", "uniform"] = "dense"
    """Frames `sampling_rate` apart from one stretch, or one frame from each of `num_frames` even parts."""
    sampling_rate: int = 4
    """Take every n-th frame; without effect on uniform sampling."""
    num_sample: int = 2
    """Times that the clip drawn from each video is augmented; batch_size counts videos."""
    canvas: tuple[int, int] = (256, 456)
    """Height and width into which frames are scaled to be augmented, upright frames on their side."""


@dataclass(frozen=True)
class AugmentConfig:
    """Augmentation on the device while fine-tuning, with the published values."""

    rand_num_ops: int = 4
    """Operations of RandAugment, the same for all frames of a clip; 0 turns it off."""
    rand_magnitude: float = 7.0
    """Level of RandAugment's operations, up to 10."""
    rand_magnitude_std: float = 0.5
    """Standard deviation of the level from one operation to the next."""
    crop_scale: tuple[float, float] = (0.08, 1.0)
    """Smallest and largest area of a crop, as shares of the frame's."""
    crop_ratio: tuple[float, float] = (0.75, 4 / 3)
    """Smallest and largest width of a crop per height, relative to those of the clip."""
    flip: bool = True
    """Mirror half of the clips; wrong where left and right matter, as in Something-Something."""
    erase_prob: float = 0.25
    """Chance that one box of a clip, the same in all frames, becomes noise."""
    mixup: float = 0.8
    """Parameter of mixup's Beta distribution; 0 turns it off."""
    cutmix: float = 1.0
    """Parameter of cutmix's Beta distribution; 0 turns it off."""
    mix_prob: float = 1.0
    """Chance that a batch is mixed at all."""
    mix_group: int = 24
    """Clips that are mixed with each other by one draw: those of one GPU in the original, whose recipe for
    ViT-B on Kinetics has 24. Where these do not divide a batch, the next larger number that does."""
    mix_switch_prob: float = 0.5
    """Chance of cutmix rather than mixup where both are on."""
    label_smoothing: float = 0.1
    """Share of each label that is spread over all classes."""


@dataclass(frozen=True)
class ViewsConfig:
    """How many views of a video are classified in a test; their softmax scores are averaged."""

    num_segments: int = 5
    """Temporal segments, a clip of each."""
    num_crops: int = 3
    """Spatial crops along the longer side."""


@dataclass(frozen=True)
class OptimConfig:
    """AdamW and its schedule. Learning rates are per 256 videos in a batch."""

    base_lr: float = 1.5e-4
    """Highest learning rate, for 256 videos in a batch; it grows with the batch."""
    min_lr: float = 1e-5
    """Learning rate at the end of the cosine, for 256 videos in a batch."""
    warmup_epochs: float = 40
    """Epochs in which the learning rate rises from near 0."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's decay of the mean of gradients and of their squares."""
    eps: float = 1e-8
    """AdamW's epsilon."""
    weight_decay: float = 0.05
    """AdamW's decay of weight matrices; biases, norms and tokens are not decayed."""
    clip_grad: float | None = None
    """Clip gradients to this global norm."""
    accumulation_steps: int = 1
    """Split each batch into this many parts, one after the other, to save memory."""


@dataclass(frozen=True)
class CheckpointConfig:
    """When checkpoints are written and which are kept."""

    every_steps: int = 1000
    """Steps between checkpoints; the last step is always saved."""
    keep_last: int = 2
    """How many of the newest checkpoints are kept, beside the best."""
    keep_every_steps: int | None = None
    """Also keep, for good, each checkpoint whose step is a multiple of this."""


@dataclass(frozen=True)
class MeshConfig:
    """How the devices are arranged: all split the batch, and groups of `fsdp` split the state."""

    fsdp: int = 1
    """Devices over which parameters and optimizer state are split."""


@dataclass(frozen=True)
class HostSettings:
    """Which hosts work together; on Cloud TPU, Slurm and Open MPI all three are found by themselves."""

    coordinator: str | None = None
    """Address of host 0 and a free port on it, HOST:PORT, the same on all hosts."""
    num_hosts: int | None = None
    """How many processes work together, each started with this same command."""
    host_index: int | None = None
    """Which of them this is: 0 writes logs and messages."""


@dataclass(frozen=True)
class LogConfig:
    """What a run records, and how often."""

    every_steps: int = 10
    """Steps between rows of metrics.jsonl."""
    val_every_steps: int | None = 1000
    """Steps between validations; None for once an epoch."""
    tensorboard: bool = True
    """Write the metrics for TensorBoard too."""


@dataclass(frozen=True)
class RunConfig:
    """What pre-training and fine-tuning have in common."""

    model: VideoMAEConfig
    data: VideosConfig
    optim: OptimConfig = field(default_factory=OptimConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    log: LogConfig = field(default_factory=LogConfig)
    epochs: int = 800
    """Passes over the videos."""
    batch_size: int = 1024
    """Videos per optimizer step, over all devices and accumulation steps."""
    seed: int = 0
    """Seed of the weights, the order of videos, clips, crops and masks."""
    init_from: str | None = None
    """Start from these weights: a work folder, a step folder, a Hugging Face folder or a hub id."""
    max_nonfinite_steps: int = 20
    """Stop after this many steps in a row whose loss or gradient is not finite."""


@dataclass(frozen=True)
class PretrainConfig(RunConfig):
    """A pre-training run: the result is a function of these values and of the videos."""

    data: DataConfig = field(default_factory=DataConfig)
    mask_type: MaskType = "tube"
    """What is masked: tubes (one spatial mask for all frames), random tubelets, whole frames, or tubes half
    of which are where most moves."""
    mask_ratio: float = 0.9
    """Share of the tokens that is masked."""
    earlier_mask_ratios: tuple[float, ...] = ()
    """Ratios of earlier parts of the run, all as long as the last, which has `mask_ratio`: 0.75 0.8 0.85 for
    quarters. Each part compiles its step; validation is always with `mask_ratio`."""
    decoder_mask_ratio: float = 0.0
    """Share of the tokens that is not decoded, by a running cell of 2 x 2: 0.5 in VideoMAE V2, 0 in V1."""
    num_masks: int = 1
    """Masks drawn for each clip, each with its own loss: more training for each clip that is read."""


@dataclass(frozen=True)
class FinetuneConfig(RunConfig):
    """A fine-tuning run: the result is a function of these values and of the videos."""

    data: LabelledDataConfig = field(default_factory=LabelledDataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(base_lr=5e-4, min_lr=1e-6, warmup_epochs=5, betas=(0.9, 0.999))
    )
    test: ViewsConfig = field(default_factory=ViewsConfig)
    test_checkpoint: Literal["best", "last"] = "best"
    """Which weights the final test uses: those with the best validation accuracy, or the last."""
    test_batch_size: int | None = None
    """Views classified at a time in the final test, over all devices; by default as many as clips are trained
    on at a time, which takes more memory."""
    log: LogConfig = field(default_factory=lambda: LogConfig(val_every_steps=None))
    layer_decay: float = 0.75
    """Factor on the learning rate of each block, relative to the block after it."""
    init_scale: float = 0.001
    """Factor on the fresh head, so that every class starts out about equally likely."""
    teacher: str | None = None
    """Learn what this fine-tuned classifier says of each clip, in place of the labels: a work folder, a step
    folder, a Hugging Face folder or a hub id, which knows all classes of the videos."""
    teacher_size: Literal["small", "base", "large", "huge", "giant"] | None = None
    """The published size of the teacher, for a plan without its weights; a run needs `teacher` too."""
    teacher_temperature: float = 1.0
    """What the teacher's and the student's logits are divided by before their softmax."""
    ema_decay: float | None = None
    """Decay of a moving average of the weights, which is then what is evaluated and loaded."""
    epochs: int = 100
    """Passes over the videos."""
    batch_size: int = 512
    """Videos per optimizer step, over all devices and accumulation steps."""
    seed: int = 0
    """Seed of the head, the order of videos, clips, crops and augmentation."""


def config_at(config: PretrainConfig, step: int, total_steps: int) -> PretrainConfig:
    """The settings of one step: with the mask ratio of its part of the run."""
    if not config.earlier_mask_ratios:
        return config
    ratios = (*config.earlier_mask_ratios, config.mask_ratio)
    return replace(config, mask_ratio=ratios[step * len(ratios) // total_steps], earlier_mask_ratios=())


def check_trainable(config: RunConfig) -> None:
    """Raise InputError for a model that cannot be trained here."""
    check_rgb("training", config.model)
    one_of_all = (None, "single_label_classification")
    if isinstance(config, FinetuneConfig) and config.model.problem_type not in one_of_all:
        raise InputError(
            f"model.problem_type={config.model.problem_type}, but fine-tuning is for exactly one class "
            "in each video: leave it out. Models that were trained for it elsewhere can be used and converted"
        )


ONLY_ROUNDING = ("model.attention", "model.dtype", "model.remat", "optim.accumulation_steps", "data.pixels")
"""Fields that say how a step is computed, and change no more of it than rounding and random draws."""

FREE_ON_RESUME = (
    *ONLY_ROUNDING,
    "data.val",
    "data.test",
    "data.root",
    "data.classes",
    "data.num_workers",
    "data.max_failed_share",
    "checkpoint",
    "mesh",
    "log",
    "max_nonfinite_steps",
    "test",
    "test_batch_size",
    "test_checkpoint",
)
"""Fields that may differ when a run continues: none changes what is learned."""


def load_config(name: str) -> RunConfig:
    """Read `config` from a recipe file, given by path or bare name; raises InputError with what is wrong."""
    path = find_recipe(name)
    config = run_recipe(
        path, [kind for kind in globals().values() if isinstance(kind, type) and is_dataclass(kind)]
    )
    if not isinstance(config, PretrainConfig | FinetuneConfig):
        hint = "; take away the comma behind its last bracket" if isinstance(config, tuple) else ""
        raise InputError(
            f"{path}: `config` is a {type(config).__name__}, not a PretrainConfig or FinetuneConfig{hint}"
        )
    check_types(path, config)
    return config
