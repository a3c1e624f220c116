"""Curves as a picture, for loggers that draw none by themselves."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from callbacks.panels import Panel
from evaluation.curves import Curve


@dataclass(frozen=True, eq=False)
class Chart(Panel):
    """A picture of lines.

    Attributes:
        grid: uint8 [H, W, 3].
        columns: names of the lines, in the order of the legend.
    """

    @property
    def caption(self) -> str:
        """The lines in words."""
        return "lines: " + ", ".join(self.columns)


def chart(curves: Sequence[Curve], x_name: str) -> Chart:
    """Robust accuracy of several attacks with 95 % bands in one picture.

    Args:
        curves: at least one.
        x_name: what they are over.
    """
    drawing = Figure(figsize=(7, 4), dpi=100, layout="constrained")
    FigureCanvasAgg(drawing)
    axes = drawing.add_subplot(xlabel=x_name, ylabel="accuracy (%)", ylim=(0, 100))
    axes.set_title(f"robust accuracy over {x_name}, n = {curves[0].n}")
    for curve in curves:
        x = [point.radius for point in curve.points]
        low, high = ([100 * point.interval[end] for point in curve.points] for end in (0, 1))
        (line,) = axes.plot(x, [100 * point.accuracy for point in curve.points], label=curve.adversary)
        axes.fill_between(x, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    file = io.BytesIO()
    drawing.savefig(file, format="png")
    with Image.open(file) as image:
        pixels = torch.from_numpy(np.array(image.convert("RGB")))
    return Chart(pixels, tuple(curve.adversary for curve in curves))
