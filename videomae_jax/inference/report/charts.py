"""Curves of runs as SVG. All words but the numbers at the axes are beside it, in HTML."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from videomae_jax.inference.report.record import RunRecord

COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#e377c2")
"""Of the runs in their order, from the first again where there are more."""
_POINTS = 1000
"""About how many points of a curve are drawn."""


@dataclass(frozen=True)
class Chart:
    """Metrics that share an axis; the first is a line, the others have a style of their own."""

    title: str
    metrics: dict[str, str]
    """What is drawn, with its name in words."""
    scale: str = "linear"
    share: bool = False
    """Whether values are from 0 to 1."""
    count: bool = False
    """Whether a chart without anything above 0 says nothing."""


CHARTS = (
    Chart(
        "Loss",
        {"loss": "training", "val_loss": "validation", "val_zero_loss": "validation, predicting zero"},
    ),
    Chart("Validation accuracy", {"val_top1": "top-1", "val_top5": "top-5"}, share=True),
    Chart("Learning rate", {"lr": "learning rate"}),
    Chart("Gradient norm", {"grad_norm": "gradient norm"}, scale="log"),
    Chart("Clips per second", {"clips_per_second": "clips per second"}),
    Chart("Model FLOP/s utilisation", {"mfu": "MFU of a device"}, share=True),
    Chart("Time spent waiting for data", {"data_wait": "share of the time"}, share=True),
    Chart("Skipped videos", {"skipped": "videos since step 0"}, count=True),
)
STYLES: tuple[dict[str, Any], ...] = (
    {"linestyle": "-", "linewidth": 1.2},
    {"linestyle": "-", "linewidth": 1.0, "marker": "o", "markersize": 3.5},
    {"linestyle": "--", "linewidth": 1.0},
)
"""How the metrics of a chart are told apart."""


def colour_of(position: int) -> str:
    return COLOURS[position % len(COLOURS)]


def drawn(chart: Chart, runs: Sequence[RunRecord]) -> list[str]:
    """The metrics of a chart that some run has; of counts, such as skipped videos, those above 0."""
    least = 0 if chart.count else -np.inf
    return [
        name
        for name in chart.metrics
        if any(max(run.series(name)[1], default=-np.inf) > least for run in runs)
    ]


def draw_chart(chart: Chart, runs: Sequence[RunRecord]) -> str:
    """An <svg> with a curve of each metric and run."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure  # Not pyplot: no window system, no global state.
    from matplotlib.ticker import MaxNLocator

    with rc_context({"svg.fonttype": "none", "svg.hashsalt": chart.title}):
        figure = Figure(figsize=(5.4, 2.9), layout="constrained")
        axes = figure.subplots()
        for position, run in enumerate(runs):
            for name, style in zip(chart.metrics, STYLES, strict=False):
                steps, values = _thinned(*run.series(name))
                if len(steps):
                    alone = {"marker": "_" if style["linestyle"] == "--" else "o"} if len(steps) == 1 else {}
                    axes.plot(steps, values, color=colour_of(position), **style | alone)
        axes.set_yscale(chart.scale)
        if chart.scale == "linear":
            axes.ticklabel_format(axis="y", scilimits=(-3, 5))
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        if chart.share:
            axes.set_ylim(-0.02, 1.02)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xlabel("step")
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return text.getvalue()[text.getvalue().index("<svg") :]


def _thinned(steps: Sequence[int], values: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """At most some 1,000 points of a curve: the lowest and the highest value of each stretch of it."""
    x, y = np.asarray(steps), np.asarray(values, float)
    if len(x) <= _POINTS:
        return x, y
    bounds = np.linspace(0, len(x), _POINTS // 2 + 1).astype(int)
    kept = {0, len(x) - 1}
    for start, stop in pairwise(bounds):
        kept |= {start + int(y[start:stop].argmin()), start + int(y[start:stop].argmax())}
    places = sorted(kept)
    return x[places], y[places]
