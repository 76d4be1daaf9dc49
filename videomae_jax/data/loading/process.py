"""A worker process seen from its owner: started without the caller's script, and never waited for in vain.

The worker is a fresh interpreter that imports this module and nothing of the owner's main script. It gets its
task and all else through a pipe that nobody else holds, so that its death, at any moment, is the end of the
pipe. Its standard input is the owner's life: when that ends, however it ended, the worker goes too.
"""

import os
import pickle
import signal
import subprocess
import sys
import threading
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

_START = f"import sys; sys.path[:] = sys.argv[2:]; from {__name__} import run; run(sys.argv[1])"


class WorkerDied(RunError):
    """A worker process ended by itself; `exit_code` is minus the signal that killed it, where one did."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(
            f"a worker process died (exit code {exit_code}). Exit code -9 mostly means that memory ran out: "
            "use fewer with --num-workers (--data.num-workers in training). Exit code -11 is a crash, "
            "perhaps of the decoder: videomae-jax check-data LIST says over which video."
        )
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
        """Start it, with these file descriptors open in it too."""
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

    def receive(self) -> Any:
        """What the task sends next; raises what it raised, or WorkerDied."""
        try:
            received = self.pipe.recv()
        except (EOFError, ConnectionError):
            raise WorkerDied(self._process.wait()) from None
        if not isinstance(received, _Raised):
            return received
        if received.error is None:
            raise RunError(f"a worker process failed:\n{received.text.rstrip()}")
        if isinstance(received.error, InputError | RunError):
            raise received.error
        raise received.error from _WorkerTraceback(received.text)

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
            _send_failure(pipe, error)
        while True:  # What it has sent could be lost if it went first.
            pipe.recv()


def _end_with_owner() -> None:
    os.read(0, 1)
    os._exit(1)
