"""Transfer matrices: attacks made on one network (rows) and shown to another (columns)."""

from collections.abc import Mapping
from typing import Any

from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

_DARK = 0.5  # accuracies below it stand on dark cells
# Inches that a cell needs for its two lines, and a letter of a name at the axes.
_WIDTH, _HEIGHT, _LETTER = 1.0, 0.5, 0.08


def table(matrix: Mapping[str, Any]) -> list[list[str]]:
    """Header, one row a source, and the clean images; accuracy in % and its interval in every cell.

    Args:
        matrix: as `evaluation.transfer.matrices` gives it.
    """
    rows = zip(matrix["sources"], matrix["accuracy"], matrix["low"], matrix["high"], strict=True)
    clean = ("(clean)", matrix["clean"], matrix["clean_low"], matrix["clean_high"])
    return [["made on", *matrix["targets"]], *([name, *_texts(*line)] for name, *line in (*rows, clean))]


def figure(matrices: Mapping[str, Mapping[str, Any]]) -> Figure:
    """One panel an attack, accuracy in % and its interval in every cell; see `table` for what a matrix holds."""
    names = next(iter(matrices.values()))["targets"]
    margin = 1.2 + _LETTER * max(map(len, names))
    size = (len(matrices) * (margin + _WIDTH * len(names)), margin + _HEIGHT * len(names))
    drawing = Figure(figsize=size, layout="constrained")
    FigureCanvasSVG(drawing)
    panels = drawing.subplots(1, len(matrices), squeeze=False)[0]
    for axes, (name, matrix) in zip(panels, matrices.items(), strict=True):
        axes.imshow(matrix["accuracy"], vmin=0, vmax=1, cmap="cividis", aspect="auto")
        axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
        axes.set_yticks(range(len(names)), names)
        axes.set(xlabel="shown to", ylabel="made on")
        axes.set_title(f"{name}: accuracy (%)\n[95 % interval], n = {matrix['n']}", fontsize=10)
        for i, line in enumerate(zip(matrix["accuracy"], matrix["low"], matrix["high"], strict=True)):
            for j, text in enumerate(_texts(*line)):
                color = "white" if matrix["accuracy"][i][j] < _DARK else "black"
                axes.text(j, i, text.replace(" [", "\n["), ha="center", va="center", color=color, fontsize=8)
    return drawing


def _texts(accuracy: list[float], low: list[float], high: list[float]) -> list[str]:
    found = zip(accuracy, low, high, strict=True)
    return [f"{100 * value:.1f} [{100 * first:.1f}, {100 * last:.1f}]" for value, first, last in found]
