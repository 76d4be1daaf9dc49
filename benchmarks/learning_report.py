"""Tables and plots of what `learning.py` has measured."""

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

Scores = Mapping[str, list[float]]
"""What was measured, with a number for each seed (or for each seed and fold, weighted by `videos`)."""
CHANCE = 1 / 8


def report(out: Path) -> None:
    """Print tables as Markdown and write learning_*.png beside the results."""
    rows = [json.loads(file.read_text()) for file in sorted((out / "results").glob("*.json"))]
    generated, real = defaultdict(lambda: defaultdict(list)), defaultdict(list)
    for row in rows:
        what, _, rest = row["name"].rpartition(", seed ")
        if ", fold " in what:
            real[what.split(", fold ")[0], rest].append(row["found"])
        else:
            for name, value in row["found"].items():
                generated[what][name].append(value)
    if generated:
        _print_generated(generated)
        _plot_budgets(generated, out / "learning_budgets.png")
        _plot_settings(generated, out / "learning_settings.png")
    if real:
        _print_real(real)
    print(f"\n{len(rows)} measurements, {sum(row['seconds'] for row in rows) / 3600:.1f} hours of one core")


def _said(values: list[float]) -> str:
    spread = f" ± {100 * np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{100 * np.mean(values):.1f}{spread}"


def _print_generated(found: Mapping[str, Scores]) -> None:
    columns = sorted({name for scores in found.values() for name in scores}, key=_order)
    print(f"| | {' | '.join(columns)} | seeds |\n|---|{'---|' * (len(columns) + 1)}")
    for what, scores in found.items():
        cells = [_said(scores[name]) if name in scores else "" for name in columns]
        print(f"| {what} | {' | '.join(cells)} | {max(map(len, scores.values()))} |")


def _order(name: str) -> tuple[str, int]:
    kind, _, budget = name.partition(" ")
    return kind, int(budget)


def _print_real(found: Mapping[tuple[str, str], list[dict[str, float]]]) -> None:
    """Mean over folds, each weighted by its videos; then mean and spread over seeds."""
    tables: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for (data, _), folds in found.items():
        weights = [fold["videos"] for fold in folds]
        for name in folds[0]:
            if name != "videos":
                accuracy = np.average([fold[name] for fold in folds], weights=weights)
                tables[data][name].append(float(accuracy))
    for data, scores in tables.items():
        print(f"\n{data}\n\n| | accuracy over folds |\n|---|---|")
        for name, values in scores.items():
            print(f"| {name} | {_said(values)} |")


def _axes(title: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=(8, 4.6), dpi=120, layout="constrained")
    axis = figure.subplots()
    axis.axhline(CHANCE, color="tab:gray", linestyle=":", label="chance")
    axis.set(title=title, ylabel="accuracy on validation clips", ylim=(0, 1))
    axis.grid(alpha=0.3)
    return figure, axis


def _plot_budgets(found: Mapping[str, Scores], picture: Path) -> None:
    """Accuracy after fine-tuning by the number of labelled clips."""
    figure, axis = _axes("Fine-tuned with few labels: pre-trained against from scratch")
    for what, style in (("frame 0.5", "o-"), ("scratch", "s--"), ("scratch, 4 times as long", "^:")):
        scores = {_order(name)[1]: values for name, values in found.get(what, {}).items() if "fine" in name}
        if scores:
            budgets = sorted(scores)
            means = [np.mean(scores[budget]) for budget in budgets]
            errors = [np.std(scores[budget], ddof=min(1, len(scores[budget]) - 1)) for budget in budgets]
            label = what if "scratch" in what else "pre-trained (frame mask, 50 %)"
            axis.errorbar(budgets, means, errors, fmt=style, capsize=3, label=label)
    axis.set(
        xlabel="labelled clips of each class", xscale="log", xticks=[2, 4, 8, 40], xticklabels=[2, 4, 8, 40]
    )
    axis.minorticks_off()
    axis.legend()
    figure.savefig(picture)


def _plot_settings(found: Mapping[str, Scores], picture: Path) -> None:
    """Linear probe and fine-tuning of every way to pre-train."""
    figure, axis = _axes("What is hidden, how much of it, and the decoder's depth")
    settings = [what for what in found if "scratch" not in what and "one frame" not in what]
    for shift, name, label in (
        (-0.2, "linear 200", "linear probe, all labels"),
        (0.2, "finetune 8", "fine-tuned, 8 labels of each class"),
    ):
        values = [found[what][name] for what in settings]
        means = [np.mean(each) for each in values]
        errors = [np.std(each, ddof=min(1, len(each) - 1)) for each in values]
        axis.bar(np.arange(len(settings)) + shift, means, 0.38, yerr=errors, capsize=3, label=label)
    axis.set_xticks(range(len(settings)), [what.replace(", ", "\n") for what in settings], fontsize=8)
    axis.legend()
    figure.savefig(picture)
