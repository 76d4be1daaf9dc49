"""The batch of a step is one and the same, however many workers and hosts read it, and from wherever on."""

from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pytest

from videomae_jax.data.loading.batches import batches
from videomae_jax.data.loading.workers import Workers
from videomae_jax.data.records import VideoRecord
from videomae_jax.data.video.frames import VideoError

COUNT, BAD = 26, (3, 11, 20)
# More than an epoch of either.
STEPS = 8
SHARES = {"one source": (), "a mixture": ((16, 0.3), (10, 0.7))}

FIRST_TWO = {
    "one source": [[2, 4, 7, 22, 25, 18, 13, 7], [19, 16, 24, 10, 8, 22, 0, 1]],
    "a mixture": [[2, 5, 7, 4, 23, 22, 23, 15], [16, 16, 21, 25, 24, 17, 12, 10]],
}


@dataclass(frozen=True)
class ReadDraws:
    """A reader that writes down which video it was asked for, and the key of its draws."""

    def blank(self):
        return {"video": np.zeros((1, 1), np.int64), "key": np.zeros(4, np.int64)}

    def __call__(self, record, key):
        if int(record.path) in BAD:
            raise VideoError(record.path, "damaged", "")
        return {"video": np.full((1, 1), int(record.path)), "key": np.array(key)}


@pytest.fixture(scope="module")
def pools():
    """Workers of up to four hosts, by their number for each host."""
    with ExitStack() as held:
        yield {
            count: [held.enter_context(closing(Workers(count))) for _ in range(4)] if count else [None] * 4
            for count in (0, 1, 4)
        }


def read(shares, hosts=1, start=0, workers=(None,)):
    """What all hosts have of each step together: videos, keys, what failed."""
    videos = tuple(VideoRecord(str(number), "") for number in range(COUNT))
    settings = {"seed": 3, "batch_size": 8, "num_workers": 0, "start_step": start, "stop_step": STEPS}
    with ExitStack() as held:
        parts = [
            held.enter_context(
                closing(
                    batches(
                        videos,
                        ReadDraws(),
                        **settings,
                        shares=shares,
                        process_index=host,
                        process_count=hosts,
                        workers=pool,
                    )
                )
            )
            for host, pool in zip(range(hosts), workers, strict=False)
        ]
        for step in zip(*parts, strict=True):
            yield (
                [batch.step for batch in step],
                np.concatenate([batch.arrays["video"] for batch in step]).ravel().tolist(),
                np.concatenate([batch.arrays["key"].reshape(-1, 4) for batch in step]).tolist(),
                [failure.path for batch in step for failure in batch.failures],
            )


@pytest.mark.parametrize("kind", SHARES)
@pytest.mark.parametrize("hosts", [1, 2, 4])
@pytest.mark.parametrize("workers", [0, 1, 4])
def test_workers_hosts_starts_and_mixtures(pools, workers, hosts, kind):
    expected = [(steps * hosts, *rest) for steps, *rest in read(SHARES[kind])]
    assert sum(len(failed) for *_, failed in expected) >= 3
    assert len({tuple(numbers) for _, numbers, *_ in expected}) == STEPS
    for start in (0, 1, 5):
        assert list(read(SHARES[kind], hosts, start, pools[workers])) == expected[start:]


@pytest.mark.parametrize("kind", SHARES)
def test_numbers_of_earlier_versions(kind):
    """A run that continues under another version goes on with its videos, draws and substitutes."""
    assert [numbers for _, numbers, *_ in islice(read(SHARES[kind]), 2)] == FIRST_TWO[kind]
    assert [keys[-1] for *_, keys, _ in islice(read(SHARES[kind]), 2)] == [[3, 0, 7, 0], [3, 0, 15, 0]]
