"""The command `videomae-jax evaluate`: accuracy on labelled videos, over several views of each."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import tyro

from videomae_jax.checkpoints.orbax import find_evaluated_folder, read_description
from videomae_jax.checkpoints.trees import params_digest
from videomae_jax.class_names import same_classes
from videomae_jax.data.labels import Classes, Labelled, read_classes, read_videos_of_model
from videomae_jax.data.loading.workers import Workers
from videomae_jax.data.overlap import describe_overlap
from videomae_jax.data.records import VideoRecord
from videomae_jax.data.sources import read_videos, split_weights
from videomae_jax.data.video_table import VideoTable
from videomae_jax.errors import InputError
from videomae_jax.files import locked_folder
from videomae_jax.inference.evaluation.evaluate import Evaluation, evaluate_videos
from videomae_jax.inference.evaluation.files import FILES, describe_evaluation, write_evaluation
from videomae_jax.inference.predictor import Predictor
from videomae_jax.inference.views import Inference, check_at_least_one, choose_views
from videomae_jax.models.ranking import TOP
from videomae_jax.training.multihost.facts import classes_fact, setting_fact, videos_fact, weights_fact
from videomae_jax.training.multihost.hosts import Hosts

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluate(Inference):
    """Measure top-1 and top-5 of a classifier: softmax scores averaged over clips and crops of each video."""

    lists: Annotated[tuple[str, ...], tyro.conf.Positional]
    """List files with a line `path label` for each video, or folders with a folder of videos per class."""
    checkpoint: str
    """A work folder, a step folder, a Hugging Face folder, or a hub id."""
    num_segments: int | None = None
    """Temporal segments of a video; by default as in the run's own test, or 5."""
    num_crops: int | None = None
    """Spatial crops along the longer side; by default as in the run's own test, or 3."""
    batch_size: int = 32
    """Views classified at a time, over all devices."""
    num_workers: int = 4
    """Decoding processes; 0 decodes in the main process. Never changes a score."""
    classes: str | None = None
    """A file with the name of each class on a line, in the order of the lists' numbers. Where the checkpoint
    knows the names too, they match by name, else by number."""
    only_data_classes: bool = False
    """Choose among the classes of the videos or of --classes, and no others: a model of Kinetics-710 as one
    of Kinetics-400."""
    out: Path = Path("evaluation")
    """Folder for evaluation.json, predictions.csv, confusion.png and failures.csv."""


def evaluate(args: Evaluate, workers: Workers | None = None) -> int:
    """Evaluate, write the files and print a summary; returns the exit code."""
    evaluation = evaluate_checkpoint(args, workers)
    if jax.process_index() == 0:
        print(
            "\n".join([*summary(evaluation), f"files: {', '.join(str(args.out / name) for name in FILES)}"])
        )
    return 0


def evaluate_checkpoint(args: Evaluate, workers: Workers | None = None) -> Evaluation:
    """Evaluate as the command does, and write its files; `workers` read, or some of its own.

    Raises InputError when lists, checkpoint or settings will not do, RunError when no video could be read.
    """
    if not args.lists:
        raise InputError("name at least one list or folder: videomae-jax evaluate LIST --checkpoint C")
    check_at_least_one(batch_size=args.batch_size)
    data, views = choose_views(args.checkpoint, args, args.num_segments, args.num_crops)
    predictor, hosts = Predictor.from_pretrained(args.checkpoint, dtype=args.dtype), Hosts()
    if predictor.config.score_kind == "value":
        raise InputError(
            f"{args.checkpoint} is a regression model: its outputs are values, not classes, so there is no "
            "accuracy to measure; classify --json prints the values"
        )
    settings = asdict(data) | asdict(views) | {"batch_size": args.batch_size}
    videos, classes = _read_videos(args, predictor, hosts, settings)
    whole = predictor
    if args.only_data_classes:
        predictor, videos, classes = _only_data_classes(args, predictor, videos, classes)
        if hosts.first:
            print(f"choosing among {len(classes.names)} classes: those that the data has")
    with hosts.locked(locked_folder(args.out, "--out")):
        if hosts.first and (
            overlap := describe_overlap(read_trained_videos(args.checkpoint), {"evaluated": videos})
        ):
            log.warning("%s", overlap)
        evaluation = evaluate_videos(
            predictor,
            videos,
            classes.names,
            data,
            views,
            batch_size=args.batch_size,
            num_workers=args.num_workers,
            workers=workers,
        )
        if hosts.first:
            write_evaluation(
                evaluation, args.out, describe_evaluation(args, args.checkpoint, whole, data, views)
            )
    return evaluation


def _read_videos(args: Evaluate, predictor: Predictor, hosts: Hosts, settings: Mapping[str, Any]) -> Labelled:
    """The videos with their labels, and the classes; raises InputError where hosts differ in these, too."""
    videos, classes = hosts.agree(
        lambda: read_videos_of_model(args.lists, predictor.config, args.root, args.classes)
    )
    if hosts.count > 1:
        facts = {
            "videos": videos_fact(videos),
            "classes": classes_fact(classes.names),
            "weights": weights_fact(params_digest(predictor.params)),
        }
        hosts.compare(facts | {name: setting_fact(value) for name, value in settings.items()})
    return Labelled(videos, classes)


def _only_data_classes(
    args: Evaluate, predictor: Predictor, videos: VideoTable, classes: Classes
) -> tuple[Predictor, VideoTable, Classes]:
    """The predictor, the videos and the classes without the classes that the data does not have."""
    there = set(np.unique(videos.labels).tolist())
    if args.classes:
        there |= set(same_classes(read_classes(args.classes).names, classes.names)) - {None}
    if len(there) < 2:
        raise InputError(
            "--only-data-classes leaves nothing to choose from: all videos are of one class. Name the other "
            "classes with --classes FILE"
        )
    numbers = sorted(there)
    names = tuple(classes.names[number] for number in numbers)
    labels = np.searchsorted(numbers, videos.labels)
    return predictor.among(numbers, names), videos.with_labels(labels), replace(classes, names=names)


def read_trained_videos(checkpoint: str) -> Sequence[VideoRecord]:
    """The videos that a checkpoint was trained on, as the run's lists and folders name them now.

    None where no run is recorded or, with a warning, where they are not found.
    """
    try:
        data = read_description(find_evaluated_folder(Path(checkpoint)))["config"].get("data", {})
    except InputError:
        return ()
    try:
        return read_videos(split_weights(data.get("train", ()))[0], data.get("root"))
    except InputError as error:
        log.warning(
            "whether %s was trained on some of these videos is not known: %s. Start this command in the "
            "folder in which the run was started",
            checkpoint,
            error,
        )
        return ()


def summary(evaluation: Evaluation) -> list[str]:
    """The result in words: accuracies with their standard errors, the worst classes, what failed."""
    top1, top5 = evaluation.top1, evaluation.top5
    lines = [
        f"{name} {each.share:.2%} ± {each.standard_error:.2%} ({each.correct} of {each.read} videos)"
        + (f"; {each.share_failures_wrong:.2%} if failures count as wrong" if each.failed else "")
        for name, each in (("top-1", top1), (f"top-{TOP}", top5))
        if each
    ]
    shares = [(each.share, each.number, each) for each in evaluation.classes if each.share is not None]
    worst = [each for _, _, each in sorted(shares)[:3]]
    if evaluation.score_kind == "sigmoid":
        lines.append(
            "each class has a probability of its own (multi_label_classification): a video counts as right "
            "where its label has the largest"
        )
    lines.append("worst " + ", ".join(f"{each.name} {each.correct}/{each.videos}" for each in worst))
    if failures := evaluation.failures:
        reasons = Counter(failure.reason for failure in failures.values())
        said = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
        lines.append(f"{len(failures)} of {len(evaluation.videos)} videos could not be read: {said}")
    return lines
