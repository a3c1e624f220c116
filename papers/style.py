"""How the figures look: one style, colours that colour-blind readers can tell apart (Okabe & Ito), vector and PNG."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_MOST_COLUMNS = 5  # of a legend


def panels(rows: int, columns: int, width: float = 4.0, height: float = 3.2) -> tuple[Figure, list[Axes]]:
    """A figure and its axes, row by row, with light grids."""
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for each in axes:
        each.grid(alpha=0.3, linewidth=0.6)
        each.spines[["top", "right"]].set_visible(False)
    return figure, axes


def legend_below(figure: Figure, axes: Sequence[Axes]) -> None:
    """One legend for all panels, below them, in as many columns as fit; "printed" comes last."""
    found: dict[str, Any] = {}
    for each in axes:
        handles, labels = each.get_legend_handles_labels()
        found.update(zip(labels, handles, strict=True))
    if found:
        labels = sorted(found, key=lambda label: label == "printed")
        handles = [found[label] for label in labels]
        for columns in range(min(len(labels), _MOST_COLUMNS), 0, -1):
            legend = figure.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize=9)
            if columns == 1 or legend.get_window_extent().width <= figure.bbox.width:
                break
            legend.remove()


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write STEM.svg and STEM.png; returns both."""
    files = [stem.with_suffix(".svg"), stem.with_suffix(".png")]
    for file in files:
        figure.savefig(file, dpi=150)
    return files
