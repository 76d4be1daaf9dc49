"""What a run says before its first step: model, clips, devices, batch, videos and steps, one fact a line."""

from collections.abc import Mapping

import jax
import numpy as np

from videomae_jax.checkpoints.comparison import size_change
from videomae_jax.checkpoints.source import read_model
from videomae_jax.config import FinetuneConfig, PretrainConfig, RunConfig
from videomae_jax.data.sources import split_weights
from videomae_jax.errors import some
from videomae_jax.models.blocks import compute_dtype
from videomae_jax.models.teacher import teacher_config
from videomae_jax.training.optimizer import effective_lr
from videomae_jax.training.reporting.pace import pace_in_words
from videomae_jax.training.resolve import ResolvedRun


def describe_run(run: ResolvedRun, first_step: int) -> str:
    """The facts of a run that starts from step `first_step`."""
    config, model = run.config, run.config.model
    parameters = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(run.state_shape.params))
    device = jax.devices()[0]
    optim = config.optim
    warmup = int(optim.warmup_epochs * run.steps_per_epoch)
    lr, floor = (effective_lr(base, config.batch_size) for base in (optim.base_lr, optim.min_lr))
    mesh = " x ".join(f"{size} {axis}" for axis, size in run.mesh.shape.items())
    facts = {
        "model": f"{model.num_hidden_layers} layers of width {model.hidden_size}, {parameters:,} parameters",
        "clips": f"{model.clip_in_words}, {_spacing(config)}, {model.num_tokens} tokens",
        **({} if first_step else _positions(config)),
        **({"classes": _describe_classes(run)} if run.classes else {}),
        **_objective(config),
        **_teacher(run),
        "devices": f"{run.mesh.size} x {device.device_kind} ({mesh}), {compute_dtype(model)}"
        + (f", on {jax.process_count()} hosts" if jax.process_count() > 1 else ""),
        "batch": f"{config.batch_size} videos x {config.data.num_sample} clips"
        + (f" in {optim.accumulation_steps} parts" if optim.accumulation_steps > 1 else "")
        + _repeats(config.batch_size, len(run.videos)),
        "learning rate": f"{lr:.3g} down to {floor:.3g} (base {optim.base_lr:.3g} x batch / 256), "
        f"warm-up {warmup} step{'s' * (warmup != 1)}",
        "videos": f"{len(run.videos)} to train on, {len(run.val_videos)} to validate"
        + (f", {len(run.test_videos)} to test" if run.test_videos else "")
        + f", {config.data.num_workers} decoding processes",
        **({"OVERLAP": run.overlap} if run.overlap else {}),
        **_sources(run),
        "steps": f"{run.total_steps} = {config.epochs} epochs x {run.steps_per_epoch}"
        + (f", continuing from step {first_step}" if first_step else ""),
    }
    if device.platform == "cpu" and (pace := pace_in_words(config, run.total_steps - first_step)):
        facts["pace"] = pace
    return fact_lines(facts)


def fact_lines(facts: Mapping[str, str]) -> str:
    """Facts by name, one a line."""
    return "\n".join(f"{name:>13}  {value}" for name, value in facts.items())


def _positions(config: RunConfig) -> dict[str, str]:
    """What to say where the run starts from weights of another size."""
    source = config.init_from
    said = size_change(source, read_model(source), config.model) if source else None
    return {"positions": said} if said else {}


def _describe_classes(run: ResolvedRun) -> str:
    assert run.classes
    missing = run.unseen_classes
    return f"{len(run.classes.names)}, {run.classes.origin}" + (
        f"; no video to train on of {some(missing, 10)}" if missing else ""
    )


def _repeats(batch_size: int, videos: int) -> str:
    """A word on batches that are larger than the set."""
    if batch_size <= videos:
        return ""
    there = "is only 1 video" if videos == 1 else f"are only {videos} videos"
    return (
        f"; there {there}, so each comes {batch_size / videos:.2g} times in a batch: "
        f"with --batch-size {videos}, or a smaller one, each comes once"
    )


def _sources(run: ResolvedRun) -> dict[str, str]:
    """How much of an epoch comes from each source, where they have weights."""
    if not run.shares:
        return {}
    names, total = split_weights(run.config.data.train)[0], sum(weight for _, weight in run.shares)
    parts = [
        f"{weight / total:.3g} of {name} ({count} videos)"
        for name, (count, weight) in zip(names, run.shares, strict=True)
    ]
    return {"mixture": ", ".join(parts)}


def _spacing(config: RunConfig) -> str:
    if isinstance(config, FinetuneConfig) and config.data.sampling == "uniform":
        return "evenly over the video"
    return f"sampling rate {config.data.sampling_rate}"


def _teacher(run: ResolvedRun) -> dict[str, str]:
    config = run.config
    if not isinstance(config, FinetuneConfig) or not (model := teacher_config(config)):
        return {}
    parameters = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(run.state_shape.teacher))
    return {
        "teacher": f"{config.teacher}, {model.num_hidden_layers} layers of width {model.hidden_size}, "
        f"{parameters:,} parameters, frozen, in {compute_dtype(model)}; temperature "
        f"{config.teacher_temperature:g}, labels count in validation only"
    }


def _objective(config: RunConfig) -> dict[str, str]:
    if isinstance(config, PretrainConfig):
        ratios = [f"{ratio:.0%}" for ratio in (*config.earlier_mask_ratios, config.mask_ratio)]
        masked = f"{', then '.join(ratios)} of {config.model.num_tokens} tokens"
        decoder = f"{config.model.decoder_num_hidden_layers} layers of {config.model.decoder_hidden_size}"
        if config.model.decoder_type == "cross":
            decoder += ", masked tokens see visible ones alone"
        if config.decoder_mask_ratio:
            decoder += f", running cell, {1 - config.decoder_mask_ratio:.0%} of the tokens"
        return {"decoder": decoder, "mask": f"{config.mask_type}, {masked}"}
    assert isinstance(config, FinetuneConfig)
    augment = config.augment
    rand = (
        f"RandAugment {augment.rand_num_ops} x magnitude {augment.rand_magnitude:g}, "
        if augment.rand_num_ops
        else ""
    )
    return {
        "augmentation": f"{rand}crops of {augment.crop_scale[0]:.0%} to {augment.crop_scale[1]:.0%}, "
        f"{'flip' if augment.flip else 'no flip'}, erasing {augment.erase_prob:g}, mixup "
        f"{augment.mixup:g}, cutmix {augment.cutmix:g} in groups of {augment.mix_group}, smoothing "
        f"{augment.label_smoothing:g}",
        "decay": f"layers learn {config.layer_decay:g} times as fast as the one after them; drop path "
        f"{config.model.drop_path:g}, head dropout {config.model.head_dropout:g}"
        + (f", evaluated by the average of weights at {config.ema_decay:g}" if config.ema_decay else ""),
    }
