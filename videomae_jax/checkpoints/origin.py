"""Where weights come from, as far as the place that they are read from says it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from videomae_jax.checkpoints import orbax
from videomae_jax.checkpoints.hugging_face import CARD, find_folder
from videomae_jax.errors import InputError
from videomae_jax.files import read_json

NON_COMMERCIAL = "cc-by-nc-4.0"
"""The licence of the weights that MCG-NJU and OpenGVLab published, as the hub spells it."""
RECORD = "conversion.json"
"""What a conversion writes beside its result, about where that came from."""
_PUBLISHED = re.compile(r"(?:^|models--)(?:MCG-NJU|OpenGVLab)(?:/|--)")
_LICENCE = re.compile(r"^license: *[\"']?([\w.-]+)", re.MULTILINE)


@dataclass(frozen=True)
class Origin:
    """What is known of weights."""

    source: str
    """The checkpoint, as it was named."""
    licence: str | None = None
    """An identifier such as cc-by-nc-4.0; None where nothing says it."""
    facts: tuple[tuple[str, str], ...] = ()
    """What a run says of itself: a name and a value for each."""

    @property
    def short(self) -> str:
        """The source as others may read it: of a path from the root, the last name."""
        return _short(self.source)


def origin_of(source: str | Path, revision: str | None = None, subfolder: str = "") -> Origin:
    """The origin of a checkpoint of any kind that was read already: no hub is asked."""
    path = Path(source, subfolder)
    if _PUBLISHED.search(str(source)) or any(map(_PUBLISHED.match, path.parts)):
        return Origin(str(source), NON_COMMERCIAL)
    if path.is_dir() and orbax.is_run(path):
        return _of_run(str(source), path)
    if path.is_file():
        return Origin(str(source), _of_record(path.with_name(f"{path.name}.{RECORD}")))
    try:
        folder = find_folder(str(source), revision, (CARD,), subfolder, local_files_only=True)
    except InputError:
        return Origin(str(source))
    return Origin(str(source), _of_card(folder / CARD) or _of_config(folder / "config.json"))


def _of_run(source: str, path: Path) -> Origin:
    """Of a work folder or a step folder."""
    folder = orbax.find_evaluated_folder(path)
    said = orbax.read_description(folder)
    workdir = folder.parents[1]
    licence = _of_record(workdir / RECORD)
    if not said.get("data"):  # Converted weights.
        return Origin(source, licence)
    start = said["config"].get("init_from")
    licence = licence or (origin_of(start).licence if start else None)
    return Origin(source, licence, (*_training(said, folder.name), *_test(workdir, folder.name)))


def _training(said: Mapping[str, Any], step: str) -> list[tuple[str, str]]:
    """How the run described was trained, up to a step; what an older version did not say is left out."""
    config, best = said["config"], said.get("best")
    lists = ", ".join(Path(each).name for each in config.get("data", {}).get("train", ()))
    facts = [
        ("trained by", "fine-tuning" if "augment" in config else "pre-training without labels"),
        ("started from", _short(config.get("init_from") or "random weights")),
        ("videos", f"{said['data'].get('videos', '')} of {lists}" if lists else ""),
        ("step", step),
        ("batch size", str(config.get("batch_size", ""))),
        ("epochs asked for", str(config.get("epochs", ""))),
        ("best validation accuracy", f"{best['score']:.1%}" if best and str(best["step"]) == step else ""),
        *((name.replace("_", " "), f"{value:.4g}") for name, value in (said.get("held_out") or {}).items()),
        ("command", f"`{said['command']}`" if "command" in said else ""),
    ]
    return [(name, value) for name, value in facts if value]


def _test(workdir: Path, step: str) -> list[tuple[str, str]]:
    """The accuracies of the test at the end of a run, where it was of this step."""
    said = _json(workdir / "test" / "evaluation.json")
    if str(said.get("checkpoint", {}).get("step")) != step:
        return []
    views = f"{said['views']['num_segments']} x {said['views']['num_crops']} views"
    read = said["videos"]["read"]
    return [
        (f"test {name}", f"{each['share']:.1%} ± {each['standard_error']:.1%}, {read:,} videos, {views}")
        for name in ("top1", "top5")
        if (each := said.get(name))
    ]


def _short(source: str) -> str:
    return Path(source).name if Path(source).is_absolute() else source


def _of_card(file: Path) -> str | None:
    """The licence in the head of a model card."""
    try:
        _, head, _ = file.read_text("utf-8", errors="replace").split("---\n", 2)
    except (OSError, ValueError):
        return None
    found = _LICENCE.search(head)
    return found[1] if found and found[1] not in ("unknown", "other") else None


def _of_config(file: Path) -> str | None:
    """That of the published weights, where a config.json names them as what it was made from."""
    return NON_COMMERCIAL if _PUBLISHED.match(str(_json(file).get("_name_or_path", ""))) else None


def _of_record(file: Path) -> str | None:
    return _json(file).get("licence_of_weights")


def _json(file: Path) -> dict[str, Any]:
    """What a JSON file holds; nothing where it is not there or holds something else."""
    try:
        return read_json(file, "a record")
    except InputError:
        return {}
