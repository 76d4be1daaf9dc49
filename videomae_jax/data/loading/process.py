"""A worker process seen from its owner: started without the caller's script, and never waited for in vain.

The worker is a fresh interpreter that imports this module and nothing of the owner's main script. It gets its
task and all else through a pipe that nobody else holds, so that its death, at any moment, is the end of the
pipe. Its standard input is the owner's life: when that ends, however it ended, the worker goes too.
"""

import errno
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack, suppress
from io import BytesIO
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from types import FunctionType
from typing import Any, NamedTuple

from videomae_jax.errors import InputError, RunError

SECONDS_BEFORE_A_WORD = 60
"""A worker that has work and has sent nothing for this long is named on stderr."""
_START = f"import sys; sys.path[:] = sys.argv[2:]; from {__name__} import run; run(sys.argv[1])"
_SECONDS_TO_END = 2
"""Time that a worker whose pipe has ended has to end itself."""
_NO_MEMORY = errno.ENOMEM
"""Exit code of a worker that was refused memory."""
_FEWER = "use fewer worker processes with --num-workers (--data.num-workers in training)"


class WorkerDied(RunError):
    """A worker process ended by itself; `exit_code` is minus the signal that killed it, where one did."""

    def __init__(self, exit_code: int) -> None:
        if exit_code == -signal.SIGKILL:
            why = f"mostly because memory ran out: {_FEWER}"
        elif exit_code == _NO_MEMORY:
            why = f"because memory ran out: {_FEWER}"
        elif exit_code < 0:
            why = "a crash, perhaps of the decoder: videomae-jax check-data LIST says over which video"
        else:
            why = "where it had anything to say, it stands above"
        super().__init__(f"a worker process died (exit code {exit_code}), {why}")
        self.exit_code = exit_code


class _WorkerTraceback(Exception):
    """Where in the worker an exception was raised, as text: it stands behind that exception as its cause."""

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


class _Raised(NamedTuple):
    """What a worker sends in place of a result."""

    error: Exception | None
    """None where it cannot be sent; the text then stands in for it."""
    text: str


def make_task(work: Callable[..., None], *arguments: Any) -> bytes:
    """A task for `Process.begin`, to be made once for several workers: `work(pipe, *arguments)`.

    Raises InputError for what is defined where no worker finds it.
    """
    return pickle_for_workers((work, arguments))


def pickle_for_workers(thing: Any) -> bytes:
    """What a worker can unpickle; raises InputError as `make_task` does."""
    file = BytesIO()
    _Pickler(file, pickle.HIGHEST_PROTOCOL).dump(thing)
    return file.getvalue()


class _Pickler(ForkingPickler):
    def reducer_override(self, thing: Any) -> Any:
        if isinstance(thing, type | FunctionType) and thing.__module__ == "__main__":
            raise InputError(
                f"{thing.__qualname__} is defined in the script that was started, which worker processes do "
                "not run: put it into a module and import it from there"
            )
        return NotImplemented


class Process:
    """A worker process, from its start on; it waits for a task. Close it in any case."""

    def __init__(self, *files: int) -> None:
        """Start it, with these file descriptors open in it too; raises RunError where the system refuses."""
        try:
            self._start(files)
        except OSError as error:
            raise RunError(f"a worker process could not be started ({error}): {_FEWER}") from error
        self.expect()

    def _start(self, files: tuple[int, ...]) -> None:
        self.pipe, its_end = Pipe()
        command = [sys.executable, "-c", _START, str(its_end.fileno()), *sys.path]
        # It inherits blocked signals, so that Ctrl-C and SIGTERM reach only the owner, which then closes it.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        with ExitStack() as undo:
            undo.callback(self.pipe.close)
            try:
                self._process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, pass_fds=(its_end.fileno(), *files)
                )
                undo.callback(self.close)
            finally:
                its_end.close()
                signal.pthread_sigmask(
                    signal.SIG_SETMASK, mask
                )  # A Ctrl-C that came meanwhile is raised here.
            undo.pop_all()

    @property
    def pid(self) -> int:
        return self._process.pid

    def begin(self, task: bytes) -> None:
        """Hand over a task, waiting until the worker has started; one that died is told by `receive`."""
        with suppress(ConnectionError):
            self.pipe.send_bytes(task)

    def send(self, message: Any) -> None:
        """Send what the task receives from its pipe; see `begin`."""
        with suppress(ConnectionError):
            self.pipe.send_bytes(pickle.dumps(message, pickle.HIGHEST_PROTOCOL))

    def expect(self) -> None:
        """From now on it has work; see `say_if_silent`."""
        self._heard, self._told = time.monotonic(), 0.0

    def say_if_silent(self) -> None:
        """Name it on stderr where it has work and has sent nothing for long, at most once in that time."""
        silent = time.monotonic() - self._heard
        if silent - self._told >= SECONDS_BEFORE_A_WORD:
            self._told = silent
            print(
                f"videomae-jax: data worker process {self.pid} has sent nothing for {silent:.3g} s; is the "
                "storage stuck, or the process stopped? Still waiting for it.",
                file=sys.stderr,
                flush=True,
            )

    def receive(self) -> Any:
        """What the task sends next; raises what it raised, or WorkerDied."""
        try:
            received = self.pipe.recv()
        except (EOFError, ConnectionError):
            raise WorkerDied(self._exit_code()) from None
        self.expect()
        if not isinstance(received, _Raised):
            return received
        if received.error is None:
            raise RunError(f"a worker process failed:\n{received.text.rstrip()}")
        if isinstance(received.error, InputError | RunError):
            raise received.error
        traceback_ = _WorkerTraceback(received.text)
        if isinstance(received.error, ImportError):
            raise RunError(f"a worker process could not start: {received.error}") from traceback_
        raise received.error from traceback_

    def _exit_code(self) -> int:
        """That of a worker whose pipe has ended, which a crash in a library may do to one that goes on."""
        try:
            return self._process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def kill(self) -> None:
        """End it, whatever it does: it holds nothing that anybody else needs."""
        self._process.kill()

    def close(self) -> None:
        """End it, and free what its owner has of it."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()
        self.pipe.close()


def _send_failure(pipe: Connection, error: Exception) -> None:
    """Let `Process.receive` raise this exception, or show it as text where it does not survive pickling."""
    text = "".join(traceback.format_exception(error))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        pipe.send(_Raised(None, text))
    else:
        pipe.send(_Raised(error, text))


def run(pipe_number: str) -> None:
    """The life of a worker process: one task."""
    threading.Thread(target=_end_with_owner, daemon=True).start()
    pipe = Connection(int(pipe_number))
    with suppress(EOFError, ConnectionError):  # The owner is gone, however that ended.
        try:
            work, arguments = pipe.recv()
            work(pipe, *arguments)
        except Exception as error:
            if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
                os._exit(_NO_MEMORY)  # To say more would take memory.
            _send_failure(pipe, error)
        while True:  # What it has sent could be lost if it went first.
            pipe.recv()


def _end_with_owner() -> None:
    os.read(0, 1)
    os._exit(1)
