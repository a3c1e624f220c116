"""Line charts as coordinates: a template draws them as inline SVG, a style sheet gives them the page's colours."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

# In units of the drawing. About as wide as a phone, so that the letters are not made smaller there.
WIDTH, HEIGHT = 360, 232
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 342, 10, 192
_POINTS = 200  # a line of more has no more to show, but would make the page large


@dataclass(frozen=True, eq=False)
class Line:
    """One line of a chart, and a band around it if there is one; points that are not finite are left out.

    Args:
        name: what the legend calls it.
        series: number of its colour and dash, the same for the same adversary in all charts of a page.
        x, y: its points, [points], x in ascending order.
        low, high: ends of the band, [points].
        stepped: whether the value holds until the next point, as that of a distribution function does.
    """

    name: str
    series: int
    x: NDArray[np.floating]
    y: NDArray[np.floating]
    low: NDArray[np.floating] | None = None
    high: NDArray[np.floating] | None = None
    stepped: bool = False


@dataclass(frozen=True)
class Drawn:
    """A line in the drawing: SVG path data (`band` may be empty) and, if the points are few, their places."""

    name: str
    series: int
    path: str
    band: str
    dots: tuple[tuple[float, float], ...]

    @property
    def named(self) -> tuple[str, int]:
        """What the legend needs."""
        return self.name, self.series


@dataclass(frozen=True)
class Chart:
    """A chart, all places in units of the drawing.

    Attributes:
        title, x_label, y_label: text.
        caption: what is seen, of how many images, and what the band is.
        lines: in the order of the legend.
        x_ticks, y_ticks: (place, label).
    """

    title: str
    caption: str
    x_label: str
    y_label: str
    lines: tuple[Drawn, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = _LEFT
    right: int = _RIGHT
    top: int = _TOP
    bottom: int = _BOTTOM

    @property
    def spoken(self) -> str:
        """What a screen reader says in place of the drawing."""
        return f"{self.title}: {self.y_label} over {self.x_label}, {', '.join(line.name for line in self.lines)}"


def chart(
    lines: Sequence[Line],
    title: str,
    caption: str,
    x_label: str,
    y_label: str,
    y_range: tuple[float, float] | None = None,
) -> Chart | None:
    """Draws lines into one frame; None if no line has a point.

    Args:
        lines: from the first on in the order of the legend.
        title: above the chart.
        caption: below it.
        x_label: with the unit.
        y_label: with the unit.
        y_range: ends of the vertical axis; by default as the lines and bands need it.
    """
    lines = [kept for line in lines if len((kept := _finite(line)).x)]
    if not lines:
        return None
    x_axis = _axis(np.concatenate([line.x for line in lines]), _LEFT, _RIGHT)
    heights = [part for line in lines for part in (line.y, line.low, line.high) if part is not None]
    y_axis = _axis(np.array(y_range) if y_range else np.concatenate(heights), _BOTTOM, _TOP, whole=bool(y_range))
    drawn = tuple(_drawn(line, x_axis, y_axis) for line in lines)
    return Chart(title, caption, x_label, y_label, drawn, x_axis.ticks, y_axis.ticks)


@dataclass(frozen=True)
class _Axis:
    """Values in first..last lie evenly from `start` to `end`."""

    first: float
    last: float
    start: float
    end: float
    ticks: tuple[tuple[float, str], ...] = ()

    def place(self, values: NDArray[np.floating]) -> NDArray[np.floating]:
        """Values -> places, both [points]."""
        share = (values - self.first) / (self.last - self.first)
        places: NDArray[np.floating] = self.start + share * (self.end - self.start)
        return places


def _axis(values: NDArray[np.floating], start: float, end: float, whole: bool = False) -> _Axis:
    """The axis of all values; it ends where they do (`whole`: the given ends stay), or at a tick close by."""
    first, last = float(values.min()), float(values.max())
    if first == last:
        first, last = first - (abs(first) / 2 or 0.5), last + (abs(last) / 2 or 0.5)
    if not whole:
        margin = 0.03 * (last - first)
        first, last = (first if first == 0 else first - margin), last + margin
    bare = _Axis(first, last, start, end)
    marks = np.array([mark for mark in MaxNLocator(nbins=5).tick_values(first, last) if first <= mark <= last])
    labels = [f"{mark:.6g}" for mark in np.where(np.abs(marks) < 1e-9 * (last - first), 0, marks)]
    return _Axis(first, last, start, end, tuple(zip(np.round(bare.place(marks), 1).tolist(), labels, strict=True)))


def _finite(line: Line) -> Line:
    """The line without points that are not finite, thinned out if it has very many."""
    parts = [line.x, line.y] + [part for part in (line.low, line.high) if part is not None]
    good = np.flatnonzero(np.all([np.isfinite(part) for part in parts], axis=0))
    if len(good) > _POINTS:
        good = good[np.linspace(0, len(good) - 1, _POINTS).round().astype(int)]
    low, high = (None if part is None else np.asarray(part, float)[good] for part in (line.low, line.high))
    x, y = np.asarray(line.x, float)[good], np.asarray(line.y, float)[good]
    return Line(line.name, line.series, x, y, low, high, line.stepped)


def _drawn(line: Line, x_axis: _Axis, y_axis: _Axis) -> Drawn:
    x, y = x_axis.place(line.x), y_axis.place(line.y)
    band = ""
    if line.low is not None and line.high is not None:
        upper = _points(x, y_axis.place(line.high), line.stepped)
        lower = _points(x, y_axis.place(line.low), line.stepped)
        band = f"M{' L'.join([*upper, *lower[::-1]])} Z"
    few = len(x) <= 12 and not line.stepped
    dots = tuple(zip(np.round(x, 1).tolist(), np.round(y, 1).tolist(), strict=True)) if few else ()
    return Drawn(line.name, line.series, f"M{' L'.join(_points(x, y, line.stepped))}", band, dots)


def _points(x: NDArray[np.floating], y: NDArray[np.floating], stepped: bool) -> list[str]:
    if stepped:
        x, y = np.repeat(x, 2)[1:], np.repeat(y, 2)[:-1]
    return [f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True)]
