"""The videos that a checkpoint of a run was trained on, so that an evaluation says which it meets."""

import logging
from pathlib import Path

from videomae_jax.checkpoints.orbax import find_evaluated_folder, read_description
from videomae_jax.data.records import VideoRecord
from videomae_jax.data.sources import read_videos, split_weights
from videomae_jax.errors import InputError

log = logging.getLogger(__name__)


def read_trained_videos(checkpoint: str) -> tuple[VideoRecord, ...]:
    """As the run's lists and folders name them now; none where no run is recorded, or, with a warning, where
    they are not found."""
    try:
        data = read_description(find_evaluated_folder(Path(checkpoint)))["config"].get("data", {})
    except InputError:
        return ()
    try:
        return read_videos(split_weights(data.get("train", ()))[0], data.get("root"))
    except InputError as error:
        log.warning(
            "whether %s was trained on some of these videos is not known: %s. Start this command in the "
            "folder in which the run was started",
            checkpoint,
            error,
        )
        return ()


__all__ = ["read_trained_videos"]
