"""Accuracy as attacks grow stronger, over their strength or over the distortion that they take.

EEPD figures 3, 4, 5, 17; draft figures 2, 20.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from attacks import Attack
from defenses import has_shared_draws, is_random
from evaluation import Cost
from papers.bench import Bench, MissingNetwork, Network, Source
from papers.claims import Claim, verdict_on
from papers.curve import AttackCurve, Axis
from papers.curve_figure import drawn
from papers.experiment import Experiment, Findings, Table, Value, Verdict, beside
from papers.sweeps import Defense, Panel, Sweep

_L2_AT = "L2 at "
Curves = dict[tuple[str, str], AttackCurve]


@dataclass(frozen=True)
class AttackCurves(Experiment):
    """Each panel: one attack at several strengths, one curve for each defense. Networks that are missing are left out.

    Accuracy is that of a single draw, in %: the mean over `draws` passes that no attack has seen (the papers judged
    one). `printed` is "PANEL: DEFENSE" -> place on the panel's axis -> accuracy, or -> "L2 at STRENGTH" -> root mean
    square of the L2 norms.

    Args:
        data: the data set.
        n: images, the first of the test split.
        draws: passes of a random defense per image.
        defenses: by the papers' names.
        sweeps: attacks by name.
        panels: by title.
        verdicts: what the papers conclude, and what follows here.
        note: what the caption says beside data, n, draws and intervals.
    """

    data: str = "CIFAR10"
    n: int = 500
    draws: int = 20
    defenses: dict[str, Defense] = field(default_factory=dict)
    sweeps: dict[str, Sweep] = field(default_factory=dict)
    panels: dict[str, Panel] = field(default_factory=dict)
    verdicts: list[Claim] = field(default_factory=list)
    note: str = ""

    def cost(self, bench: Bench) -> Cost:
        """See `Experiment`."""
        networks, _ = self._networks(bench)
        unit: dict[tuple[bool, bool, str], Cost] = {}

        def passes(network: Network, attack: Attack, n: int) -> Cost:
            key = (is_random(network.module), has_shared_draws(network.module), repr(attack))
            if key not in unit:  # tried out on stand-ins, which takes a moment
                judged = Cost(forward=0 if key[0] else -1)  # counted below
                unit[key] = bench.cost(network, attack, Source(self.data, 1), 0) + judged
            return unit[key] * n

        made = {
            (on.key, repr(attack), source.n): passes(on, attack, source.n)
            for _, _, on, attack, source in self._jobs(networks)
            if attack is not None
        }
        answers = {
            (network.key, on.key if attack else "", repr(attack), source.n): source.n
            * (self.draws if is_random(network.module) else 1)
            for _, network, on, attack, source in self._jobs(networks)
        }
        return sum(made.values(), Cost(forward=sum(answers.values())))

    def run(self, bench: Bench) -> Findings:
        """See `Experiment`."""
        networks, missing = self._networks(bench)
        for name, why in missing.items():
            bench.say(f"{name} is left out: {why}")
        curves = self._curves(bench, networks)
        axes: dict[str, Axis] = {title: panel.axis for title, panel in self.panels.items()}
        caption = self._caption(missing)
        tables = [self._points(curves, caption), self._who(networks, missing)]
        if ours := self._beside_printed(curves, axes):
            tables.insert(0, beside("printed", ours, self.printed, f"{caption} Beside what the papers print."))
        found = [verdict_on(claim, curves, axes, missing) for claim in self.verdicts]
        figure = drawn(self.panels, curves, list(self.defenses), self.printed)
        return Findings(tables, {"curves": figure}, [*found, *self._missing_panels(curves)])

    def _networks(self, bench: Bench) -> tuple[dict[str, Network], dict[str, str]]:
        networks, missing = {}, {}
        for name, defense in self.defenses.items():
            try:
                networks[name] = defense.on(bench)
            except MissingNetwork as error:
                missing[name] = str(error)
        return networks, missing

    def _of(self, panel: Panel, networks: Mapping[str, Network]) -> Iterator[tuple[str, Network, Network]]:
        """Of a panel: name, defense, and the network that images are made on, as far as both are there."""
        for name in panel.defenses or self.defenses:
            if name in networks and (panel.made_on or name) in networks:
                yield name, networks[name], networks[panel.made_on or name]

    def _jobs(self, networks: Mapping[str, Network]) -> Iterator[tuple[str, Network, Network, Attack | None, Source]]:
        for panel in self.panels.values():
            sweep = self.sweeps[panel.sweep]
            for name, network, made_on in self._of(panel, networks):
                for attack in sweep.attacks().values():
                    yield name, network, made_on, attack, self._source(sweep)

    def _source(self, sweep: Sweep) -> Source:
        return Source(self.data, min(self.n, sweep.at_most))

    def _curves(self, bench: Bench, networks: Mapping[str, Network]) -> Curves:
        curves: Curves = {}
        known: dict[tuple[str, str, str], AttackCurve] = {}
        for title, panel in self.panels.items():
            for name, network, made_on in self._of(panel, networks):
                key = (panel.sweep, network.key, made_on.key)
                if key not in known:
                    known[key] = self._curve(bench, self.sweeps[panel.sweep], network, made_on)
                    bench.say(f"{title}: {name}: done")
                curves[title, name] = known[key]
        return curves

    def _curve(self, bench: Bench, sweep: Sweep, network: Network, made_on: Network) -> AttackCurve:
        attacks, source = sweep.attacks(), self._source(sweep)
        found = [bench.judged(network, source, self.draws, made_on, attack) for attack in attacks.values()]
        return AttackCurve(
            strengths=np.array(list(attacks)),
            right=np.stack([part["answers"] == part["label"][:, None] for part in found]),
            l2=np.stack([part["l2"] for part in found]).astype(np.float64),
            linf=np.stack([part["linf"] for part in found]).astype(np.float64),
            batch=np.arange(source.n) // source.size if has_shared_draws(network.module) else None,
            random=is_random(network.module),
        )

    def _caption(self, missing: Mapping[str, str]) -> str:
        sizes = [f"{name}: {sweep.attack}, n = {self._source(sweep).n}" for name, sweep in self.sweeps.items()]
        left_out = f" Left out, since not trained yet: {', '.join(missing)}." if missing else ""
        return (
            f"{self.title}. {self.data}; {'; '.join(sizes)} (one setting varied); accuracy of a single draw in %, mean "
            f"over {self.draws} draws of a random defense per image; 95 % intervals over images: Wilson without, "
            f"bootstrap with randomness. {self.note}".strip()
            + left_out
        )

    def _points(self, curves: Curves, caption: str) -> Table:
        header = ["panel", "defense", "strength", "accuracy", "L2 RMS", "L2 mean", "Linf mean", "n"]
        rows: list[list[str | float | Value | None]] = []
        for (panel, defense), curve in curves.items():
            norms = [curve.axis("l2"), curve.axis("mean_l2"), curve.axis("linf")]
            for place, accuracy in enumerate(curve.accuracy()):
                distances = [round(float(norm[place]), 5) for norm in norms]
                rows.append(
                    [panel, defense, float(curve.strengths[place]), accuracy, *distances, str(curve.right.shape[1])]
                )
        return Table("points", header, rows, caption)

    def _who(self, networks: Mapping[str, Network], missing: Mapping[str, str]) -> Table:
        there: list[list[str | float | Value | None]] = [
            [name, network.name, network.key.partition(":")[2][-60:]] for name, network in networks.items()
        ]
        not_there: list[list[str | float | Value | None]] = [[name, f"missing: {why}", None]
                                                             for name, why in missing.items()]  # fmt: skip
        return Table("defenses", ["defense", "network", "weights"], [*there, *not_there], "Who the defenses are.")

    def _beside_printed(self, curves: Curves, axes: Mapping[str, Axis]) -> dict[str, dict[str, Value]]:
        ours: dict[str, dict[str, Value]] = {}
        for row, cells in self.printed.items():
            panel, _, defense = row.partition(": ")
            if panel not in self.panels:
                raise ValueError(f"printed numbers of an unknown panel: {row}; panels: {', '.join(self.panels)}")
            curve = curves.get((panel, defense))
            for column in cells if curve else ():
                value = _read(curve, axes[panel], column)
                if value is not None:
                    ours.setdefault(row, {})[column] = value
        return ours

    def _missing_panels(self, curves: Curves) -> list[Verdict]:
        drawn_panels = {panel for panel, _ in curves}
        why = "no network of this panel is there yet"
        return [
            Verdict(f"panel {title}", "not testable here", why) for title in self.panels if title not in drawn_panels
        ]


def _read(curve: AttackCurve | None, axis: Axis, column: str) -> Value | None:
    if curve is None:
        return None
    if column.startswith(_L2_AT):
        return curve.distortion("l2", float(column.removeprefix(_L2_AT)))
    return curve.accuracy_at(axis, float(column))
