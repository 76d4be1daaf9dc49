"""Choosing a probe's learning rate or k on a part of the training videos, and measuring the choice."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int64

from videomae_jax.errors import InputError
from videomae_jax.inference.evaluation.accuracy import Accuracy
from videomae_jax.inference.probe.features import ProbeSet
from videomae_jax.inference.probe.neighbours import neighbour_scores
from videomae_jax.inference.probe.training import Recipe, probe_scores, train_probes
from videomae_jax.models.probes import AttentiveProbe, LinearProbe
from videomae_jax.models.ranking import classes_ahead

Kind = Literal["linear", "attentive", "knn"]
RATES = {"linear": (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0), "attentive": (1e-4, 3e-4, 1e-3, 3e-3)}
NEIGHBOURS = (1, 5, 10, 20)


@dataclass(frozen=True, kw_only=True)
class ProbeSettings:
    """What a user can say of a probe."""

    kind: Kind = "linear"
    """A linear layer, a query that attends to all tokens before one, or nearest neighbours."""
    learning_rates: tuple[float, ...] = ()
    """Learning rates to choose from, not scaled with the batch; by default a grid for the kind."""
    epochs: int | None = None
    """Passes over the training videos; by default 90, or 20 for attentive, and enough for 1,000 steps."""
    train_batch_size: int | None = None
    """Clips in a training step; by default 256, or 32 for attentive."""
    held_out: float = 0.2
    """Share of each class's training videos that is set aside to choose the learning rate or k with."""
    seed: int = 0
    """Seed of the held-out part, the weights and the order."""


@dataclass(frozen=True)
class Method(ProbeSettings):
    """A kind of probe and how it is trained, for a number of classes."""

    num_classes: int
    num_heads: int = 1
    """Of an attentive probe."""

    @property
    def recipe(self) -> Recipe:
        """How one probe is trained."""
        least = 1 if self.epochs else 1000
        if self.kind == "linear":
            return Recipe("sgd", self.epochs or 90, least, self.train_batch_size or 256, self.seed)
        return Recipe("adamw", self.epochs or 20, least, self.train_batch_size or 32, self.seed)

    def values(self, neighbours: int) -> tuple[float, ...]:
        """What to choose from: learning rates, or numbers of neighbours up to those there are."""
        if self.kind != "knn":
            return self.learning_rates or RATES[self.kind]
        return tuple(k for k in NEIGHBOURS if k <= neighbours) or (1,)


class Judged(NamedTuple):
    """How a probe does on some videos."""

    accuracy: Accuracy
    loss: float
    """Mean negative log score of the label."""


@dataclass(frozen=True)
class Trial:
    """A learning rate or k, tried on the held-out part of the training videos."""

    value: float
    """Learning rate, or number of neighbours."""
    fit: float | None
    """Accuracy on the rest, from which it learned; none for neighbours, which learn nothing."""
    held_out: float
    held_out_loss: float
    """Mean negative log score of the label, which decides between equal accuracies."""


@dataclass(frozen=True)
class ProbeResult:
    """What a probe found."""

    kind: Kind
    trials: tuple[Trial, ...]
    chosen: float
    train_accuracy: float | None
    """None for neighbours, as `Trial.fit`."""
    val_accuracy: float
    val_standard_error: float
    num_train: int
    num_held_out: int
    num_val: int
    num_classes: int
    failures: tuple[str, ...]
    """Why videos could not be read; they count nowhere."""


def measure(method: Method, train: ProbeSet, val: ProbeSet) -> ProbeResult:
    """Choose on a part of `train`, train on all of it, and evaluate on `val` once."""
    fit_rows, held_rows = split_rows(train.labels, method.held_out, method.seed)
    fit, held = replace(train, rows=train.rows[fit_rows]), replace(train, rows=train.rows[held_rows])
    values = method.values(len(fit.clip_rows))
    on_held, fitted = _tried(method, fit, values, held)
    trials = tuple(
        Trial(value, learned, unseen.accuracy.share, unseen.loss)
        for value, unseen, learned in zip(values, on_held, fitted, strict=True)
    )
    chosen = min(trials, key=lambda trial: (-trial.held_out, trial.held_out_loss)).value
    (on_val,), (train_accuracy,) = _tried(method, train, (chosen,), val)
    hits = on_val.accuracy
    return ProbeResult(
        kind=method.kind,
        trials=trials,
        chosen=chosen,
        train_accuracy=train_accuracy,
        val_accuracy=hits.share,
        val_standard_error=hits.standard_error,
        num_train=len(train.labels),
        num_held_out=len(held.labels),
        num_val=len(val.labels),
        num_classes=method.num_classes,
        failures=train.failures + val.failures,
    )


def split_rows(
    labels: Int64[np.ndarray, " n"], share: float, seed: int
) -> tuple[Int64[np.ndarray, " f"], Int64[np.ndarray, " h"]]:
    """Rows to learn from and rows held out, drawn so that of each class with two videos both have some.

    Raises InputError when nothing can be held out.
    """
    rng = np.random.default_rng(seed)
    held = []
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        if len(rows) > 1:
            held.append(rows[: min(max(1, round(share * len(rows))), len(rows) - 1)])
    if not held:
        raise InputError("no class has two videos to train on, so none can be held out to choose by")
    out = np.sort(np.concatenate(held))
    return np.setdiff1d(np.arange(len(labels)), out), out


def _tried(
    method: Method, train: ProbeSet, values: tuple[float, ...], unseen: ProbeSet
) -> tuple[list[Judged], tuple[float | None, ...]]:
    """How probes trained on `train` with each value do on `unseen`, and their accuracy on `train`.

    A video is its own nearest neighbour, and without it its class is the one that lacks a vote: neither
    accuracy would mean anything, so neighbours have none.
    """
    if method.kind == "knn":
        ks = tuple(int(value) for value in values)
        bank, queries = (next(each.features.batches([each.clip_rows])) for each in (train, unseen))
        scores = neighbour_scores(bank, train.clip_labels, queries, ks, method.num_classes)
        return _judge([scores], unseen), (None,) * len(values)
    recipe, classes = method.recipe, method.num_classes
    attentive = AttentiveProbe(classes, method.num_heads)
    head = attentive if method.kind == "attentive" else LinearProbe(classes)
    trained = train_probes(head, train.features, train.clip_rows, train.clip_labels, values, recipe)
    on_train, on_unseen = (
        _judge(probe_scores(head, trained, each.features, each.clip_rows, recipe.batch_size), each)
        for each in (train, unseen)
    )
    return on_unseen, tuple(each.accuracy.share for each in on_train)


def _judge(batches: Iterable[Float[np.ndarray, "values _ y"]], videos: ProbeSet) -> list[Judged]:
    """What the scores of clips, averaged over those of each video, say of its label, for each value."""
    labels, per_video, done = videos.labels, videos.features.shape[1], 0
    found: list[tuple[np.ndarray, np.ndarray]] = []
    rest: np.ndarray | None = None
    for scores in batches:
        scores = scores if rest is None else np.concatenate([rest, scores], axis=1)
        count = scores.shape[1] // per_video
        whole, rest = scores[:, : count * per_video], scores[:, count * per_video :]
        means = whole.reshape(len(scores), count, per_video, -1).mean(axis=2)
        own = labels[done : done + count]
        done += count
        hits = np.stack([classes_ahead(each, own) == 0 for each in means])
        of_label = np.nan_to_num(means[:, np.arange(count), own])  # A rate too high may end in NaN.
        found.append((hits, -np.log(np.maximum(of_label, 1e-12))))
    hits, losses = (np.concatenate(parts, axis=1) for parts in zip(*found, strict=True))
    return [
        Judged(Accuracy(int(hit.sum()), len(hit)), float(loss.mean()))
        for hit, loss in zip(hits, losses, strict=True)
    ]
