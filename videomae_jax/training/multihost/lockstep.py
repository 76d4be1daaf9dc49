"""What the hosts settle before each batch: whether all have it, what could not be read, whether to stop.

A signal or a failure on one host is known to all before the next step is handed to the devices, so all stop
at the same step, with the same state to save. The devices are busy with the step before meanwhile.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from signal import Signals
from typing import Any

import jax

from videomae_jax.data.loading.failures import Failure
from videomae_jax.data.loading.filling import ClipBatch
from videomae_jax.errors import RunError
from videomae_jax.training.multihost.hosts import Hosts
from videomae_jax.training.multihost.signals import StopRequest


@dataclass(frozen=True)
class SharedBatch:
    """A batch that all hosts are ready for."""

    batch: ClipBatch
    """This host's share."""
    record_ids: tuple[int, ...]
    """Positions in the list of the videos of all hosts, in the order of the whole batch."""
    failures: tuple[Failure, ...]
    """What could not be read on any host."""
    waited: float
    """Seconds for which the slowest host waited for its share."""


@dataclass
class Lockstep:
    """Takes batches in step with the other hosts, and knows why all of them stop."""

    hosts: Hosts
    request: StopRequest
    in_flight: jax.Array | None = None
    """A result of the step that the devices work on."""
    signal: Signals | None = None
    """The signal that all stop for: that of the first host that got one."""
    problem: RunError | None = None
    """The failure that all stop for."""

    @property
    def stopped(self) -> bool:
        return self.signal is not None or self.problem is not None

    def take(
        self, read: Iterator[ClipBatch], problem: Callable[[], RunError | None] = lambda: None
    ) -> Iterator[SharedBatch]:
        """The batches that `read` has on every host, until the last, or until all are to stop.

        `problem` says why this host must stop, once it must.
        """
        while True:
            batch, failure, began = None, problem(), time.perf_counter()
            if not (failure or self.request.signal):
                try:
                    batch = next(read, None)
                except RunError as error:
                    # A signal to the whole process group can end decoding processes too.
                    failure = None if self.request.signal else error
            notes = self._settle(failure, _said(batch, time.perf_counter() - began))
            if self.stopped or batch is None:
                return
            yield SharedBatch(
                batch,
                tuple(number for note in notes for number in note["records"]),
                tuple(Failure(*each) for note in notes for each in note["failures"]),
                max(note["waited"] for note in notes),
            )

    def conclude(self, problem: RunError | None) -> None:
        """Settle, after the last step, why the run stops."""
        self._settle(problem, {})

    def _settle(self, failure: RunError | None, said: dict[str, Any]) -> list[dict[str, Any]]:
        note = said | {"signal": self.request.signal, "problem": failure and str(failure)}
        notes = self.hosts.share(note, self.in_flight)
        for host, each in enumerate(notes):
            if each["signal"] and not self.signal:
                self.signal = Signals(each["signal"])
            if each["problem"] and not self.problem:
                own = host == self.hosts.index
                self.problem = failure if own else RunError(f"host {host}: {each['problem']}")
        return notes


def _said(batch: ClipBatch | None, waited: float) -> dict[str, Any]:
    """What a host tells of its share of a batch."""
    if batch is None:
        return {}
    failures = [(each.path, each.reason, each.error) for each in batch.failures]
    return {"records": batch.record_ids.tolist(), "failures": failures, "waited": waited}
