"""What channels cost on clean images (ICLR draft, table 2 and figure 5; EEPD figure 7)."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from papers.bench import Bench
from papers.experiment import Findings, Value, Verdict, beside
from papers.families import NOISES, axis_of, compression
from papers.passing import CLEAN, IDENTITY, Curves, Passing, Point
from papers.style import COLORS, MARKERS, panels
from papers.verdicts import all_above, all_within, percent

SAME = 0.01  # accuracies that differ by no more than this share of the images count as the same


@dataclass(frozen=True)
class CleanAccuracy(Passing):
    """Accuracy in % of clean images behind each family of channels, against its parameter.

    Of printed numbers the rows are "SIDE, FAMILY", the columns parameters.

    Args:
        mild: by family, a parameter that is said to cost nothing (up to 1 point).
        figure: whether there is one.
    """

    mild: dict[str, float] | None = None
    figure: bool = True

    def run(self, bench: Bench) -> Findings:
        """See `Experiment`."""
        found = {side: self.curves(bench, side, CLEAN) for side, _ in self.situations()}
        ours: dict[str, dict[str, Value]] = {}
        lengths: dict[str, dict[str, Value]] = {}
        for side, curves in found.items():
            for family, points in curves.items():
                row = f"{side}, {family}"
                ours[row] = {f"{point.parameter:g}": percent(point.right) for point in points}
                lengths[row] = {f"{point.parameter:g}": Value(float(point.l2.mean())) for point in points}
        images = "; ".join(f"{side}: {self.sides[side].network}, n = {self.n[side][CLEAN]}" for side in found)
        caption = f"{self.title}. {images}; one pass per image; "
        tables = [
            beside("accuracy", ours, self.printed, f"{caption}accuracy in %, 95 % bootstrap intervals over images."),
            beside("distortion", lengths, {}, f"{caption}mean L2 between channel(image) and image, pixels in [0, 1]."),
        ]
        verdicts = [verdict for side, curves in found.items() for verdict in self._verdicts(side, curves)]
        return Findings(tables, {"accuracy": self._figure(ours, found)} if self.figure else {}, verdicts)

    def _verdicts(self, side: str, curves: Curves) -> list[Verdict]:
        families = [family for family in curves if family != IDENTITY]
        verdicts = [
            all_above(
                f"{side}: every channel costs clean accuracy where it is strong",
                {family: (curves[IDENTITY][0].right, curves[family][-1].right) for family in families},
            )
        ]
        if self.mild:
            pairs = {
                f"{family} {parameter:g}": (point.right, curves[IDENTITY][0].right)
                for family, parameter in self.mild.items()
                if (point := _at(curves, family, parameter))
            }
            claim = f"{side}: a mild channel keeps clean accuracy, within {100 * SAME:g} point"
            verdicts.append(all_within(claim, pairs, SAME))
        if {"Gauss", "Uniform"} <= set(families):
            pairs = {
                f"{one.parameter:g}": (one.right, other.right)
                for one, other in product(curves["Gauss"], curves["Uniform"])
                if one.parameter == other.parameter
            }
            claim = f"{side}: Gaussian and uniform noise of one epsilon cost the same, within {100 * SAME:g} point"
            verdicts.append(all_within(claim, pairs, SAME))
        return verdicts

    def _figure(self, ours: Mapping[str, Mapping[str, Value]], found: Mapping[str, Curves]) -> Figure:
        figure, axes = panels(len(found), 2)
        for number, (side, curves) in enumerate(found.items()):
            kinds = [[f for f in curves if f != IDENTITY and (f in NOISES) == noisy] for noisy in (False, True)]
            for each, families in zip(axes[2 * number : 2 * number + 2], kinds, strict=True):
                each.set(title=side, xlabel=axis_of(families[0]) if families else "", ylabel="accuracy (%)")
                each.set_ylim(0, 103)
                unperturbed = ours[f"{side}, {IDENTITY}"]["0"].value
                each.axhline(unperturbed, color="grey", linestyle=":", label="no channel")
                for family, color, marker in zip(families, COLORS, MARKERS, strict=False):
                    values = ours[f"{side}, {family}"]
                    x = [compression(family, point.parameter) for point in curves[family]]
                    draw(each, x, list(values.values()), label=family, color=color, marker=marker)
                    crosses = self.printed.get(f"{side}, {family}", {})
                    places = [compression(family, float(parameter)) for parameter in crosses]
                    each.plot(places, list(crosses.values()), "x", color="black", zorder=4)
                    each.plot(places, list(crosses.values()), marker, mfc="none", mec=color, ms=10, linestyle="none")
                if self.printed:
                    each.plot([], [], "x", color="black", label="printed")
                each.legend(fontsize=7, loc="lower left")
        return figure


def _at(curves: Curves, family: str, parameter: float) -> Point | None:
    return next((point for point in curves.get(family, []) if point.parameter == parameter), None)


def draw(axes: Axes, x: list[float], values: list[Value], **style: Any) -> None:
    """A curve of percentages with its intervals as bars."""
    ends = [
        [each.value - (each.value if each.low is None else each.low) for each in values],
        [(each.value if each.high is None else each.high) - each.value for each in values],
    ]
    axes.errorbar(
        x, [each.value for each in values], yerr=ends, markersize=4, capsize=1.5, linewidth=1.2, elinewidth=0.6, **style
    )
