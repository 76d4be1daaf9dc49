"""The curve of a pre-training run, drawn from its metrics.jsonl."""

from pathlib import Path

from videomae_jax.training.workdir import METRICS, read_rows


def draw_loss_curve(workdir: Path) -> Path | None:
    """Draw training and held-out loss of a run, and the learning rate below, into its loss.png.

    Returns the picture's path, or None when no loss was logged yet.
    """
    from matplotlib.figure import Figure  # Not pyplot: no window system, no global state.

    rows = read_rows(workdir / METRICS)
    if not _series(rows, "loss")[0]:
        return None
    figure = Figure(figsize=(8, 5.2), dpi=120, layout="constrained")
    top, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    top.plot(*_series(rows, "loss"), color="tab:blue", linewidth=1, label="training, masked patches")
    for name, label, style in (
        ("val_loss", "held out, masked patches", {"color": "tab:orange", "marker": "o", "markersize": 4}),
        ("val_zero_loss", "held out, predicting zero", {"color": "tab:gray", "linestyle": "--"}),
    ):
        steps, values = _series(rows, name)
        if steps:
            top.plot(steps, values, label=label, **style)
    top.set(title=f"Pre-training in {workdir}", ylabel="mean squared error")
    top.legend()
    top.grid(alpha=0.3)
    below.plot(*_series(rows, "lr"), color="tab:green", linewidth=1)
    below.set(xlabel="step", ylabel="learning rate", ylim=(0, None))
    below.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    below.grid(alpha=0.3)
    picture = workdir / "loss.png"
    figure.savefig(picture)
    return picture


def _series(rows: list[dict], name: str) -> tuple[list[int], list[float]]:
    """Steps and values of the rows that have a finite value of this name."""
    points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
    return [step for step, _ in points], [value for _, value in points]


__all__ = ["draw_loss_curve"]
