"""The figure of `AttackCurves`: a panel for each attack and axis, printed points as black crosses."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from papers.curve import AttackCurve
from papers.style import COLORS, MARKERS, legend_below, panels
from papers.sweeps import Panel

_COLUMNS = 3
_LABELS = {"strength": "strength", "l2": "L2 (RMS)", "mean_l2": "L2 (mean)", "linf": "Linf (mean)"}


def drawn(
    which: Mapping[str, Panel],
    curves: Mapping[tuple[str, str], AttackCurve],
    defenses: Sequence[str],
    printed: Mapping[str, Mapping[str, float]],
) -> Figure:
    """The figure.

    Args:
        which: panels by title.
        curves: (panel, defense) -> its curve.
        defenses: all of them, in the order of colours, which are the same in all panels.
        printed: see `AttackCurves`; "L2 at ..." says nothing about accuracy and is drawn as a dotted line.
    """
    columns = min(_COLUMNS, len(which))
    rows = -(-(len(which)) // columns)
    figure, axes = panels(rows, columns, 4.2, 3.4)
    for place, (each, (title, panel)) in enumerate(zip(axes, which.items(), strict=False)):
        _panel(each, title, panel, curves, defenses)
        _printed(each, title, defenses, printed)
        if place % columns == 0:
            each.set_ylabel("accuracy %")
    for each in axes[len(which) :]:
        each.set_visible(False)
    legend_below(figure, axes)
    return figure


def _panel(
    each: Axes,
    title: str,
    panel: Panel,
    curves: Mapping[tuple[str, str], AttackCurve],
    defenses: Sequence[str],
) -> None:
    strengths: set[float] = set()
    for place, name in enumerate(defenses):
        curve = curves.get((title, name))
        if curve is None:
            continue
        x, values = curve.axis(panel.axis), curve.accuracy()
        y = [value.value for value in values]
        errors = [
            [max(0.0, value.value - (value.low or 0.0)) for value in values],
            [max(0.0, (value.high or 0.0) - value.value) for value in values],
        ]
        style = "-" if place < len(COLORS) else "--"
        color, marker = COLORS[place % len(COLORS)], MARKERS[place % len(MARKERS)]
        each.errorbar(x, y, errors, label=name, color=color, marker=marker, ls=style, ms=4, lw=1.3, elinewidth=0.8)
        strengths |= set(x.tolist())
    if panel.log and strengths - {0.0}:
        # Linear from 0 to the smallest strength, so that the clean images have a place.
        each.set_xscale("symlog", linthresh=min(strengths - {0.0}), linscale=0.5)
        each.set_xticks(sorted(strengths), [f"{x:g}" for x in sorted(strengths)], rotation=60, fontsize=8)
        each.set_xticks([], minor=True)
        each.set_xlim(left=0)
    each.set(title=title, xlabel=panel.label or _LABELS[panel.axis], ylim=(0, 100))
    if not any(panel_title == title for panel_title, _ in curves):
        each.text(0.5, 0.5, "no network of this panel yet", ha="center", transform=each.transAxes)


def _printed(each: Axes, title: str, defenses: Sequence[str], printed: Mapping[str, Mapping[str, float]]) -> None:
    for row, cells in printed.items():
        if row.partition(": ")[0] != title:
            continue
        points = {float(x): y for x, y in cells.items() if not x.startswith("L2 at ")}
        # Crosses of one defense are joined in its colour, so that they can be told from another's.
        color = COLORS[list(defenses).index(row.partition(": ")[2]) % len(COLORS)]
        each.plot(list(points), list(points.values()), ":", color=color, lw=1)
        each.plot(list(points), list(points.values()), "kx", ms=5, mew=1.0, label="printed" if points else None)
        for name, distance in cells.items():
            if name.startswith("L2 at "):
                each.axvline(distance, color="black", ls=":", lw=1)
                text = f" printed {row.partition(': ')[2]}, {name.removeprefix('L2 at ')}"
                each.text(distance, 99, text, rotation=90, va="top", ha="right", fontsize=6)
