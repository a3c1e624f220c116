"""Transfer matrices: attacks made on one network (rows) and shown to another (columns)."""

from collections.abc import Mapping
from typing import Any

from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

_DARK = 0.5  # accuracies below it stand on dark cells


def table(matrix: Mapping[str, Any]) -> list[list[str]]:
    """Header, one row a source, and the accuracy on clean images.

    Args:
        matrix: "sources" and "targets" (names), "accuracy" (in [0, 1], a row a source), "clean" (one a target).
    """
    rows = [
        [source, *(f"{100 * value:.1f}" for value in line)]
        for source, line in zip(matrix["sources"], matrix["accuracy"], strict=True)
    ]
    return [["made on", *matrix["targets"]], *rows, ["(clean)", *(f"{100 * value:.1f}" for value in matrix["clean"])]]


def figure(matrices: Mapping[str, Mapping[str, Any]]) -> Figure:
    """One panel an attack, accuracy in % in every cell; see `table` for what a matrix holds."""
    drawing = Figure(figsize=(5.5 * len(matrices), 4.5), layout="constrained")
    FigureCanvasSVG(drawing)
    for axes, (name, matrix) in zip(
        drawing.subplots(1, len(matrices), squeeze=False)[0], matrices.items(), strict=True
    ):
        axes.imshow(matrix["accuracy"], vmin=0, vmax=1, cmap="cividis")
        axes.set_xticks(range(len(matrix["targets"])), matrix["targets"], rotation=30, ha="right")
        axes.set_yticks(range(len(matrix["sources"])), matrix["sources"])
        axes.set(xlabel="shown to", ylabel="made on", title=f"{name}: accuracy (%), n = {matrix['n']}")
        for i, line in enumerate(matrix["accuracy"]):
            for j, value in enumerate(line):
                color = "white" if value < _DARK else "black"
                axes.text(j, i, f"{100 * value:.1f}", ha="center", va="center", color=color)
    return drawing
