"""The checkpoints of a run: asynchronous, atomic saves in numbered folders, and reading them back.

A work folder holds `checkpoints/<step>/`. Each step folder holds named trees of arrays (one is `params`) and
a JSON description of the run. Orbax writes into `<step>.orbax-checkpoint-tmp` and renames it when it is
whole, so a folder that is named by a number is complete.
"""

import logging
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from videomae_jax.checkpoints.trees import compare_trees
from videomae_jax.config import CheckpointConfig
from videomae_jax.errors import InputError, RunError
from videomae_jax.model_config import VideoMAEConfig

FOLDER = "checkpoints"
_MARKS = ("_CHECKPOINT_METADATA", "orbax.checkpoint")
"""What Orbax puts beside the trees of a step."""
_HALF_WRITTEN = ".orbax-checkpoint-tmp"
_HALF_DELETED = ".deleted"


def _is_not_reported_here(record: logging.LogRecord) -> bool:
    return not any(part in str(record.msg) for part in ("_SignalingThread", "Failed to get metadata"))


# Orbax logs failed saves with a stack trace for each thread, and a damaged step by what tensorstore says of
# each file; `wait` and `_damage_told` report them once.
logging.getLogger("absl").addFilter(_is_not_reported_here)


def list_steps(workdir: Path) -> list[int]:
    """Steps of the complete checkpoints in a work folder, ascending."""
    folder = workdir / FOLDER
    if not folder.is_dir():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if _is_step(path.name) and path.is_dir())


def _is_step(name: str) -> bool:
    return name.isdecimal() and str(int(name)) == name


def step_folder(workdir: Path, step: int) -> Path:
    """Where the checkpoint of a step is, or would be."""
    return workdir / FOLDER / str(step)


def is_run(source: Path) -> bool:
    """Whether it is a work folder with a checkpoint in it, its folder of checkpoints, or a step folder."""
    return is_step_folder(source) or bool(list_steps(_workdir(source)))


def is_step_folder(source: Path) -> bool:
    """Whether it is the folder of one step, whatever it is called now."""
    marks = any((source / name).exists() for name in _MARKS)
    return (source / "params").is_dir() and (marks or _is_step(source.name))


def _workdir(source: Path) -> Path:
    return source.parent if source.name == FOLDER else source


def find_step_folder(source: Path) -> Path:
    """The step folder meant by a work folder (its newest step) or by a step folder itself."""
    if is_step_folder(source):
        return source
    workdir = _workdir(source)
    if steps := list_steps(workdir):
        return step_folder(workdir, steps[-1])
    what = "has no checkpoint in it" if source.is_dir() else "does not exist"
    raise InputError(
        f"{source} {what}; pass a work folder (it has checkpoints/<step>) or one step folder of it"
    )


def find_evaluated_folder(source: Path) -> Path:
    """The step folder to use of a run: its best step where it kept one, else as `find_step_folder`."""
    folder = find_step_folder(source)
    if folder == source:
        return folder
    best = read_description(folder).get("best")
    kept = folder.with_name(str(best["step"])) if best else folder
    return kept if kept.is_dir() else folder


def read_description(step_folder: Path) -> dict[str, Any]:
    """The JSON description saved with a checkpoint: `config` and, of a run, `data`, `best`, `held_out`."""
    with _damage_told(step_folder):
        description = ocp.checkpointables_metadata(step_folder.absolute()).custom_metadata
    if not isinstance(description, dict) or "model" not in description.get("config", {}):
        raise InputError(f"{step_folder} has no description of its run; it was not written by videomae-jax")
    return description


def read_model(step_folder: Path) -> VideoMAEConfig:
    """The configuration of the model whose checkpoint it is."""
    description = read_description(step_folder)
    try:
        return VideoMAEConfig(**description["config"]["model"])
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{step_folder} describes a model that this version does not know: {error}. It was written by "
            f"version {description.get('version', 'unknown')}: use that one, or a newer one"
        ) from error


def read_params(source: Path) -> tuple[VideoMAEConfig, dict[str, Any]]:
    """Model configuration and parameters (host arrays) of a work folder or a step folder.

    A work folder means its best step where it kept one, else its newest. Where the run kept an average of
    its parameters, that is what is read.
    """
    folder = find_evaluated_folder(source)
    config = read_model(folder)
    name = "ema" if (folder / "ema").is_dir() else "params"
    with _damage_told(folder):
        saved = _saved(folder.absolute(), name)
        shapes = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), saved)
        params = ocp.load_checkpointables(folder.absolute(), {name: shapes})[name]
    return config, params


def _saved(step_folder: Path, name: str) -> Any:
    """What is saved as a tree, with shape and dtype; Orbax returns nothing where files of it are gone."""
    saved = ocp.metadata(step_folder, name).metadata
    if not jax.tree.leaves(saved):
        raise FileNotFoundError(f"nothing can be read in {name}/")
    return saved


@contextmanager
def _damage_told(step_folder: Path) -> Iterator[None]:
    """Turn whatever Orbax and tensorstore say of a step folder that lacks files into one sentence."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # Damage is named in as many ways as there are files.
        first: BaseException = error
        while (earlier := first.__cause__ or first.__context__) is not None:
            first = earlier
        reason = (str(first).strip() or "a file of it is missing").splitlines()[0][:200]
        older = [step for step in list_steps(step_folder.parents[1]) if step_folder.name != str(step)]
        hint = "and its work folder has no other step"
        if older:
            hint = (
                f"name another step, such as {step_folder.with_name(str(older[-1]))}, or move this one out "
                "of its work folder to continue from the step before it"
            )
        raise InputError(f"{step_folder} is damaged or was not copied whole ({reason}): {hint}") from error


def restore(step_folder: Path, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Read trees onto the shardings of the abstract trees given, by the names under which they were saved.

    Raises InputError naming every missing, unexpected and mis-shaped path; Orbax alone pads or crops some.
    """
    path = step_folder.absolute()
    with _damage_told(step_folder):
        for name, tree in wanted.items():
            compare_trees(step_folder / name, _saved(path, name), tree)
        return ocp.load_checkpointables(path, dict(wanted))


def _remove_half_written(folder: Path) -> None:
    """Remove what a failed save has left, though some of its files may still be written for a moment."""
    for _ in range(50):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.1)


class CheckpointWriter:
    """Saves of one run: one at a time, none dropped, old ones removed once a newer one is complete.

    With several hosts, each has one on the same folder and makes the same calls; only the first removes.
    """

    def __init__(self, workdir: Path, config: CheckpointConfig) -> None:
        self._workdir = workdir.absolute()
        self._config = config
        self._removes = jax.process_index() == 0
        self._in_flight: tuple[int, Any] | None = None
        self._best: int | None = None
        self._newest = max(list_steps(workdir), default=None)
        """The last step that is known to be saved, for all hosts the same."""
        if self._removes:
            for path in (workdir / FOLDER).glob("*"):
                if path.name.endswith((_HALF_WRITTEN, _HALF_DELETED)):
                    shutil.rmtree(path)

    def save(self, step: int, trees: Mapping[str, Any], description: dict[str, Any]) -> None:
        """Start saving trees of arrays under `step`; waits for a save in flight first.

        The arrays are copied before this returns, so they may be donated afterwards. The step that the
        description calls the best is not removed later.
        """
        self.wait()
        self._best = (description.get("best") or {}).get("step")
        if step == self._newest:
            return
        path = step_folder(self._workdir, step)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._in_flight = (
                step,
                ocp.save_checkpointables_async(path, dict(trees), custom_metadata=description),
            )
        except Exception as error:
            raise self._failure(step, error) from error

    def wait(self, timeout: float | None = None) -> None:
        """Wait for the save in flight, for good or so many seconds, 0 to notice only whether it has ended.

        Raises RunError when it failed.
        """
        if self._in_flight is None:
            return
        step, response = self._in_flight
        try:
            response.result(timeout=timeout)
        except TimeoutError:
            if timeout is not None:
                return
            raise
        except Exception as error:
            self._in_flight = None
            raise self._failure(step, error) from error
        self._in_flight, self._newest = None, step
        if not self._removes:
            return
        if step not in list_steps(self._workdir):
            raise self._failure(step, FileNotFoundError("it was reported as saved but is not there"))
        self._remove_old()

    def _failure(self, step: int, error: Exception) -> RunError:
        """What to tell of a failed save; its half-written folder is removed to give the space back."""
        path = step_folder(self._workdir, step)
        if self._removes:
            _remove_half_written(path.with_name(path.name + _HALF_WRITTEN))
        steps = list_steps(self._workdir)
        kept = f"the checkpoint of step {steps[-1]} is intact" if steps else "there is no earlier checkpoint"
        free = shutil.disk_usage(self._workdir).free / 1e9
        return RunError(
            f"the checkpoint {path} could not be written: {error}. {kept}; {free:.1f} GB are free on its "
            "disk. Make room, or lower --checkpoint.keep-last, and run the same command again to continue."
        )

    def _remove_old(self) -> None:
        """Keep the last N, the best, each multiple of keep_every_steps; renaming makes a removal atomic."""
        every = self._config.keep_every_steps
        for step in list_steps(self._workdir)[: -self._config.keep_last]:
            if step != self._best and (every is None or step % every):
                path = step_folder(self._workdir, step)
                shutil.rmtree(path.rename(path.with_name(path.name + _HALF_DELETED)))
