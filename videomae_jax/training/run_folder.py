"""The files of a run beside its checkpoints: the lock, the rows of metrics and skipped videos, the settings.

metrics.jsonl   one row per logged step            skipped.jsonl    one row per video that could not be read
hours.jsonl     seconds by what they went to       nonfinite.json   the batches on which a run gave up
settings.json   the settings of the latest start
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from videomae_jax.checkpoints.trees import flatten
from videomae_jax.config import FREE_ON_RESUME, ONLY_ROUNDING, FinetuneConfig, PretrainConfig, RunConfig
from videomae_jax.errors import InputError, RunError
from videomae_jax.files import write_text
from videomae_jax.model_config import VideoMAEConfig

METRICS = "metrics.jsonl"
SKIPPED = "skipped.jsonl"
HOURS = "hours.jsonl"
NONFINITE = "nonfinite.json"
SETTINGS = "settings.json"


class Rows:
    """A file of JSON rows with ascending `step`, cut back to the step from which a run continues."""

    def __init__(self, path: Path, last_step: int) -> None:
        self._path = path
        self.kept = [row for row in read_rows(path) if row["step"] <= last_step]
        self._rewrite(self.kept)

    def _rewrite(self, rows: list[dict[str, Any]]) -> None:
        write_text(self._path, "".join(json.dumps(row) + "\n" for row in rows))
        self._file = self._path.open("a")

    def replace_last(self, row: dict[str, Any]) -> None:
        """Put another row in the place of the last one kept, before any is written."""
        self._file.close()
        self._rewrite([*self.kept[:-1], row])

    def write(self, row: Mapping[str, Any]) -> None:
        """Append one row and hand it to the operating system, so that it outlives a killed process."""
        try:
            self._file.write(json.dumps(row) + "\n")
            self._file.flush()
        except OSError as error:
            raise RunError(
                f"{self._path} could not be written: {error.strerror}; fix that and run the same command "
                "again to continue from the last checkpoint"
            ) from error

    def close(self) -> None:
        """Close the file; a row that could not be written was reported by `write`."""
        with suppress(OSError):
            self._file.close()


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON-lines file; none without a file. A last line cut short by a kill is left out.

    Raises InputError, with its number, for a line that is not a row.
    """
    if not path.exists():
        return []
    lines = path.read_text(errors="replace").split("\n")[:-1]
    return [_row(path, number, line) for number, line in enumerate(lines, start=1)]


def _row(path: Path, number: int, line: str) -> dict[str, Any]:
    with suppress(ValueError):
        row = json.loads(line)
        if isinstance(row, dict) and type(row.get("step")) is int:
            return row
    raise InputError(
        f"{path}, line {number}, is not a row of a run but {line[:80]!r}: the file was damaged or edited. "
        "Remove that line, or move the file away, and run the same command again: no checkpoint needs it"
    )


def describe(config: RunConfig) -> dict[str, Any]:
    """The settings as plain JSON values."""
    return json.loads(json.dumps(asdict(config)))


def check_same_run(saved: Mapping[str, Any], now: Mapping[str, Any], workdir: Path) -> None:
    """Raise InputError, with what changed, unless `now` continues the run described by `saved`.

    Both have `config` and `data` (`digest`, `videos`). Videos count by their digest, so lists may move.
    A setting that the saved run does not know, because it is newer, had today's default.
    """
    if "data" not in saved:
        raise InputError(
            f"{workdir} holds converted weights and no run that could be continued: name another --workdir, "
            f"and start from these weights with --init-from {workdir}"
        )
    before, after = _defaults(saved["config"]) | flatten(saved["config"]), flatten(now["config"])
    changes = [
        f"  {name}: {before.get(name, 'absent')} -> {after.get(name, 'absent')}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name) and name != "data.train" and not _is_free(name)
    ]
    if saved["data"]["digest"] != now["data"]["digest"]:
        changes.append(
            f"  data.train: other videos ({saved['data']['videos']} in {before['data.train']} -> "
            f"{now['data']['videos']} in {after['data.train']})"
        )
    if changes:
        raise InputError(
            f"{workdir} holds a run with other settings:\n" + "\n".join(changes) + "\nGive the old values to "
            "continue it, another --workdir to start anew, or --init-from to start anew from its weights."
        )


def changed_draws(saved: Mapping[str, Any]) -> str:
    """How the videos differ from those that the run described by `saved` began with; empty if they do not."""
    num_sample = saved["config"]["data"]["num_sample"]
    if num_sample == 1 or saved["data"].get("samples") == "of one clip":
        return ""
    return (
        f"This run began with a version that drew other frames for each of the data.num_sample={num_sample} "
        "clips of a video. From here on one clip is drawn and augmented as often, as in the original."
    )


def changed_arithmetic(saved: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """How the arithmetic differs from that of the run described by `saved`; empty if it does not.

    Both may have `arithmetic`, what the machine made of the settings that leave it the choice.
    """
    before, after = _defaults(saved["config"]) | flatten(saved["config"]), flatten(now["config"])
    changes = [
        f"{name} {before[name]} -> {after[name]}" for name in ONLY_ROUNDING if before[name] != after[name]
    ]
    earlier = {"data.pixels": "rgb"} | saved.get("arithmetic", {})  # There was nothing else at first.
    for name, value in now["arithmetic"].items():
        was, setting = earlier.get(name, value), name if "." in name else f"model.{name}"
        if was != value and before[setting] == after[setting]:
            changes.append(f"{setting} {after[setting]}, which was {was}, is {value} on this machine")
    if not changes:
        return ""
    said = (
        f"From here on steps are computed in another way, which changes only rounding: {'; '.join(changes)}."
    )
    if any(change.startswith("data.pixels") for change in changes):
        said += " Pixels come from another converter and differ by about a grey level."
    if before["optim.accumulation_steps"] == after["optim.accumulation_steps"]:
        return said
    draws = "augmentation, mixing and dropout" if "augment" in now["config"] else "the masks of validation"
    return f"{said} Each part of a batch draws for itself, so {draws} are drawn anew."


def _defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    kind = FinetuneConfig if "augment" in config else PretrainConfig
    return flatten(describe(kind(VideoMAEConfig())))


def _is_free(name: str) -> bool:
    return any(name == free or name.startswith(free + ".") for free in FREE_ON_RESUME)
