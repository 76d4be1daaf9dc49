"""Choosing a probe's learning rate or k on a part of the training videos, and measuring the choice."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float, Int64

from videomae_jax.errors import InputError
from videomae_jax.inference.evaluation.accuracy import accuracy
from videomae_jax.inference.probe.features import ProbeSet
from videomae_jax.inference.probe.neighbours import neighbour_scores
from videomae_jax.inference.probe.training import Recipe, probe_scores, train_probes
from videomae_jax.models.probes import AttentiveProbe, LinearProbe

Kind = Literal["linear", "attentive", "knn"]
Scores = Float[np.ndarray, "values n y"]
"""Of n videos, by probes with each learning rate or k."""
RATES = {"linear": (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0), "attentive": (1e-4, 3e-4, 1e-3, 3e-3)}
NEIGHBOURS = (1, 5, 10, 20)


@dataclass(frozen=True)
class Method:
    """A kind of probe and how it is trained."""

    kind: Kind
    num_classes: int
    num_heads: int = 1
    """Of an attentive probe."""
    learning_rates: tuple[float, ...] = ()
    """To choose from; by default a grid for the kind."""
    epochs: int | None = None
    """By default 90, or 20 for attentive, and enough for 1,000 steps."""
    batch_size: int | None = None
    """Clips in a step; by default 256, or 32 for attentive."""
    held_out: float = 0.2
    """Share of each class's training videos that is set aside to choose the learning rate or k with."""
    seed: int = 0

    @property
    def recipe(self) -> Recipe:
        """How one probe is trained."""
        least = 1 if self.epochs else 1000
        if self.kind == "linear":
            return Recipe("sgd", self.epochs or 90, least, self.batch_size or 256, self.seed)
        return Recipe("adamw", self.epochs or 20, least, self.batch_size or 32, self.seed)

    def values(self, neighbours: int) -> tuple[float, ...]:
        """What to choose from: learning rates, or numbers of neighbours up to those there are."""
        if self.kind != "knn":
            return self.learning_rates or RATES[self.kind]
        return tuple(k for k in NEIGHBOURS if k <= neighbours) or (1,)


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
        Trial(value, learned, accuracy(unseen, held.labels, k=1).share, _loss(unseen, held.labels))
        for value, unseen, learned in zip(values, on_held, fitted, strict=True)
    )
    chosen = min(trials, key=lambda trial: (-trial.held_out, trial.held_out_loss)).value
    (on_val,), (train_accuracy,) = _tried(method, train, (chosen,), val)
    hits = accuracy(on_val, val.labels, k=1)
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
) -> tuple[Scores, tuple[float | None, ...]]:
    """Scores of `unseen` by probes trained on `train` with each value, and their accuracy on `train`.

    A video is its own nearest neighbour, and without it its class is the one that lacks a vote: neither
    accuracy would mean anything, so neighbours have none.
    """
    if method.kind == "knn":
        return _scores(method, train, values, (unseen,))[0], (None,) * len(values)
    on_train, on_unseen = _scores(method, train, values, (train, unseen))
    return on_unseen, tuple(accuracy(each, train.labels, k=1).share for each in on_train)


def _scores(
    method: Method, train: ProbeSet, values: tuple[float, ...], others: tuple[ProbeSet, ...]
) -> list[Scores]:
    """Scores of the videos of each set by probes trained on `train` with each value."""
    if method.kind == "knn":
        ks = tuple(int(value) for value in values)
        known = train.clips[train.clip_rows], train.clip_labels
        scores = [
            neighbour_scores(*known, other.clips[other.clip_rows], ks, method.num_classes) for other in others
        ]
    else:
        recipe, classes = method.recipe, method.num_classes
        attentive = AttentiveProbe(classes, method.num_heads)
        head = attentive if method.kind == "attentive" else LinearProbe(classes)
        trained = train_probes(head, train.clips, train.clip_rows, train.clip_labels, values, recipe)
        scores = [
            probe_scores(head, trained, other.clips, other.clip_rows, recipe.batch_size) for other in others
        ]
    return [
        each.reshape(len(values), len(other.rows), -1, method.num_classes).mean(axis=2)
        for each, other in zip(scores, others, strict=True)
    ]


def _loss(scores: Float[np.ndarray, "n y"], labels: Int64[np.ndarray, " n"]) -> float:
    of_label = np.nan_to_num(scores[np.arange(len(labels)), labels])  # A rate too high may end in NaN.
    return float(-np.log(np.maximum(of_label, 1e-12)).mean())
