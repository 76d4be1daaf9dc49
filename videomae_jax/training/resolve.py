"""Settings to a run: everything that is decided before its first step, read and checked."""

import hashlib
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import jax
from jax.sharding import Mesh

from videomae_jax.checkpoints import orbax
from videomae_jax.checkpoints.source import read_model
from videomae_jax.checkpoints.trees import flatten
from videomae_jax.config import FinetuneConfig, PretrainConfig, RunConfig, check_trainable
from videomae_jax.data.labels import Classes, read_classes, read_labelled
from videomae_jax.data.loading.order import Share, steps_per_epoch
from videomae_jax.data.overlap import describe_overlap
from videomae_jax.data.records import VideoRecord, list_digest
from videomae_jax.data.sources import read_videos, split_weights
from videomae_jax.data.video_table import VideoTable
from videomae_jax.errors import InputError
from videomae_jax.hardware import peak_flops
from videomae_jax.model_config import are_numbers
from videomae_jax.models.blocks import arithmetic, check_arithmetic
from videomae_jax.models.flops import flops_per_clip
from videomae_jax.models.masking import Mask, running_cells, sample_mask
from videomae_jax.training.multihost.facts import Fact, classes_fact, setting_fact, videos_fact
from videomae_jax.training.objectives.distillation import Distillation
from videomae_jax.training.objectives.finetuning import Finetuning
from videomae_jax.training.objectives.objective import Objective
from videomae_jax.training.objectives.pretraining import Pretraining
from videomae_jax.training.optimizer import Schedule, warmup_cosine
from videomae_jax.training.run_folder import describe
from videomae_jax.training.sharding import make_mesh, placed, replicated, state_shardings
from videomae_jax.training.state import state_shapes
from videomae_jax.versions import command_line, version_of

log = logging.getLogger(__name__)

Videos = Sequence[VideoRecord]
# Settings in which hosts may differ: where they find what is compared by itself, and what changes no number.
_OWN_OF_EACH_HOST = frozenset(
    {"data.train", "data.val", "data.test", "data.root", "data.classes", "data.num_workers"}
    | {"init_from", "teacher", "model.id2label"}
)


@dataclass(frozen=True)
class ResolvedRun:
    """A checked run: its videos, its devices, its length."""

    objective: Objective
    videos: Videos
    val_videos: Videos
    test_videos: Videos
    classes: Classes | None
    """Of fine-tuning."""
    shares: tuple[Share, ...]
    """Counts and weights of the sources of `videos`, where they have weights."""
    mesh: Mesh
    schedule: Schedule
    steps_per_epoch: int
    total_steps: int
    state_shape: Any
    """The training state as ShapeDtypeStructs with the shardings it will have."""

    @property
    def config(self) -> RunConfig:
        return self.objective.config

    @property
    def val_every_steps(self) -> int:
        return self.config.log.val_every_steps or self.steps_per_epoch

    def key(self, use: Literal["weights", "training", "validation"]) -> jax.Array:
        """The random key of one use."""
        number = ("weights", "training", "validation").index(use)
        return jax.random.fold_in(jax.random.key(self.config.seed), number)

    def key_on_devices(self, use: Literal["training", "validation"]) -> jax.Array:
        """`key`, on each device of the mesh, so that no step has to move it there."""
        return jax.jit(self.key, static_argnums=0, out_shardings=replicated(self.mesh))(use)

    def utilization(self, clips_per_second: float, step: int) -> dict[str, float]:
        """Of one device: `tflops`, the operations a second that the model asks for in 10^12, and `mfu`, their
        share of what it can do in bfloat16, where that is known. What `remat` repeats does not count.

        `step` is the last one taken, from 1."""
        config = self.objective.at(step - 1, self.total_steps).config
        flops = clips_per_second * flops_per_clip(config).train / self.mesh.size
        peak = peak_flops(self.mesh.devices.flat[0].device_kind)
        return {"tflops": round(flops / 1e12, 4)} | ({"mfu": round(flops / peak, 4)} if peak else {})

    @cached_property
    def overlap(self) -> str:
        """Which videos are both trained on and measured with, in words; empty for none."""
        return describe_overlap(self.videos, {"validation": self.val_videos, "test": self.test_videos})

    @cached_property
    def unseen_classes(self) -> tuple[str, ...]:
        """The classes of which there is no video to train on."""
        counts = Counter(video.label for video in self.videos)
        names = self.classes.names if self.classes else ()
        return tuple(name for number, name in enumerate(names) if not counts[number])

    @cached_property
    def description(self) -> dict[str, Any]:
        """What is saved with every checkpoint, and compared when a run continues."""
        return {
            "config": describe(self.config),
            "data": {
                "digest": self._digests["train on"],
                "videos": len(self.videos),
                "samples": "of one clip",
            },
            "arithmetic": arithmetic(self.config.model)
            | {"data.pixels": "planes" if self.objective.reads_planes else "rgb"},
            "version": version_of("videomae-jax"),
            "command": command_line(),
        }

    @cached_property
    def val_digest(self) -> str:
        """A fingerprint of the validation videos: scores on others cannot be compared."""
        return self._digests["validate"]

    @property
    def facts_of_all_hosts(self) -> dict[str, Fact]:
        """What each host must have like the others, wherever it has it."""
        labelled = isinstance(self.config, FinetuneConfig)
        facts = {
            f"videos to {use}": videos_fact(videos, self._digests[use], labelled=labelled)
            for use, videos in self._uses
        }
        if self.classes:
            facts["classes"] = classes_fact(self.classes.names)
        settings = flatten(describe(self.config))
        return facts | {
            name: setting_fact(value) for name, value in settings.items() if name not in _OWN_OF_EACH_HOST
        }

    @property
    def _uses(self) -> Sequence[tuple[str, Videos]]:
        return ("train on", self.videos), ("validate", self.val_videos), ("test", self.test_videos)

    @cached_property
    def _digests(self) -> dict[str, str]:
        """Fingerprints of the videos of each use; a list of millions is gone through once for them."""
        return {
            use: self._digest(videos, self.shares if use == "train on" else ()) for use, videos in self._uses
        }

    def _digest(self, videos: Sequence[VideoRecord], shares: tuple[Share, ...] = ()) -> str:
        """A fingerprint of the videos, of their weights, and of their labels where these are learned."""
        digest = list_digest(videos)
        if isinstance(self.config, FinetuneConfig):
            digest += " " + " ".join(str(video.label) for video in videos)
        elif not shares:
            return digest
        return hashlib.sha256(f"{digest} {shares}".encode()).hexdigest()


def objective_of(config: RunConfig) -> Objective:
    """What a configuration trains for."""
    if isinstance(config, PretrainConfig):
        return Pretraining(config)
    assert isinstance(config, FinetuneConfig)
    return Distillation(config) if config.teacher or config.teacher_size else Finetuning(config)


@contextmanager
def _settings_checked() -> Iterator[None]:
    """Turn complaints about settings, lists and folders into InputError."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise InputError(str(error)) from error


def resolve_run(config: RunConfig, workdir: Path | None = None) -> ResolvedRun:
    """Read the lists and check the settings.

    `workdir` is where the run is, or is to be: then its positions are those of its weights, which are asked.

    Raises InputError for what a user can fix.
    """
    if not config.data.train:
        raise InputError("no videos to train on; name folders or lists with --data.train LIST [LIST ...]")
    _check_counts(config)
    check_trainable(config)
    check_arithmetic(config.model)
    if workdir:
        config = _with_positions(config, workdir)
    with _settings_checked():
        sources, weights = split_weights(config.data.train)
        if isinstance(config, FinetuneConfig):
            _check_teacher(config)
            config, classes, videos, val_videos, test_videos = _read_labelled(config, sources)
        else:
            assert isinstance(config, PretrainConfig)
            _check_mask(config)
            classes, test_videos = None, ()
            videos = read_videos(sources, config.data.root)
            val_videos = read_videos(config.data.val, config.data.root, "val")
        shares = tuple(zip(videos.parts or (len(videos),), weights, strict=True)) if weights else ()
        mesh = make_mesh(config.mesh.fsdp)
        per_epoch = steps_per_epoch(len(videos), config.batch_size)
        total = config.epochs * per_epoch
        schedule = warmup_cosine(config.optim, config.batch_size, per_epoch, total)
    _check_parts(config, mesh)
    objective = objective_of(config)
    shapes = state_shapes(objective)
    run = ResolvedRun(
        objective,
        videos,
        val_videos,
        test_videos,
        classes,
        shares,
        mesh,
        schedule,
        per_epoch,
        total,
        placed(shapes, state_shardings(mesh, shapes)),
    )
    if run.overlap and jax.process_index() == 0:
        log.warning("%s", run.overlap)
    return run


def _with_positions(config: RunConfig, workdir: Path) -> RunConfig:
    """With the grid of positions: as given, as in the run that continues, or as `init_from` learned them."""
    model = config.model
    if model.position_grid:
        return config
    if orbax.list_steps(workdir):
        saved = orbax.read_model(orbax.find_step_folder(workdir))
        model = replace(model, position_grid=saved.position_grid)
    elif config.init_from:
        model = model.following(read_model(config.init_from))
    return replace(config, model=model)


def _read_labelled(
    config: FinetuneConfig, sources: tuple[str, ...]
) -> tuple[FinetuneConfig, Classes, VideoTable, Videos, Videos]:
    """The configuration with its classes, these, and the videos to train on, to validate and to test."""
    data, model = config.data, config.model
    videos, classes = read_labelled(sources, data.root, _given_classes(config), num_labels=model.num_labels)
    val_videos, test_videos = (
        read_labelled(lists, data.root, classes, split="val").videos for lists in (data.val, data.test)
    )
    model = replace(model, num_labels=len(classes.names), id2label=classes.names)
    if model.num_labels == 1:  # Which would else be taken for a regression.
        model = replace(model, problem_type="single_label_classification")
    return replace(config, model=model), classes, videos, val_videos, test_videos


def _given_classes(config: FinetuneConfig) -> Classes | None:
    """The classes that the user names; None where the videos are to say what there is."""
    data, model = config.data, config.model
    named = None if are_numbers(model.id2label) else Classes(model.id2label, "named by model.id2label")
    if data.classes is None:
        return named
    classes = read_classes(data.classes)
    if named and named.names != classes.names:
        raise InputError(f"{data.classes} and model.id2label name other classes: leave one of them out")
    if model.num_labels and len(classes.names) > model.num_labels:
        raise InputError(
            f"model.num_labels={model.num_labels}, but {data.classes} names {len(classes.names)} classes; "
            "change --model.num-labels, or leave it out"
        )
    return classes.padded(model.num_labels)


def _check_parts(config: RunConfig, mesh: Mesh) -> None:
    """Raise InputError for a batch that cannot be split evenly over devices and accumulation steps."""
    parts = mesh.size * config.optim.accumulation_steps
    if config.batch_size % parts:
        raise InputError(
            f"batch_size={config.batch_size} is not a multiple of {parts} ({mesh.size} devices x "
            f"{config.optim.accumulation_steps} accumulation steps); change --batch-size"
            f"{' or --optim.accumulation-steps' * (parts > mesh.size)}"
        )


def _check_teacher(config: FinetuneConfig) -> None:
    """Raise ValueError for a teacher that is still to be named, or a temperature that is none."""
    if config.teacher_size and not config.teacher:
        raise ValueError(
            f"a student of a {config.teacher_size} model needs its weights: name them with --teacher"
        )
    if config.teacher_temperature <= 0:
        raise ValueError(f"teacher_temperature={config.teacher_temperature:g} must be above 0")


def _check_mask(config: PretrainConfig) -> None:
    """Raise ValueError for masks of no token or of all, and cells that are not made."""

    clip = jax.ShapeDtypeStruct((1, config.model.num_frames, *config.model.frame_size, 3), "uint8")
    for ratio in (*config.earlier_mask_ratios, config.mask_ratio):

        def draw(key: jax.Array, video: jax.Array, ratio: float = ratio) -> Mask:
            return sample_mask(config.mask_type, key, video, config.model.grid, ratio)

        jax.eval_shape(draw, jax.random.key(0), clip)
    if config.decoder_mask_ratio:
        running_cells(config.model.grid, config.decoder_mask_ratio)


def _check_counts(config: RunConfig) -> None:
    """Raise InputError for a count below 1."""
    for part, names in (
        ("", ("batch_size", "epochs", "max_nonfinite_steps", "num_masks", "test_batch_size")),
        ("data", ("sampling_rate", "num_sample")),
        ("augment", ("mix_group",)),
        ("optim", ("accumulation_steps",)),
        ("checkpoint", ("every_steps", "keep_last")),
        ("log", ("every_steps", "val_every_steps")),
    ):
        for name in names:
            value = getattr(getattr(config, part, None) if part else config, name, None)
            if value is not None and value < 1:
                raise InputError(f"{part}{'.' * bool(part)}{name}={value} must be at least 1")
