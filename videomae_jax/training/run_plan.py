"""Everything that is decided before the first step of a pre-training run, checked and put into words."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import Mesh

from videomae_jax.config import PretrainConfig
from videomae_jax.data.pipeline import steps_per_epoch
from videomae_jax.data.sources import VideoRecord, list_digest, read_videos
from videomae_jax.errors import InputError
from videomae_jax.models.layers import compute_dtype
from videomae_jax.models.masking import sample_mask
from videomae_jax.training.optim import Schedule, effective_lr, warmup_cosine
from videomae_jax.training.sharding import make_mesh, state_shardings
from videomae_jax.training.steps import state_shapes
from videomae_jax.training.workdir import describe
from videomae_jax.versions import version_of


@dataclass(frozen=True)
class RunPlan:
    """A checked run: its videos, its devices, its length."""

    config: PretrainConfig
    videos: tuple[VideoRecord, ...]
    val_videos: tuple[VideoRecord, ...]
    mesh: Mesh
    schedule: Schedule
    steps_per_epoch: int
    total_steps: int
    state_shape: Any
    """The training state as ShapeDtypeStructs with the shardings it will have."""

    def key(self, use: Literal["weights", "masks", "held out"]) -> jax.Array:
        """The random key of one use."""
        number = ("weights", "masks", "held out").index(use)
        return jax.random.fold_in(jax.random.key(self.config.seed), number)

    @cached_property
    def description(self) -> dict[str, Any]:
        """What is saved with every checkpoint, and compared when a run continues."""
        return {
            "config": describe(self.config),
            "data": {"digest": list_digest(self.videos), "videos": len(self.videos)},
            "version": version_of("videomae-jax"),
        }


@contextmanager
def _settings_checked() -> Iterator[None]:
    """Turn complaints about settings, lists and folders into InputError."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise InputError(str(error)) from error


def make_plan(config: PretrainConfig) -> RunPlan:
    """Read the lists and check the settings; raises InputError for what a user can mend."""
    if not config.data.train:
        raise InputError("no videos to train on; name folders or lists with --data.train LIST [LIST ...]")
    _check_counts(config)
    with _settings_checked():
        videos = read_videos(config.data.train, config.data.root)
        val_videos = read_videos(config.data.val, config.data.root) if config.data.val else ()
        mesh = make_mesh(config.mesh.fsdp)
        per_epoch = steps_per_epoch(len(videos), config.batch_size)
        total = config.epochs * per_epoch
        schedule = warmup_cosine(config.optim, config.batch_size, per_epoch, total)
        draw = partial(sample_mask, config.mask_type, batch=1, grid=config.model.grid)
        jax.eval_shape(lambda key: draw(key=key, ratio=config.mask_ratio), jax.random.key(0))
    parts = mesh.size * config.optim.accumulation_steps
    if config.batch_size % parts:
        raise InputError(
            f"batch_size={config.batch_size} is not a multiple of {parts} ({mesh.size} devices x "
            f"{config.optim.accumulation_steps} accumulation steps); change --batch-size"
        )
    shapes = state_shapes(config)
    state_shape = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        state_shardings(mesh, shapes),
    )
    return RunPlan(config, videos, val_videos, mesh, schedule, per_epoch, total, state_shape)


def _check_counts(config: PretrainConfig) -> None:
    """Raise InputError for a count below 1."""
    for part, names in (
        ("", ("batch_size", "epochs", "max_nonfinite_steps")),
        ("data", ("sampling_rate", "num_sample")),
        ("optim", ("accumulation_steps",)),
        ("checkpoint", ("every_steps", "keep_last")),
        ("log", ("every_steps", "val_every_steps")),
    ):
        for name in names:
            value = getattr(getattr(config, part) if part else config, name)
            if value < 1:
                raise InputError(f"{part}{'.' * bool(part)}{name}={value} must be at least 1")


def describe_plan(plan: RunPlan, first_step: int) -> str:
    """The plan of the run, one fact a line."""
    config, model = plan.config, plan.config.model
    parameters = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(plan.state_shape.params))
    device = jax.devices()[0]
    optim = config.optim
    lr, floor = (effective_lr(base, config.batch_size) for base in (optim.base_lr, optim.min_lr))
    mesh = " x ".join(f"{size} {axis}" for axis, size in plan.mesh.shape.items())
    facts = {
        "model": f"{model.num_hidden_layers} layers of width {model.hidden_size}, decoder "
        f"{model.decoder_num_hidden_layers} of {model.decoder_hidden_size}, {parameters:,} parameters",
        "clips": f"{model.num_frames} frames {model.image_size}x{model.image_size}, every "
        f"{config.data.sampling_rate}. frame; {config.mask_type} mask hides {config.mask_ratio:.0%} of "
        f"{model.num_tokens} tokens",
        "devices": f"{plan.mesh.size} x {device.device_kind} ({mesh}), {compute_dtype(model)}",
        "batch": f"{config.batch_size} videos x {config.data.num_sample} clips"
        + (f" in {optim.accumulation_steps} parts" if optim.accumulation_steps > 1 else ""),
        "learning rate": f"{lr:.3g} down to {floor:.3g} (base {optim.base_lr:.3g} x batch / 256), "
        f"warm-up {int(optim.warmup_epochs * plan.steps_per_epoch)} steps",
        "videos": f"{len(plan.videos)} to train on, {len(plan.val_videos)} held out, "
        f"{config.data.num_workers} decoding processes",
        "steps": f"{plan.total_steps} = {config.epochs} epochs x {plan.steps_per_epoch}"
        + (f", continuing from step {first_step}" if first_step else ""),
    }
    return "\n".join(f"{name:>13}  {value}" for name, value in facts.items())
