"""EEPD figure 4 with attacks as strong as known today: what remains of the ranking of its networks."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attacks import Attack
from defenses import has_shared_draws, is_random
from evaluation import WORST_CASE, Comparison, Cost, Rows, Setting, compare, l2_curves, summary_of, worst_case
from evaluation.batch import counted
from papers.bench import Bench, Source
from papers.experiment import Experiment, Findings, Outcome, Table, Value, Verdict
from papers.kept import Arrays
from papers.style import COLORS, MARKERS, panels

_OUTCOMES: dict[str, Outcome] = {"A higher": "confirmed", "B higher": "refuted", "undecided": "undecided"}
_CLEAN = "clean"
Evaluated = dict[str, dict[str, Rows]]


@dataclass(frozen=True)
class Strongest(Experiment):
    """Networks under the worst of several attacks in a ball, and under attacks that look for the smallest L2.

    Every draw that is judged is one that no attack has seen. The worst case is `evaluation.worst_case`: the attack of
    each image is chosen on one half of the draws and scored on the other.

    Args:
        networks: name in the figure -> name of the network, from the highest to the lowest of the papers' ranking.
        data: the data set.
        n: images, the first of the test split.
        n_nearest: images under `nearest`, which are slow, the first of those n; None: all.
        draws: passes of a random network per image, an even number.
        bounded: attacks in one ball, by name; they make up the worst case.
        nearest: attacks that look for the smallest L2, by name.
        radii: L2 distances at which accuracy under `nearest` is compared.
    """

    networks: dict[str, str] = field(default_factory=dict)
    data: str = "CIFAR10"
    n: int = 200
    n_nearest: int | None = None
    draws: int = 40
    bounded: dict[str, Attack] = field(default_factory=dict)
    nearest: dict[str, Attack] = field(default_factory=dict)
    radii: list[float] = field(default_factory=lambda: [0.25, 0.5, 1.0])

    def cost(self, bench: Bench) -> Cost:
        """See `Experiment`."""
        inside, nearby = self._sources()
        jobs = [(None, inside), *((attack, inside) for attack in self.bounded.values())]
        jobs += [(attack, nearby) for attack in self.nearest.values()]
        return sum(
            (
                bench.cost(bench.network(name), attack, source, self.draws)
                for name in self.networks.values()
                for attack, source in jobs
            ),
            Cost(),
        )

    def run(self, bench: Bench) -> Findings:
        """See `Experiment`."""
        settings = {name: self._setting(bench, file) for name, file in self.networks.items()}
        all_images, some = self._sources()
        inside = {name: self._rows(bench, file, self.bounded, all_images) for name, file in self.networks.items()}
        nearby = {name: self._rows(bench, file, self.nearest, some) for name, file in self.networks.items()}
        caption = self._caption()
        compared = {
            (a, b): compare(inside[a], inside[b], settings[a], settings[b]) for a, b in combinations(self.networks, 2)
        }
        tables = [
            _accuracies(inside, settings, caption),
            _differences(compared, caption),
            *([self._distances(nearby, settings, caption)] if self.nearest else []),
        ]
        return Findings(tables, {"strong": self._figure(inside, nearby, settings)}, self._verdicts(compared))

    def _setting(self, bench: Bench, name: str) -> Setting:
        module = bench.network(name).module
        return Setting(is_random(module), has_shared_draws(module))

    def _sources(self) -> tuple[Source, Source]:
        """The images of the attacks in a ball, and of those that look for the smallest L2."""
        some = self.n if self.n_nearest is None else min(self.n, self.n_nearest)
        return Source(self.data, self.n), Source(self.data, some)

    def _rows(self, bench: Bench, name: str, attacks: Mapping[str, Attack], source: Source) -> dict[str, Rows]:
        network, found = bench.network(name), {}
        for title, attack in {_CLEAN: None, **attacks}.items():
            found[title] = rows_from(title, bench.judged(network, source, self.draws, attack=attack), source)
            bench.say(f"{name}: {title}: done")
        return found

    def _caption(self) -> str:
        attacks = "; ".join(f"{name}: {attack}" for name, attack in {**self.bounded, **self.nearest}.items())
        some = self._sources()[1].n
        n = f"n = {self.n}" + (f" (the first {some} for the smallest L2)" if self.nearest and some < self.n else "")
        return (
            f"{self.title}. {self.data}, {n}, {self.draws} fresh draws of a random network per image; "
            "accuracy of a single draw in %, 95 % intervals (Wilson; bootstrap over images, and over passes where a "
            f"batch shares them). {attacks}. Worst case: attack chosen per image on half of the draws, scored on the "
            "other half."
        )

    def _distances(self, nearby: Evaluated, settings: Mapping[str, Setting], caption: str) -> Table:
        rows: list[list[str | float | Value | None]] = []
        for name, tables in nearby.items():
            for attack in self.nearest:
                l2 = tables[attack].l2[tables[_CLEAN].right.mean(axis=1) > 0.5]
                moved = 100 * float((l2 > 0).mean()) if len(l2) else None  # an image that nothing broke comes back
                l2 = l2[l2 > 0]
                right = within_radius(tables, attack, settings[name].random, self.radii)
                median = float(np.median(l2)) if len(l2) else None
                rows.append([name, attack, moved, median, *(100 * right.mean(axis=(0, 1))).tolist()])
        header = ["network", "attack", "broken on the way, % of those right when clean", "their median L2"]
        return Table("distances", [*header, *(f"accuracy % at L2 {radius:g}" for radius in self.radii)], rows, caption)

    def _verdicts(self, compared: Mapping[tuple[str, str], list[Comparison]]) -> list[Verdict]:
        """Whether the order of any two in the papers' ranking remains in the worst case."""
        verdicts = []
        for (a, b), parts in compared.items():
            found = parts[-1]
            points = f"{100 * found.difference:+.1f} points {_ends(found)}"
            text = f"{a} keeps more than {b} under the strongest attacks ({found.adversary})"
            verdicts.append(Verdict(text, _OUTCOMES[found.verdict], f"{points}, paired over {found.n} images"))
        return verdicts

    def _figure(self, inside: Evaluated, nearby: Evaluated, settings: Mapping[str, Setting]) -> Figure:
        figure, axes = panels(1, 2 if self.nearest else 1, 5.6, 4.0)
        _by_attack(axes[0], inside, settings)
        if self.nearest:
            for place, (name, tables) in enumerate(nearby.items()):
                for style, curve in zip(("-", "--", ":"), l2_curves(tables, settings[name]), strict=False):
                    x = [point.radius for point in curve.points]
                    y = [100 * point.accuracy for point in curve.points]
                    axes[1].plot(x, y, style, color=COLORS[place], label=f"{name}, {curve.adversary}")
            axes[1].set(title="smallest L2", xlabel="L2", ylim=(0, 100), xlim=(0, 2))
            axes[1].legend(fontsize=7)
        return figure


def rows_from(name: str, judged: Arrays, source: Source) -> Rows:
    """What `Bench.judged` found as rows of an evaluation; what the bench does not keep is empty or NaN."""
    answers, label = judged["answers"].astype(np.int64), judged["label"].astype(np.int64)
    n, classes = len(label), int(max(answers.max(), label.max())) + 1
    nothing = np.zeros(n, dtype=np.int64)
    return Rows(
        adversary=name,
        index=np.arange(source.first, source.first + n),
        label=label,
        batch=np.arange(n) // source.size,
        answers=answers,
        counts=counted(answers, classes),
        probs=np.full((n, classes), np.nan),
        l2=judged["l2"].astype(np.float64),
        linf=judged["linf"].astype(np.float64),
        queries=nothing,
        zero_gradient=nothing.astype(bool),
        erred=nothing.astype(bool),
        loss=np.empty((n, 0)),
        unfinished=np.full(n, np.nan),
    )


def within_radius(tables: Mapping[str, Rows], attack: str, random: bool, radii: list[float]) -> np.ndarray:
    """Right answers [n, passes, radii] where an image that was moved further than the radius stays as it was."""
    before, after = tables[_CLEAN].right, tables[attack].right
    if not random:
        after = before & after
    near = tables[attack].l2[:, None] <= np.asarray(radii)
    return np.where(near[:, None, :], after[:, :, None], before[:, :, None])


def _accuracies(inside: Evaluated, settings: Mapping[str, Setting], caption: str) -> Table:
    attacks = list(next(iter(inside.values())))
    rows: list[list[str | float | Value | None]] = []
    for name, tables in inside.items():
        rows.append([name, *(_value(*cell) for cell in _cells(tables, settings[name]))])
    return Table("accuracy", ["network", *attacks, WORST_CASE], rows, caption)


def _cells(tables: Mapping[str, Rows], setting: Setting) -> list[tuple[float, tuple[float, float]]]:
    each = [summary_of(rows, setting) for rows in tables.values()]
    worst = worst_case(tables, setting)
    return [*((part.accuracy, part.interval) for part in each), (worst.accuracy, worst.interval)]


def _value(accuracy: float, interval: tuple[float, float]) -> Value:
    return Value(100 * accuracy, 100 * interval[0], 100 * interval[1])


def _differences(compared: Mapping[tuple[str, str], list[Comparison]], caption: str) -> Table:
    rows: list[list[str | float | Value | None]] = [
        [a, b, part.adversary, _value(part.difference, part.interval), part.verdict]
        for (a, b), parts in compared.items()
        for part in parts
    ]
    header = ["A", "B", "attack", "A - B, points", "verdict"]
    return Table("differences", header, rows, f"{caption} Differences are paired over images.")


def _ends(found: Comparison) -> str:
    return f"[{100 * found.interval[0]:+.1f}, {100 * found.interval[1]:+.1f}]"


def _by_attack(axes: Axes, inside: Evaluated, settings: Mapping[str, Setting]) -> None:
    attacks = [*next(iter(inside.values())), WORST_CASE]
    for place, (name, tables) in enumerate(inside.items()):
        values = [_value(*cell) for cell in _cells(tables, settings[name])]
        x = np.arange(len(attacks)) + 0.12 * (place - (len(inside) - 1) / 2)
        y = np.array([value.value for value in values])
        low, high = (np.array([value[end] for value in values], dtype=float) for end in (1, 2))
        errors = np.stack([y - low, high - y]).clip(0)
        axes.errorbar(x, y, errors, ls="", marker=MARKERS[place], color=COLORS[place], label=name, ms=5)
    axes.set_xticks(range(len(attacks)), attacks, rotation=25, ha="right", fontsize=8)
    axes.set(ylabel="accuracy %", ylim=(0, 100), title="in the ball")
    axes.legend(fontsize=8)
