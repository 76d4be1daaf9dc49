"""SIGTERM and Ctrl-C as a wish that the loop fulfils between two steps."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from signal import Signals
from types import FrameType


@dataclass
class StopWish:
    """The signal that asked for a stop, if one came."""

    signal: Signals | None = None


@contextmanager
def stop_on_signals() -> Iterator[StopWish]:
    """Note SIGTERM and SIGINT instead of dying of them; a second one ends the process at once."""
    wish = StopWish()
    wanted = (signal.SIGTERM, signal.SIGINT)

    def note(number: int, frame: FrameType | None) -> None:
        wish.signal = Signals(number)
        said = f"\n{wish.signal.name}: finishing this step and saving; once more ends it at once\n"
        os.write(
            2, said.encode()
        )  # print may be interrupted in the middle of printing, and may not be re-entered
        for each in wanted:
            signal.signal(each, signal.SIG_DFL)

    before = {each: signal.signal(each, note) for each in wanted}
    try:
        yield wish
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
