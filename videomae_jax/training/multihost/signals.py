"""SIGTERM and Ctrl-C as a request that the loop fulfils between two steps."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from signal import Signals
from types import FrameType


@dataclass
class StopRequest:
    """The signal that asked for a stop, if one came."""

    signal: Signals | None = None


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Note SIGTERM and SIGINT instead of dying of them; a second one ends the process at once."""
    request = StopRequest()
    wanted = (signal.SIGTERM, signal.SIGINT)

    def note(number: int, frame: FrameType | None) -> None:
        request.signal = Signals(number)
        said = f"\n{request.signal.name}: finishing this step and saving; once more ends it at once\n"
        os.write(2, said.encode())  # print may not be re-entered where it was interrupted.
        for each in wanted:
            signal.signal(each, signal.SIG_DFL)

    before = {each: signal.signal(each, note) for each in wanted}
    try:
        yield request
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
