"""The confusion of classes as a picture, for 2 to about 700 classes."""

from pathlib import Path

import numpy as np
from jaxtyping import Int64

from videomae_jax.files import replacing
from videomae_jax.inference.lettering import for_matplotlib

_NAMED, _NUMBERED = 30, 12
"""Up to so many classes names stand at the axes, and shares in the cells."""
_LONGEST_NAME = 24


def draw_confusion(
    path: Path, confusion: Int64[np.ndarray, "y y"], names: tuple[str, ...], title: str
) -> None:
    """Draw how often each class (row) was taken for which (column), as shares of the row."""
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure  # Not pyplot: no window system, no global state.

    count = len(names)
    totals = confusion.sum(axis=1, keepdims=True)
    shares = np.ma.masked_array(confusion / np.maximum(totals, 1), np.broadcast_to(totals == 0, (count,) * 2))
    side = min(max(5.0, 2.5 + 0.45 * count), 13.0)
    figure = Figure(figsize=(side + 1.2, side), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.set_facecolor("0.85")  # Shows through where a class has no video.
    # Rare confusions are what one looks for; on an even scale they would be white.
    image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 1), interpolation="nearest")
    figure.colorbar(image, label="share of the class's videos", shrink=0.8)
    axes.set(xlabel="predicted class", ylabel="true class")
    shown = [name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…" for name in names]
    families, (title, *shown) = for_matplotlib([title, *(shown if count <= _NAMED else ())])
    axes.set_title(title, family=families)
    if count <= _NAMED:
        axes.set_xticks(range(count), shown, rotation=90 if count > 4 else 0, family=families)
        axes.set_yticks(range(count), shown, family=families)
    if count <= _NUMBERED:
        for row, column in np.argwhere(confusion):
            share = shares[row, column]
            colour = "white" if share > 0.4 else "black"
            axes.text(column, row, f"{share:.2f}", ha="center", va="center", color=colour, fontsize=9)
    with replacing(path) as partial:
        figure.savefig(partial)
