"""When frames are shown, where all that is known is the order in which the decoder gives them."""

import numpy as np
from jaxtyping import Float64

# Frames by which the order of decoding and that of display can differ.
_REORDER = 16
# Times are rounded, at the coarsest to milliseconds.
_SAME_STEP, _ROUNDING = 0.05, 0.0011
# As a share of all frames.
_MOST = 0.9


def rising_times(
    shown: Float64[np.ndarray, " n"], decoded: Float64[np.ndarray, " m"], rate: float
) -> Float64[np.ndarray, " n"]:
    """Seconds for each frame, never falling; equal ones stay equal.

    Args:
      shown: what the file says of the frames, in the order in which they come out; NaN where it says nothing.
      decoded: times of decoding of its packets.
      rate: frames per second, for files that tell neither.
    """
    if np.isnan(shown).any():
        # Old AVI files tell the order of decoding only: as many frames, in another order.
        if len(decoded) != len(shown):
            return np.arange(len(shown)) / rate
        shown = np.sort(decoded)
    if not (np.diff(shown) < 0).any():
        return shown
    times = np.sort(_continued(shown, 1 / rate))
    steps = np.diff(times)
    # The rate may be that of fields, of which a frame has two.
    step = min(2, max(1, round(np.median(steps) * rate))) / rate
    repeats = not steps.all() and abs(np.median(steps) - step) < _SAME_STEP * step
    even = np.mean(np.abs(steps - step) < _ROUNDING) > _MOST and abs(steps.sum() - len(steps) * step) < step
    if repeats or even:
        # Program streams go back by a frame now and then, and copies shift the first ones.
        return times[0] + np.arange(len(times)) * step
    return times


def _continued(times: Float64[np.ndarray, " n"], step: float) -> Float64[np.ndarray, " n"]:
    """Times with what begins anew, as in files that were joined, put behind what was before."""
    times = times.copy()
    for position in np.flatnonzero(np.diff(times) < 0):
        after = times[position + 1 : position + 2 + _REORDER]
        if len(after) > _REORDER and (after < times[position]).all():
            times[position + 1 :] += times[: position + 1].max() + step - after.min()
    return times
