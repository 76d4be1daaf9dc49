"""A trace of some steps of a run, for TensorBoard, xprof and Perfetto."""

import re
from pathlib import Path
from typing import Any

import jax

from videomae_jax.errors import InputError


class Profile:
    """Records what devices and host do from the beginning of one step to the end of another.

    The trace goes to `profile/` of the work folder. Only its first and last step wait for the devices.
    """

    def __init__(self, steps: str | None, workdir: Path) -> None:
        """`steps` is FIRST:LAST, counted from 1; None for no trace. Raises InputError for anything else."""
        found = re.fullmatch(r"(\d+):(\d+)", steps or "0:0")
        self._first, self._last = (int(found[1]), int(found[2])) if found else (0, 0)
        if steps and not 1 <= self._first <= self._last:
            raise InputError(
                f"--profile-steps {steps} must be FIRST:LAST, steps counted from 1, such as 10:15"
            )
        self._folder, self._running = workdir / "profile", False

    def check(self, step: int, total_steps: int) -> None:
        """Raise InputError when a run at `step` will not take the steps of the trace."""
        if self._last and not step < self._first <= self._last <= total_steps:
            raise InputError(
                f"--profile-steps {self._first}:{self._last} must lie in the steps that are left, {step + 1} "
                f"to {total_steps}"
            )

    def reach(self, step: int, state: Any) -> None:
        """Begin or end the trace where `step` is about to be handed over; `state` is what came before it."""
        if step == self._first:
            jax.block_until_ready(state)
            options = jax.profiler.ProfileOptions()
            options.python_tracer_level = 0  # Every Python call would drown the rest.
            jax.profiler.start_trace(self._folder, create_perfetto_trace=True, profiler_options=options)
            self._running = True
        elif self._running and step == self._last + 1:
            jax.block_until_ready(state)
            self.close()

    def close(self) -> None:
        """Write the trace of the steps that were taken."""
        if self._running:
            self._running = False
            jax.profiler.stop_trace()
