"""Has a step compiled in a process of its own, as only one slice can be named in each."""

import importlib.util
import json
import os
import pickle
import re
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from importlib.metadata import requires
from pathlib import Path

import jax

from videomae_jax.errors import InputError, RunError
from videomae_jax.plan.program import Compiled, Step
from videomae_jax.plan.topology import Slice, Target
from videomae_jax.versions import version_of

ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",  # Asks no cloud which machine this is.
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # Takes no device, so it need not wait for whoever has one.
    "TPU_STDERR_LOG_LEVEL": "3",
}
SECONDS_BETWEEN_WORDS = 10.0


def compile_elsewhere(step: Step) -> Compiled:
    """Compile a step in another process.

    Raises InputError where the compiler, or a part of it, is missing, RunError where it failed for another
    reason than that the step does not fit.
    """
    _check_compiler(step.target)
    with tempfile.TemporaryDirectory(prefix="videomae_jax_plan_") as folder:
        given, result = Path(folder, "step.pickle"), Path(folder, "compiled.json")
        given.write_bytes(pickle.dumps(step))
        command = [sys.executable, "-m", "videomae_jax.plan.compiler", str(given), str(result)]
        what = f"compiling the {step.kind} step for {step.target.topology}"
        code, said = _run(command, what)
        if not result.exists():
            if missing := next((what for words, what in _MISSING.items() if re.search(words, said)), None):
                raise InputError(missing)
            said = "\n".join(said.strip().splitlines()[-15:])
            raise RunError(f"{what} ended with exit code {code}:\n{said}")
        return Compiled.from_json(json.loads(result.read_text("utf-8")))


_FOR_GPUS = (
    "plan needs XLA's compiler for GPUs, though no GPU: install videomae-jax with the extra gpu-plan, or "
    'pip install "jax[cuda13-local]" nvidia-cuda-nvcc'
)
_MISSING = {
    "topology not implemented for cuda": "JAX does not take the CUDA plugin that is installed, as where its "
    'version is not that of jax: pip install "jax[cuda13-local]"',
    "No PTX compilation provider|libdevice not found": _FOR_GPUS,
    r"cuDNN (?:is )?not (?:found|detected)": "JAX asks for cuDNN's version before it compiles attention: "
    "pip install --no-deps nvidia-cudnn-cu13, or set --model.attention xla",
}
"""What to do about a part of a compiler that is missing or does not fit, by what it says then."""


def _check_compiler(where: Target) -> None:
    if isinstance(where, Slice):
        if importlib.util.find_spec("libtpu") is None:
            raise InputError('plan needs the TPU compiler, though no TPU: pip install "jax[tpu]"')
        if asked := _newer_asked_for():
            raise InputError(
                f"plan needs the TPU compiler libtpu {asked} beside jax {jax.__version__}, and "
                f'{version_of("libtpu")} is installed: pip install "jax[tpu]=={jax.__version__}"'
            )
    elif not _has_cuda_plugin():
        raise InputError(_FOR_GPUS)


def _newer_asked_for() -> str | None:
    """The version of the TPU compiler that JAX asks for, where the one here is older: it would crash, or end
    in an error after minutes."""
    asked = re.search(r"libtpu==([\d.]*\d)", " ".join(requires("jax") or ()))
    here = re.match(r"[\d.]*\d", version_of("libtpu"))
    older = asked and here and _parts(here[0]) < _parts(asked[1])
    return asked[1] if asked and older else None


def _parts(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


def _has_cuda_plugin() -> bool:
    if importlib.util.find_spec("jax_plugins") is None:
        return False
    plugins = ("jax_plugins.xla_cuda13", "jax_plugins.xla_cuda12")
    return any(importlib.util.find_spec(each) is not None for each in plugins)


def _run(command: list[str], what: str) -> tuple[int, str]:
    """Run a command, saying on stderr how long it has taken so far; its exit code and what it wrote there."""
    print(f"{what}: from ten seconds to some minutes", file=sys.stderr, flush=True)
    began, environment = time.monotonic(), os.environ | ENVIRONMENT
    with ExitStack() as undo:
        its_input, ours = os.pipe()  # The end of its input ends it, also where a signal ended this process.
        undo.callback(os.close, ours)
        try:
            process = subprocess.Popen(
                command,
                env=environment,
                stdin=its_input,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
            )
        finally:
            os.close(its_input)
        undo.enter_context(process)
        try:
            while True:
                try:
                    said = process.communicate(timeout=SECONDS_BETWEEN_WORDS)[1]
                    return process.returncode, said
                except subprocess.TimeoutExpired:
                    print(f"{what}: {time.monotonic() - began:.0f} s so far", file=sys.stderr, flush=True)
        finally:
            process.kill()  # Where it was interrupted; else it has ended.
