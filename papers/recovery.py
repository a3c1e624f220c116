"""Recovery from attackers who know of no channel (ICLR draft, figures 1, 6 to 8, tables 3, 4; EEPD figure 1)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from matplotlib.figure import Figure

from papers.bench import Bench
from papers.clean import draw
from papers.experiment import Findings, Table, Value, beside
from papers.families import axis_of, compression
from papers.passing import CLEAN, IDENTITY, Curves, Passing, Point
from papers.recovery_claims import RULES, bounded_by_clean
from papers.style import COLORS, MARKERS, legend_below, panels
from papers.tuning import Recovered, Tuned, best
from papers.verdicts import percent


@dataclass(frozen=True)
class Recovery(Passing):
    """Attacked images behind each family of channels: accuracy in % against distortion or parameter, and the best.

    Printed rows of the table of best channels: "SIDE, ATTACK, FAMILY", columns "accuracy (%)" and "parameter". Where
    the parameter suits all attacks of a side at once, ATTACK is "all".

    Args:
        tune_on: by side, on how many other images parameters are chosen at most; otherwise on as many as are reported.
        against: of the figure: the channel's mean L2 distortion, its parameter, or no figure.
        together: families that share a panel of a figure against parameters; one panel for each group and side.
        for_all: whether a parameter is chosen for all attacks of a side together.
        rules: which claims are judged, see `papers.recovery_claims`.
    """

    tune_on: dict[str, int] = field(default_factory=dict)
    against: Literal["distortion", "parameter", "none"] = "distortion"
    together: list[list[str]] = field(default_factory=list)
    for_all: bool = False
    rules: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        if odd := [rule for rule in self.rules if rule not in {*RULES, "bounded_by_clean"}]:
            raise ValueError(f"no rule is called {odd[0]}; known: {', '.join([*RULES, 'bounded_by_clean'])}")
        if wrong := [name for name, most in self.tune_on.items() if name not in self.sides or most < 1]:
            told = f"{wrong[0]}: {self.tune_on[wrong[0]]}"
            raise ValueError(f"tune_on takes counts above 0 for {', '.join(self.sides)}, got {told}")

    def tuned_on(self, side: str, situation: str) -> int:
        """See `Passing`; of clean images none are."""
        n = self.n[side][situation]
        return 0 if situation == CLEAN else min(n, self.tune_on.get(side, n))

    def run(self, bench: Bench) -> Findings:
        """See `Experiment`."""
        reported, tuned = {}, {}
        for names in self.situations():
            reported[names] = self.curves(bench, *names)
            if self.tuned_on(*names):
                tuned[names] = self.curves(bench, *names, tuning=True)
        found = self._recovered(reported, tuned)
        clean = {side: curves for (side, situation), curves in reported.items() if situation == CLEAN}
        verdicts = [verdict for rule in self.rules if rule in RULES for verdict in RULES[rule](found)]
        if "bounded_by_clean" in self.rules:
            verdicts += bounded_by_clean(found, clean)
        drawn: dict[str, Callable[[Mapping[tuple[str, str], Curves]], Figure]] = {
            "distortion": self._against_distortion,
            "parameter": self._against_parameter,
        }
        figures: dict[str, Figure] = {self.against: drawn[self.against](reported)} if self.against in drawn else {}
        return Findings([self._best(found), self._every(reported)], figures, verdicts)

    def _recovered(
        self, reported: Mapping[tuple[str, str], Curves], tuned: Mapping[tuple[str, str], Curves]
    ) -> list[Recovered]:
        found = []
        for names in tuned:
            suited = [each for each in tuned if each[0] == names[0]] if self.for_all else [names]
            choices: dict[str, Tuned] = {
                family: best([tuned[each][family] for each in suited]) for family in self.parameters
            }
            found.append(Recovered(*names, reported[names], choices))
        return found

    def _best(self, found: Sequence[Recovered]) -> Table:
        ours: dict[str, dict[str, Value]] = {}
        for of in found:
            for family, choice in of.choices.items():
                low, high = sorted(choice.interval())
                parameter = Value(choice.parameter, low, high)
                if self.for_all:
                    ours.setdefault(f"{of.side}, all, {family}", {})["parameter"] = parameter
                else:
                    ours[f"{of.side}, {of.attack}, {family}"] = {"parameter": parameter}
                ours.setdefault(f"{of.side}, {of.attack}, {family}", {}).update(_numbers(of.at_best(family)))
            ours[f"{of.side}, {of.attack}, {IDENTITY}"] = _numbers(of.curves[IDENTITY][0])
        caption = (
            f"{self.title}. {self._images()} Parameters are chosen on other images ({self._tuned()}), their "
            "intervals are those of parameters that cannot be told from the chosen one there (paired, 95 %); accuracy "
            "with 95 % bootstrap intervals over images, L2 from the clean image in pixels of [0, 1]."
        )
        return beside("best", ours, self.printed, caption)

    def _every(self, reported: Mapping[tuple[str, str], Curves]) -> Table:
        rows: list[list[str | float | Value | None]] = []
        for (side, situation), curves in reported.items():
            for family, points in curves.items():
                for point in points:
                    accuracy, l2 = percent(point.right), float(point.l2.mean())
                    rows.append([side, situation, family, point.parameter, accuracy, l2])
        header = ["side", "attack", "channel", "parameter", "accuracy (%)", "mean L2"]
        return Table("curves", header, rows, f"{self.title}: every parameter. {self._images()}")

    def _tuned(self) -> str:
        counts = [(*names, self.tuned_on(*names)) for names in self.situations()]
        return ", ".join(f"{side}, {attack}: {n}" for side, attack, n in counts if n)

    def _images(self) -> str:
        parts = []
        for side, situation in self.situations():
            of = self.sides[side]
            attack = f" ({of.attacks[situation]}, {of.draws} draws)" if situation in of.attacks else ""
            parts.append(f"{side}, {of.network}, {situation}{attack}: n = {self.n[side][situation]}")
        return f"{'; '.join(parts)}."

    def _against_distortion(self, reported: Mapping[tuple[str, str], Curves]) -> Figure:
        attacked = {names: curves for names, curves in reported.items() if names[1] != CLEAN}
        figure, axes = panels(-(-len(attacked) // 2), 2)
        for each, ((side, attack), curves) in zip(axes, attacked.items(), strict=False):
            each.set(title=f"{attack}, {side}, n = {self.n[side][attack]}", ylim=(0, 103))
            each.set(xlabel="L2 distortion of the channel", ylabel="accuracy (%)")
            for family, color, marker in zip(self.parameters, COLORS, MARKERS, strict=False):
                points = sorted(curves[family], key=lambda point: point.l2.mean())
                x, y = [float(point.l2.mean()) for point in points], [percent(point.right) for point in points]
                draw(each, x, y, label=family, color=color, marker=marker)
        for each in axes[len(attacked) :]:
            each.set_visible(False)
        legend_below(figure, axes[: len(attacked)])
        return figure

    def _against_parameter(self, reported: Mapping[tuple[str, str], Curves]) -> Figure:
        sides = list(dict.fromkeys(side for side, _ in reported))
        figure, axes = panels(len(sides), len(self.together))
        places = [(side, group) for side in sides for group in self.together]
        for each, (side, group) in zip(axes, places, strict=True):
            each.set(title=side, xlabel=axis_of(group[0]), ylabel="accuracy (%)", ylim=(0, 103))
            lines = [
                (family, situation, curves[family])
                for (of, situation), curves in reported.items()
                if of == side
                for family in group
            ]
            for number, (family, situation, points) in enumerate(lines):
                x = [compression(family, point.parameter) for point in points]
                style = {"color": COLORS[number % len(COLORS)], "marker": MARKERS[number % len(MARKERS)]}
                label = situation if len(group) == 1 else f"{family}, {situation}"
                draw(each, x, [percent(point.right) for point in points], label=label, **style)
                theirs = self.printed.get(f"{side}, {situation}, {family}", {})
                if {"parameter", "accuracy (%)"} <= set(theirs):
                    each.plot([theirs["parameter"]], [theirs["accuracy (%)"]], "kx", zorder=4)
            each.legend(fontsize=7)
        return figure


def _numbers(point: Point) -> dict[str, Value]:
    return {"accuracy (%)": percent(point.right), "L2": Value(float(point.l2.mean()))}
