"""The accuracy of a finished fine-tuning, measured as `videomae-jax evaluate` measures it."""

from pathlib import Path

from videomae_jax.checkpoints.orbax import find_evaluated_folder, find_step_folder
from videomae_jax.config import FinetuneConfig
from videomae_jax.data.loading.workers import Workers
from videomae_jax.inference.evaluation.command import Evaluate, evaluate
from videomae_jax.training.multihost.hosts import Hosts


def final_test(config: FinetuneConfig, workdir: Path, workers: Workers | None = None) -> int:
    """Test the checkpoint that `config` names into `workdir`/test; returns the exit code."""
    find = find_evaluated_folder if config.test_checkpoint == "best" else find_step_folder
    folder, data, views = find(workdir), config.data, config.test
    trained_on_at_a_time = config.batch_size * data.num_sample // config.optim.accumulation_steps
    at_a_time = config.test_batch_size or trained_on_at_a_time
    if Hosts().first:
        print(
            f"\ntesting {folder}, the {config.test_checkpoint} checkpoint, on {views.num_segments} clips x "
            f"{views.num_crops} crops of each video, {at_a_time} at a time",
            flush=True,
        )
    return evaluate(
        Evaluate(
            data.test,
            str(folder),
            num_segments=views.num_segments,
            num_crops=views.num_crops,
            batch_size=at_a_time,
            dtype=config.model.dtype,
            num_workers=data.num_workers,
            root=data.root,
            classes=data.classes,
            decoder=data.decoder,
            max_pixels=data.max_pixels,
            out=workdir / "test",
        ),
        workers,
    )
