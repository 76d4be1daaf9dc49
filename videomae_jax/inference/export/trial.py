"""A file that was exported, run in a process that knows neither this package nor Flax, beside JAX itself."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jax
import numpy as np
from jaxtyping import Float32, UInt8

from videomae_jax.errors import RunError
from videomae_jax.inference.export.formats import FORMS, Format
from videomae_jax.inference.export.stablehlo import classifier
from videomae_jax.inference.normalization import Normalization
from videomae_jax.model_config import VideoMAEConfig

TOLERANCE = 1e-4
"""By how much logits may differ, where they are below 1; above, by as much of the largest."""
_TIMES, _AT_ONCE = 3, 4
"""How often a clip is scored to measure the time, and how many clips are scored at once."""
_SCRIPT = """
import statistics, sys, time
import numpy as np
FILE, clips_file, out = sys.argv[1:]
{example}
clips = np.load(clips_file)
together, one_by_one = (
    np.concatenate([score(clips[n : n + size]) for n in range(0, len(clips), size)])
    for size in ({at_once}, 1)
)
seconds = []
for _ in range({times}):
    began = time.perf_counter()
    score(clips[:1])
    seconds.append(time.perf_counter() - began)
foreign = {{"flax", "videomae_jax", "torch"}} & set(sys.modules)
assert not foreign, f"it needed {{foreign}}"
np.savez(out, together=together, one_by_one=one_by_one, seconds=statistics.median(seconds))
"""
Clips = UInt8[np.ndarray, "b T H W c"]
Logits = Float32[np.ndarray, "b y"]


@dataclass(frozen=True)
class Trial:
    """How a file does on some clips, four at once and one by one, beside JAX on the same processor."""

    clips: int
    difference: float
    """The largest of all logits."""
    same_best: int
    """Clips with the same best class."""
    seconds: float
    """For one clip."""
    jax_seconds: float


def logits_on_cpu(
    config: VideoMAEConfig, normalization: Normalization, params: Any, clips: Clips
) -> tuple[Logits, float]:
    """What JAX gives for clips in float32 on this machine's processor, and its seconds for one."""
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        params = jax.tree.map(np.asarray, params)
        score = jax.jit(classifier(config, normalization))
        logits = np.concatenate([np.asarray(score(params, clip[None])) for clip in clips])
        return logits, _median_seconds(lambda: np.asarray(score(params, clips[:1])))


def _median_seconds(call: Callable[[], Any]) -> float:
    taken = []
    for _ in range(_TIMES):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def try_out(file: Path, form: Format, clips: Clips, wanted: Logits, jax_seconds: float) -> Trial:
    """Score clips with a file as its users would. Raises RunError where it does not run."""
    if len(clips) == 1:
        clips, wanted = clips.repeat(2, 0), wanted.repeat(2, 0)  # A batch of another size than 1.
    script = _SCRIPT.format(example=FORMS[form].example, times=_TIMES, at_once=_AT_ONCE)
    with TemporaryDirectory() as folder:
        given, out = Path(folder, "clips.npy"), Path(folder, "logits.npz")
        np.save(given, clips)
        words = [sys.executable, "-I", "-c", script, str(file.absolute()), str(given), str(out)]
        ended = subprocess.run(words, capture_output=True, text=True, cwd=folder, env=_environment())
        if ended.returncode:
            said = (ended.stderr.strip() or f"exit code {ended.returncode}").splitlines()[-1]
            raise RunError(f"the {form} file was written, but does not run: {said}")
        with np.load(out) as found:
            results, seconds = [found["together"], found["one_by_one"]], float(found["seconds"])
    if shapes := {each.shape for each in results} - {wanted.shape}:
        raise RunError(f"the {form} file gives logits of the shape {shapes.pop()} and not {wanted.shape}")
    difference = max(float(np.abs(each - wanted).max()) for each in results)
    same = np.logical_and.reduce([each.argmax(1) == wanted.argmax(1) for each in results])
    return Trial(len(clips), difference, int(same.sum()), seconds, jax_seconds)


def _environment() -> dict[str, str]:
    """This process may hold the accelerator, which serves one at a time."""
    return os.environ | {"JAX_PLATFORMS": "cpu"}
