"""Learned strengths of noise over a training: where they began, where they ended, and the curve of each layer.

EEPD section 3.7 says that they fall by about two orders of magnitude from 0.25: the network learns to be left alone.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

_PREFIX = "noise/"


@dataclass(frozen=True)
class Curve:
    """The strength of one layer's noise: `steps` of the optimizer taken, and the absolute `values` after them."""

    layer: str
    steps: tuple[int, ...]
    values: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """The last value over the first."""
        return self.values[-1] / self.values[0] if self.values[0] else float("nan")


def curves(run: Path) -> list[Curve]:
    """One curve a layer, in order of definition, from the run's metrics.jsonl (what `callbacks.NoiseLevels` logged).

    Raises:
        ValueError: the folder has no metrics.jsonl, or that holds no strength of noise.
    """
    file = run / "metrics.jsonl"
    if not file.is_file():
        raise ValueError(f"{run}: no metrics.jsonl in it; give a run folder of train.py")
    found: dict[str, dict[int, float]] = {}
    for line in file.read_text().splitlines():
        row = json.loads(line)
        for name, value in row.items():
            if name.startswith(_PREFIX):  # a step that was repeated after a resume counts once, the last time
                found.setdefault(name.removeprefix(_PREFIX), {})[int(row["step"])] = float(value)
    if not found:
        raise ValueError(f"{file}: no noise/LAYER in it; recipes with learned noise (robustnet_learned, pni_w) log it")
    return [
        Curve(layer, tuple(sorted(points)), tuple(points[s] for s in sorted(points))) for layer, points in found.items()
    ]


def table(layers: list[Curve]) -> list[list[str]]:
    """Header, one row a layer, and the median of the layers."""
    first, last = (median(curve.values[end] for curve in layers) for end in (0, -1))
    rows = [[c.layer, f"{c.values[0]:.4f}", f"{c.values[-1]:.5f}", f"{c.ratio:.4f}"] for c in layers]
    return [
        ["layer", "first", "last", "last / first"],
        *rows,
        ["median", f"{first:.4f}", f"{last:.5f}", _ratio(layers)],
    ]


def _ratio(layers: list[Curve]) -> str:
    return f"{median(curve.ratio for curve in layers):.4f}"


def figure(layers: list[Curve], caption: str) -> Figure:
    """All layers over the optimizer's steps, logarithmic; their median in black."""
    drawing = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasSVG(drawing)
    axes = drawing.add_subplot(xlabel="optimizer steps", ylabel="strength of the noise", yscale="log", title=caption)
    for curve in layers:
        axes.plot(curve.steps, curve.values, color="tab:blue", alpha=0.35, linewidth=1)
    steps = layers[0].steps
    if all(curve.steps == steps for curve in layers):
        middle = [median(values) for values in zip(*(curve.values for curve in layers), strict=True)]
        axes.plot(steps, middle, color="black", marker="o", markersize=4, label="median of the layers")
        axes.legend()
    axes.title.set_fontsize("small")
    axes.grid(alpha=0.3, which="both")
    return drawing
