"""The curves of a training run, drawn from its metrics.jsonl."""

from pathlib import Path
from typing import Any

from videomae_jax.files import replacing
from videomae_jax.training.run_folder import METRICS, read_rows

_Lines = dict[str, tuple[str, dict[str, Any]]]

_LINES: _Lines = {
    "loss": ("training", {"color": "tab:blue", "linewidth": 1}),
    "val_loss": ("validation", {"color": "tab:orange", "marker": "o", "markersize": 4}),
    "val_zero_loss": ("validation, predicting zero", {"color": "tab:gray", "linestyle": "--"}),
}
_ACCURACIES: _Lines = {
    "val_top1": ("validation, top-1", {"color": "tab:red", "marker": "o", "markersize": 4}),
    "val_top5": ("validation, top-5", {"color": "tab:pink", "marker": "o", "markersize": 4}),
}


def draw_curves(workdir: Path) -> Path | None:
    """Draw loss, accuracy where there is one, and learning rate of a run into its loss.png.

    Returns the picture's path, or None when no loss was logged yet.
    """
    from matplotlib.figure import Figure  # Not pyplot: no window system, no global state.

    rows = read_rows(workdir / METRICS)
    if not _series(rows, "loss")[0]:
        return None
    pretraining = any("val_zero_loss" in row for row in rows)
    accuracies = any("val_top1" in row for row in rows)
    figure = Figure(figsize=(8, 7 if accuracies else 5.2), dpi=120, layout="constrained")
    ratios = (4, 3, 1) if accuracies else (4, 1)
    axes = figure.subplots(len(ratios), 1, sharex=True, height_ratios=ratios)
    _plot(axes[0], rows, _LINES)
    kind = "mean squared error of masked patches" if pretraining else "loss"
    axes[0].set(title=f"Training in {workdir}", ylabel=kind)
    if accuracies:
        _plot(axes[1], rows, _ACCURACIES)
        axes[1].set(ylabel="accuracy", ylim=(0, 1.02))
    axes[-1].plot(*_series(rows, "lr"), color="tab:green", linewidth=1)
    axes[-1].set(xlabel="step", ylabel="learning rate", ylim=(0, None))
    axes[-1].ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    axes[-1].grid(alpha=0.3)
    picture = workdir / "loss.png"
    with replacing(picture) as partial:
        figure.savefig(partial)
    return picture


def _plot(axis: Any, rows: list[dict], lines: _Lines) -> None:
    for name, (label, style) in lines.items():
        steps, values = _series(rows, name)
        if steps:
            axis.plot(steps, values, label=label, **style)
    axis.legend()
    axis.grid(alpha=0.3)


def _series(rows: list[dict], name: str) -> tuple[list[int], list[float]]:
    """Steps and values of the rows that have a finite value of this name."""
    points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
    return [step for step, _ in points], [value for _, value in points]
