"""The files of an evaluation: the result and all that repeating it takes, every prediction, the confusion."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax

from videomae_jax.checkpoints.orbax import find_evaluated_folder, is_run
from videomae_jax.checkpoints.trees import params_digest
from videomae_jax.config import LabelledDataConfig, ViewsConfig
from videomae_jax.data.records import list_digest
from videomae_jax.files import write_json, write_rows
from videomae_jax.inference.evaluation.accuracy import confusion_matrix
from videomae_jax.inference.evaluation.confusion import draw_confusion
from videomae_jax.inference.evaluation.evaluate import Evaluation
from videomae_jax.inference.predictor import Predictor
from videomae_jax.models.blocks import compute_dtype
from videomae_jax.models.ranking import TOP, best_classes
from videomae_jax.versions import command_line, version_of

FILES = ("evaluation.json", "predictions.csv", "classes.csv", "confusion.png", "failures.csv")
_PACKAGES = ("videomae-jax", "jax", "flax", "av", "numpy", "pillow")


def write_evaluation(evaluation: Evaluation, folder: Path, facts: Mapping[str, Any]) -> None:
    """Write all files; evaluation.json, which holds `facts` too, comes last."""
    summary, predictions, classes, confusion, failures = (folder / name for name in FILES)
    summary.unlink(missing_ok=True)
    write_rows(predictions, _predictions(evaluation))
    write_rows(classes, _classes(evaluation))
    write_rows(failures, _failures(evaluation))
    read, top1 = evaluation.read, evaluation.top1
    draw_confusion(
        confusion,
        confusion_matrix(evaluation.scores[read], evaluation.labels[read]),
        evaluation.class_names,
        f"top-1 {top1.share:.1%} of {top1.read} videos",
    )
    write_json(summary, _result(evaluation) | dict(facts))


def describe_evaluation(
    settings: Any, source: str, predictor: Predictor, data: LabelledDataConfig, views: ViewsConfig
) -> dict[str, Any]:
    """What was evaluated and how: settings, weights, views, normalisation, versions, devices, command."""
    config, device = predictor.config, jax.devices()[0]
    return {
        "checkpoint": {"source": source, "step": _step(source), "digest": params_digest(predictor.params)},
        "views": {
            "sampling": data.sampling,
            "sampling_rate": data.sampling_rate,
            **asdict(views),
            "num_frames": config.num_frames,
            "image_size": config.image_size,
        },
        "normalization": asdict(predictor.normalization),
        "scores": config.score_kind,
        "dtype": compute_dtype(config).name,
        "settings": asdict(settings),
        "versions": {name: version_of(name) for name in _PACKAGES},
        "devices": f"{jax.device_count()} x {device.device_kind}, {jax.process_count()} processes",
        "command": command_line(),
    }


def _step(source: str) -> int | None:
    """The step of a run whose weights were read."""
    name = find_evaluated_folder(Path(source)).name if is_run(Path(source)) else ""
    return int(name) if name.isdecimal() else None  # A step folder may have been copied under any name.


def _result(evaluation: Evaluation) -> dict[str, Any]:
    found = {"top1": evaluation.top1, "top5": evaluation.top5}
    facts = ("share", "standard_error", "correct", "share_failures_wrong")
    return {
        **{name: {fact: getattr(each, fact) for fact in facts} for name, each in found.items() if each},
        "videos": {
            "listed": len(evaluation.videos),
            "read": len(evaluation.read),
            "failed": len(evaluation.failures),
            "reasons": Counter(failure.reason for failure in evaluation.failures.values()),
            "digest": _digest(evaluation),
        },
        "classes": [asdict(each) | {"top1": each.share} for each in evaluation.classes],
    }


def _digest(evaluation: Evaluation) -> str:
    """A fingerprint of the videos with their labels."""
    labels = " ".join(map(str, evaluation.labels))
    return hashlib.sha256(f"{list_digest(evaluation.videos)} {labels}".encode()).hexdigest()


def _predictions(evaluation: Evaluation) -> list[Sequence[Any]]:
    """A row for each video that could be read, in the order of the lists."""
    k = min(TOP, len(evaluation.class_names))
    best, names = best_classes(evaluation.scores, k), evaluation.class_names
    places = [f"{what}_{place}" for place in range(1, k + 1) for what in ("class", "score")]
    rows: list[Sequence[Any]] = [
        ("path", "start", "total", "label", "label_name", "predicted", "predicted_name", "correct", *places)
    ]
    for position in evaluation.read:
        video, order, scores = evaluation.videos[position], best[position], evaluation.scores[position]
        label = evaluation.labels[position]
        ranked = [value for number in order for value in (number, f"{scores[number]:.9f}")]
        first = (order[0], names[order[0]], int(order[0] == label))
        rows.append((video.path, video.start, video.total, label, names[label], *first, *ranked))
    return rows


def _classes(evaluation: Evaluation) -> list[Sequence[Any]]:
    """A row for each class, in the order of the model's; no share where no video of it could be read."""
    rows: list[Sequence[Any]] = [("number", "name", "videos", "correct", "top1")]
    for each in evaluation.classes:
        share = "" if each.share is None else f"{each.share:.6f}"
        rows.append((each.number, each.name, each.videos, each.correct, share))
    return rows


def _failures(evaluation: Evaluation) -> list[Sequence[Any]]:
    rows: list[Sequence[Any]] = [("path", "start", "total", "label", "reason", "error")]
    for position, failure in evaluation.failures.items():
        video = evaluation.videos[position]
        rows.append((video.path, video.start, video.total, video.label, failure.reason, failure.error))
    return rows
