"""How many videos a shard has where nobody says so: as many as make some hundred megabytes.

Of small shards a large data set has thousands, which file systems and object stores serve slowly.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from videomae_jax.data.loading.map_processes import crashed, map_in_processes
from videomae_jax.data.prepare.recode import Recode, Recoded
from videomae_jax.data.prepare.settings import Prepare
from videomae_jax.data.records import VideoRecord

SHARD_BYTES = 256_000_000
# Videos that are stored on trial; of so few, one shard is made without.
_TRIED = 8


def choose_videos_per_shard(
    args: Prepare, videos: Sequence[VideoRecord], begun: dict[str, Any] | None, scratch: Path
) -> int:
    """What was asked for; what the set in `out` was `begun` with; or what fits.

    A few videos, spread over all, are stored on trial, so the number depends on nothing but the videos and
    the settings.
    """
    if args.videos_per_shard is not None:
        return args.videos_per_shard
    if begun:
        return int(begun["videos_per_shard"])
    if len(videos) <= _TRIED:
        return _TRIED
    tried = [videos[n] for n in np.linspace(0, len(videos) - 1, _TRIED).astype(int)]
    results = map_in_processes(Recode(args.storage, scratch), tried, args.num_workers, crashed)
    sizes = [
        len(result.video) + sum(map(len, result.frames)) for result in results if isinstance(result, Recoded)
    ]
    return max(1, int(SHARD_BYTES / np.mean(sizes))) if sizes else _TRIED
