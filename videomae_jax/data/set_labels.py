"""Labels of sets without a table of videos: they are in the records alone, so all are read once, and kept."""

import hashlib
import logging
import os
from collections.abc import Sequence
from itertools import chain, groupby
from pathlib import Path

import numpy as np
from jaxtyping import Int64
from tqdm import tqdm

from videomae_jax.data.loading.map_processes import map_in_processes
from videomae_jax.data.records import VideoRecord
from videomae_jax.data.sets import files_of_split, read_label, set_and_split
from videomae_jax.data.video_table import NO_LABEL
from videomae_jax.errors import InputError
from videomae_jax.files import cache_folder, replacing

log = logging.getLogger(__name__)

# Records whose labels are read at a time; of fewer, none are kept.
_CHUNK = 500
_PROCESSES = 8


def read_labels(videos: Sequence[VideoRecord]) -> Int64[np.ndarray, " n"]:
    """The label of each, `NO_LABEL` where it has none; raises InputError where a record cannot be read."""
    splits = [_read_split(*split, list(records)) for split, records in groupby(videos, set_and_split)]
    return np.concatenate(splits)


def _read_split(folder: str, split: str, videos: list[VideoRecord]) -> Int64[np.ndarray, " n"]:
    if len(videos) <= _CHUNK:
        return _read(videos)
    kept = _place(folder, split, len(videos))
    if kept.exists():
        return np.load(kept)
    log.warning(
        "%s#%s has no videos.csv, so every record is read for its label, once: the labels are kept in %s",
        *(folder, split, kept),
    )
    chunks = [videos[n : n + _CHUNK] for n in range(0, len(videos), _CHUNK)]
    found = map_in_processes(_read, chunks, min(_PROCESSES, os.cpu_count() or 1), _crashed)
    labels = np.concatenate(list(tqdm(found, "reading labels", len(chunks))))
    with replacing(kept) as partial:
        np.save(partial, labels)
    return labels


def _place(folder: str, split: str, count: int) -> Path:
    """Where labels are kept, a name that changes with the files of the set."""
    told = [folder, split, str(count), *chain.from_iterable(files_of_split(folder, split))]
    return cache_folder("labels") / f"{hashlib.sha256(os.fsencode(chr(0).join(told))).hexdigest()[:20]}.npy"


def _read(videos: Sequence[VideoRecord]) -> Int64[np.ndarray, " n"]:
    labels = np.full(len(videos), NO_LABEL, np.int64)
    for n, video in enumerate(videos):
        try:
            label = read_label(video)
        except (ValueError, RuntimeError, OSError) as error:  # What array_record raises, whatever it is.
            raise InputError(f"{video.path}: its label cannot be read: {error}") from error
        labels[n] = NO_LABEL if label is None else label
    return labels


def _crashed(videos: Sequence[VideoRecord]) -> Int64[np.ndarray, " n"]:
    raise InputError(f"{videos[0].path}, or one that follows it: reading its label ends the process")
