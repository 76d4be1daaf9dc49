"""Several hosts that work as one: how they find each other, what they tell each other, how they end.

A host is one process of the run, whatever the number of its devices. Everything goes through JAX's own
coordination service; with one host nothing is started and nothing is sent.
"""

import importlib.util
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import jax
from jax._src import distributed  # Its key-value store has no public name; Orbax uses it as well.

from videomae_jax.errors import InputError, RunError, no_devices
from videomae_jax.training.multihost.facts import Fact

HEARTBEAT_TIMEOUT_SECONDS = 30
"""JAX ends every host when one has been silent for this long (100 by its own default)."""
_MILLISECONDS_BETWEEN_LOOKS = 1000
_MILLISECONDS_TO_LEAVE = 5000
_START_AGAIN = (
    "Start all hosts again with the same command: training continues from its newest checkpoint, features "
    "from what is finished of them, on this or another number of hosts."
)
_LOST = re.compile(
    r"\b(UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED|CANCELLED)\b|CoordinationService"
    r"|(?i:connection|socket|network error|remote process|timed out|timeout|broken pipe|unreachable)"
)
"""What the runtime says when another host does not answer; the libraries' names come in all their errors."""
_NOT_LOST = re.compile(r"RESOURCE_EXHAUSTED|INVALID_ARGUMENT|(?i:out of memory)")
_NO_METADATA = "Failed to resolve 'metadata.google.internal'"
_SAID_BY_ORBAX = "Timeout waiting at barrier"
_PRINT_LAST_LINE = (
    "import signal, sys; [signal.signal(n, signal.SIG_IGN) for n in (signal.SIGINT, signal.SIGTERM)]; "
    "last = sys.stdin.read().splitlines()[-1]; last and print('videomae-jax:', last, file=sys.stderr)"
)
_T = TypeVar("_T")


class HostLost(RunError):
    """Another host is gone, or this one cannot reach it."""


@contextmanager
def connected(coordinator: str | None, num_hosts: int | None, host_index: int | None) -> Iterator[None]:
    """Join the other hosts, before any other use of JAX, and leave them at the end.

    Where nothing is given, Cloud TPU, Slurm and Open MPI are asked, and one host alone does nothing. A
    failure ends this process at once, with its exit code: JAX's way out would wait for the others first.
    Raises InputError when what is given makes no sense.
    """
    if not _is_one_of_several(coordinator, num_hosts, host_index):
        yield
        return
    exit_message = _ExitMessage()
    place = coordinator or "the address that the cluster gives"
    exit_message.change(
        f"the hosts did not find each other at {place}: all must be started, with one --num-hosts, and reach "
        "that port of host 0."
    )
    try:
        _join(coordinator, num_hosts, host_index)
        ended = (
            f"host {jax.process_index()} of {jax.process_count()} was ended: it was killed, or JAX ended it "
            f"because {_another()} is gone (see the lines above). {_START_AGAIN}"
        )
        exit_message.change(ended if jax.process_count() > 1 else "")
        yield
        jax.distributed.shutdown()
        exit_message.take_back()
    except BaseException as error:
        code = say(error)
        exit_message.take_back()
        _wait_for_those_who_leave_too()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


class _ExitMessage:
    """What is said for this process when it is killed, or is ended by JAX, which gives it no chance to.

    Without it a run whose host is lost ends in JAX's log, without what to do: no handler of ours is called.
    """

    def __init__(self) -> None:
        command = [sys.executable, "-S", "-E", "-c", _PRINT_LAST_LINE]
        self._speaker = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, start_new_session=True)

    def change(self, text: str) -> None:
        """Say this instead of what was to be said before."""
        assert self._speaker.stdin is not None
        self._speaker.stdin.write(text + "\n")
        self._speaker.stdin.flush()

    def take_back(self) -> None:
        """Say nothing."""
        self._speaker.communicate("\n")


def _is_one_of_several(coordinator: str | None, num_hosts: int | None, host_index: int | None) -> bool:
    """Check what is given, or look whether a cluster started this process."""
    given = {"--coordinator": coordinator, "--num-hosts": num_hosts, "--host-index": host_index}
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == len(given):
        return _started_by_a_cluster()
    if coordinator is None or num_hosts is None or host_index is None:
        raise InputError(f"{' and '.join(missing)} missing; a host needs all of {', '.join(given)}")
    address, _, port = coordinator.rpartition(":")
    if not address or not port.isdecimal():
        raise InputError(f"--coordinator {coordinator} must be HOST:PORT, a free port of host 0")
    if not 0 <= host_index < num_hosts:
        raise InputError(f"--host-index {host_index} must be from 0 to --num-hosts - 1 = {num_hosts - 1}")
    return True


def _join(coordinator: str | None, num_hosts: int | None, host_index: int | None) -> None:
    # Its handler of SIGTERM would stand beside ours; the hosts agree on a step to stop at by themselves.
    # JAX before 0.9 cannot leave it out, but ours is set later, in its place.
    if "jax_enable_preemption_service" in jax.config.values:
        jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            coordinator, num_hosts, host_index, heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT_SECONDS
        )
    except (ValueError, OSError) as error:
        if isinstance(error, OSError) and _NO_METADATA not in str(error):
            raise
        if coordinator or _tasks_of_a_job() > 1:
            raise InputError(
                f"JAX could not join this job ({error}); name the hosts with --coordinator HOST:PORT "
                "--num-hosts N --host-index K"
            ) from error
        return  # A TPU machine that knows of no others, such as a notebook's.
    jax.devices()  # All hosts tell each other of their devices here, so that none waits for one that failed.


def _started_by_a_cluster() -> bool:
    """Whether there may be others to be found: a job of several tasks, or a TPU machine."""
    chips = [*Path("/dev").glob("accel[0-9]*"), *Path("/dev").glob("vfio/[0-9]*")]
    return _tasks_of_a_job() > 1 or (bool(chips) and importlib.util.find_spec("libtpu") is not None)


def _tasks_of_a_job() -> int:
    """How many processes Slurm's srun or Open MPI's mpirun has started with this one."""
    slurm = os.environ.get("SLURM_NTASKS", 1) if "SLURM_STEP_NODELIST" in os.environ else 1
    return max(int(slurm), int(os.environ.get("OMPI_COMM_WORLD_SIZE", 1)))


def say(error: BaseException) -> int:
    """Print why this host ends, in one paragraph where it is no bug, and return the exit code."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    if isinstance(error, KeyboardInterrupt):
        print("videomae-jax: stopped by Ctrl-C", file=sys.stderr)
        return 128 + signal.SIGINT
    if distributed.global_state.num_processes > 1 and (lost := _sign_of_a_lost_host(error)):
        error = HostLost(_lost(lost))
    if isinstance(error, Exception) and (said := no_devices(error)):
        error = RunError(said)
    if isinstance(error, InputError | RunError | OSError):
        print(f"videomae-jax: {error}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    traceback.print_exception(error)
    return 1


def _wait_for_those_who_leave_too() -> None:
    """Let all have their say where all have failed alike: the end of host 0 would cut the others short."""
    client = distributed.global_state.client
    if client is None:
        return
    with suppress(jax.errors.JaxRuntimeError):
        client.wait_at_barrier("videomae/leaving", _MILLISECONDS_TO_LEAVE)
        jax.distributed.shutdown()


def _sign_of_a_lost_host(error: BaseException | None) -> BaseException | None:
    """What says, behind an error, that a collective or a checkpoint waited for another host in vain."""
    while error is not None:
        said = str(error)
        of_a_runtime = isinstance(error, jax.errors.JaxRuntimeError) or _SAID_BY_ORBAX in said
        if of_a_runtime and _LOST.search(said) and not _NOT_LOST.search(said):
            return error
        error = error.__cause__ or error.__context__
    return None


def _another() -> str:
    return f"host {1 - jax.process_index()}" if jax.process_count() == 2 else "another host"


def _lost(error: BaseException) -> str:
    said = str(error).splitlines()[0][:300]
    return f"{_another()} of {jax.process_count()} is gone, or out of reach ({said}). {_START_AGAIN}"


def _shown(notes: list[Any], name: str, host: int) -> str:
    """What a host says of a fact, unlike what host 0 says."""
    shown = notes[host][name][1]
    return shown if shown != notes[0][name][1] else "as many, but others or in another order"


class Hosts:
    """What the hosts of a run tell each other. All make the same calls in the same order.

    Nothing of it runs on the devices, so that it costs them no time while they work on a step.
    """

    _numbers = itertools.count()

    def __init__(self) -> None:
        self.index, self.count = jax.process_index(), jax.process_count()
        self._client: Any = distributed.global_state.client
        self._place = f"videomae/{next(self._numbers)}"
        self._turn = 0

    @property
    def first(self) -> bool:
        """Whether this is the host that writes and prints."""
        return self.index == 0

    def share(self, note: Any, in_flight: Any = None) -> list[Any]:
        """The notes (JSON values) of all hosts, in their order.

        Args:
          in_flight: an array that the devices compute together meanwhile. Where collectives notice that a
            host is gone, so does this wait. Raises HostLost.
        """
        if self.count == 1:
            return [note]
        turn, self._turn = self._turn, self._turn + 1
        try:
            if self.first:
                notes = [
                    note,
                    *(json.loads(self._get(f"{turn}/{n}", in_flight)) for n in range(1, self.count)),
                ]
                self._client.key_value_set(self._key(f"{turn}/all"), json.dumps(notes))
                if turn:  # Whoever has written down this turn's note has read the last one's.
                    self._client.key_value_delete(self._key(f"{turn - 1}/all"))
                return notes
            self._client.key_value_set(self._key(f"{turn}/{self.index}"), json.dumps(note))
            notes = json.loads(self._get(f"{turn}/all", in_flight))
            self._client.key_value_delete(self._key(f"{turn}/{self.index}"))
            return notes
        except jax.errors.JaxRuntimeError as error:
            if _sign_of_a_lost_host(error) is None:  # Such as the step in flight that ran out of memory.
                raise
            raise HostLost(_lost(error)) from error

    def agree(self, work: Callable[[], _T]) -> _T:
        """Do the same on every host; when it fails on one, all raise what that one did."""
        result, failure = None, None
        try:
            result = work()
        except (InputError, RunError) as error:
            failure = error
        kinds = {"input": InputError, "run": RunError}
        note = failure and ["input" if isinstance(failure, InputError) else "run", str(failure)]
        for host, said in enumerate(self.share(note)):
            if said:
                raise failure or kinds[said[0]](f"host {host} of {self.count}: {said[1]}")
        return result  # type: ignore[return-value]

    @contextmanager
    def locked(self, lock: AbstractContextManager[None]) -> Iterator[None]:
        """Hold a lock on the first host, which writes; all hosts fail where it is refused."""
        with ExitStack() as held:
            self.agree(lambda: held.enter_context(lock) if self.first else None)
            yield

    def compare(self, facts: Mapping[str, Fact]) -> None:
        """Raise InputError on all hosts, with what differs where, unless these facts are the same on all.

        Facts by their names, which all hosts know in the same order.
        """
        notes = self.share({name: [fact.digest, fact.shown] for name, fact in facts.items()})
        apart = {
            name: [host for host, note in enumerate(notes) if note[name][0] != first[0]]
            for name, first in notes[0].items()
        }
        differing = sorted({host for hosts in apart.values() for host in hosts})
        if not differing:
            return
        said = [
            f"{name} ({notes[0][name][1]} on host 0, {_shown(notes, name, hosts[0])} on host {hosts[0]})"
            f"{self._first_apart(facts[name])}"
            for name, hosts in apart.items()
            if hosts
        ]
        who = (
            f"host {differing[0]} does"
            if len(differing) == 1
            else f"hosts {', '.join(map(str, differing))} do"
        )
        raise InputError(
            f"{who} not have the same as host 0: {'; '.join(said)}. Give all hosts the same lists or "
            "folders, classes, weights and settings"
        )

    def _first_apart(self, fact: Fact) -> str:
        """In words, the first item of a fact that is not the same on all hosts; empty where it has none."""
        low, high = 0, max(self.share(fact.length))
        while high - low > 1:
            middle = (low + high) // 2
            same = len(set(self.share(fact.digest_of(low, middle)))) == 1
            low, high = (middle, high) if same else (low, middle)
        items = self.share(fact.item(low) if low < fact.length else "nothing")
        apart = (
            f", the first that differs being number {low + 1}: {items[0]} on host 0, {item} on host {host}"
            for host, item in enumerate(items)
            if high and item != items[0]
        )
        return next(apart, "")

    def _key(self, name: str) -> str:
        return f"{self._place}/{name}"

    def _get(self, name: str, in_flight: Any) -> str:
        """Wait for a value; not for ever, but until it comes or a host is known to be gone."""
        while True:
            try:
                return self._client.blocking_key_value_get(self._key(name), _MILLISECONDS_BETWEEN_LOOKS)
            except jax.errors.JaxRuntimeError as error:
                if "DEADLINE_EXCEEDED" not in str(error):
                    raise
            if in_flight is not None and in_flight.is_ready():
                in_flight.block_until_ready()  # Raises when the host that it needed is gone.
