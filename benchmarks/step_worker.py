"""One implementation of one case in a process of its own; benchmarks/step.py starts it and talks to it.

    python benchmarks/step_worker.py IMPLEMENTATION CASE FOLDER [CORE]

It prints a line of JSON when it has taken its first steps, one for each line on its standard input that says
how many steps to take, and a last one, with its peak memory, when the input ends.
"""

import ctypes
import json
import os
import sys
import time
from pathlib import Path

from step_case import Case, forget_peak, resident_peak


def say(**what: object) -> None:
    print(json.dumps(what), flush=True)


def main(implementation: str, name: str, folder: str, core: str | None = None) -> None:
    if core is not None:
        os.sched_setaffinity(0, {int(core)})
    case = Case.parse(name)
    started = time.perf_counter()
    how, _, attention = implementation.partition("-")
    if how == "ours":
        from videomae_jax.allocator import keep_freed_memory

        keep_freed_memory()  # As the commands do.
        from step_ours import Ours

        side = Ours(case, Path(folder), attention or "auto")
    else:
        from step_theirs import Theirs

        side = Theirs(case, Path(folder), how, attention)
    number = side.steps(1)
    side.steps(1)
    peak_before = resident_peak()
    # What loading and compiling took is no part of a step, nor is freed memory that malloc has kept.
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    forget_peak()
    say(
        number=number,
        attention=side.attention,
        compile_s=side.compile_s,
        ready_s=time.perf_counter() - started,
        device=side.device,
        versions=side.versions,
    )
    for line in sys.stdin:
        count, wall, cpu = int(line), time.perf_counter(), time.process_time()
        side.steps(count)
        say(seconds=(time.perf_counter() - wall) / count, cpu=(time.process_time() - cpu) / count)
    step_peak = resident_peak()
    say(step_peak=step_peak, process_peak=max(step_peak, peak_before), device_peak=side.device_peak)


if __name__ == "__main__":
    main(*sys.argv[1:])
