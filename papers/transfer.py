"""Transfer between channels: attacked through channel A, defended by channel D (EEPD table 1, draft tables 1, 6, 7)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, product

import numpy as np
from matplotlib.figure import Figure

from attacks import Adversary, Attack, CarliniWagner, StraightThrough
from defenses import Channel
from evaluation import Cost
from papers.bench import Bench, Network, Source
from papers.experiment import Experiment, Findings, Outcome, Value, Verdict, beside
from papers.kept import Arrays
from papers.style import panels
from papers.verdicts import Numbers, difference, inside, mean_of, percent, together

_NOBODY = "Empty"  # the papers' row without an attack
_WORKED = 0.5  # of the images that were right: an attack that breaks fewer has failed


@dataclass(frozen=True)
class CellClaim:
    """What the papers conclude from a matrix. A cell "A>D" is attacked through A and defended by D.

    Args:
        text: the claim in our words.
        pairs: of cells, that with more first.
        by: the first of each pair holds at least so many points more (0: more).
        by_at_most: it holds at most so many points more; in the place of `by`.
        at_most: cell -> accuracy in % that it does not exceed.
        at_least: cell -> accuracy in % that it does not fall below.
    """

    text: str
    pairs: list[tuple[str, str]] = field(default_factory=list)
    by: float = 0.0
    by_at_most: float | None = None
    at_most: dict[str, float] = field(default_factory=dict)
    at_least: dict[str, float] = field(default_factory=dict)

    def verdict(self, shares: Mapping[tuple[str, str], np.ndarray], broken: Mapping[str, float]) -> Verdict:
        """The verdict; undecided where an attack failed on its own channel: what it leaves says nothing of defenses.

        Args:
            shares: of right answers per image, by (row, column).
            broken: row -> share of the images that its attack broke on its own channel.

        Raises:
            ValueError: a cell is not in the matrix.
        """
        cells = {f"{row}>{column}": values for (row, column), values in shares.items()}
        named = [*chain(*self.pairs), *self.at_most, *self.at_least]
        if unknown := [cell for cell in named if cell not in cells]:
            raise ValueError(f"a claim speaks of the unknown cell {unknown[0]}; cells: {', '.join(cells)}")
        rows = dict.fromkeys(cell.partition(">")[0] for cell in named)
        if failed := {row: broken[row] for row in rows if broken.get(row, 1.0) < _WORKED}:
            told = ", ".join(f"{row} {100 * share:.0f} %" for row, share in failed.items())
            return Verdict(self.text, "undecided", f"attacks broke too few images on their own channel: {told}")
        found = [self._of_pair(pair, cells) for pair in self.pairs]
        for cell in (*self.at_most, *self.at_least):
            accuracy = percent(cells[cell])
            limits = self.at_least.get(cell, 0.0), self.at_most.get(cell, 100.0)
            found.append((inside(accuracy, *limits), f"{cell}: {accuracy} %"))
        return Verdict(self.text, together([outcome for outcome, _ in found]), "; ".join(told for _, told in found))

    def _of_pair(self, pair: tuple[str, str], cells: Mapping[str, np.ndarray]) -> tuple[Outcome, str]:
        found = difference(cells[pair[0]], cells[pair[1]])
        told = f"{pair[0]} over {pair[1]}: {found.points()}"
        if self.by_at_most is None:
            by = self.by / 100
            return "confirmed" if found.low > by else "refuted" if found.high < by else "undecided", told
        return inside(found, most=self.by_at_most / 100), told


@dataclass(frozen=True)
class Transfer(Experiment):
    """Rows: the attacker's channel ("Empty": nobody attacks). Columns: the defender's. Cells: accuracy in %.

    Args:
        claims: about cells.
        network: its name.
        data: the data set.
        n: images.
        channels: by the papers' names.
        attack: on the network behind the attacker's channel.
        draws: passes of a random defense per image.
    """

    claims: list[CellClaim] = field(default_factory=list)
    network: str = "cifar10_resnet20_imagenet_norm"
    data: str = "CIFAR10"
    n: int = 500
    channels: dict[str, Channel] = field(default_factory=dict)
    attack: Attack = Adversary(
        CarliniWagner(steps=100, search_steps=5), StraightThrough(everywhere=True, at_image=True)
    )
    draws: int = 20

    def cost(self, bench: Bench) -> Cost:
        """See `Experiment`."""
        network, source = bench.network(self.network), Source(self.data, self.n)
        attacks = sum((bench.cost(network.behind([c]), self.attack, source) for c in self.channels.values()), Cost())
        judged = sum(
            (bench.cost(network.behind([c]), None, source, self.draws) for c in self.channels.values()), Cost()
        )
        return attacks + judged * (1 + len(self.channels))

    def run(self, bench: Bench) -> Findings:
        """See `Experiment`."""
        found = dict(self._found(bench))
        shares = {cell: _right(arrays) for cell, arrays in found.items()}
        ours: dict[str, dict[str, Value]] = {}
        for (row, column), share in shares.items():
            ours.setdefault(row, {})[column] = percent(share)
        attacked = {row: _attacked(shares[_NOBODY, row], found[row, row]) for row in self.channels}
        caption = (
            f"{self.title}. {self.network}, {self.data}, n = {self.n}; attack {self.attack}; {self.draws} draws of a "
            "random defense per image; accuracy in %, 95 % bootstrap intervals over images."
        )
        of_attacks = f"{caption} What the attack on each channel found, of images that are right behind it when clean."
        broken = {row: part["broken (%)"].value / 100 for row, part in attacked.items() if part}
        return Findings(
            [beside("cells", ours, self.printed, caption), beside("attacks", attacked, {}, of_attacks)],
            {"matrix": self._figure(ours)},
            [claim.verdict(shares, broken) for claim in self.claims],
        )

    def _found(self, bench: Bench) -> Iterator[tuple[tuple[str, str], Arrays]]:
        network, source = bench.network(self.network), Source(self.data, self.n)
        attackers: dict[str, Network | None] = {
            _NOBODY: None,
            **{a: network.behind([c]) for a, c in self.channels.items()},
        }
        for row, made_on in attackers.items():
            attack = None if made_on is None else self.attack
            for column, channel in self.channels.items():
                yield (row, column), bench.judged(network.behind([channel]), source, self.draws, made_on, attack)
            bench.say(f"{row}: done")

    def _figure(self, ours: dict[str, dict[str, Value]]) -> Figure:
        figure, axes = panels(1, 2, 5.0, 4.2)
        for each, (title, table) in zip(axes, {"ours": ours, "printed": self._printed_values()}.items(), strict=True):
            # Rows that were not printed stay blank, so that what is compared lies side by side.
            rows, columns = list(ours), list(self.channels)
            values = [[table.get(row, {}).get(column, Value(np.nan)).value for column in columns] for row in rows]
            each.grid(visible=False)
            each.set_title(title)
            if not table:
                each.text(0.5, 0.5, "no numbers printed", ha="center")
                continue
            each.imshow(values, vmin=0, vmax=100, cmap="cividis")
            each.set_xticks(range(len(columns)), columns, rotation=30)
            each.set_yticks(range(len(rows)), rows)
            each.set(xlabel="defended by", ylabel="attacked through")
            for i, j in product(range(len(rows)), range(len(columns))):
                if np.isfinite(values[i][j]):
                    color = "white" if values[i][j] < 50 else "black"
                    each.text(j, i, f"{values[i][j]:.1f}", ha="center", va="center", color=color, fontsize=8)
        return figure

    def _printed_values(self) -> dict[str, dict[str, Value]]:
        return {row: {column: Value(value) for column, value in cells.items()} for row, cells in self.printed.items()}


def _right(found: Arrays) -> Numbers:
    return (found["answers"] == found["label"][:, None]).mean(axis=1)


def _attacked(before: Numbers, found: Arrays) -> dict[str, Value]:
    """How many of the images that were right an attack found another image for, and how far away."""
    l2 = found["l2"][before > 0.5].astype(np.float64)
    if not len(l2):
        return {}
    broken = {"broken (%)": percent((l2 > 0).astype(np.float64))}
    return {**broken, "mean L2 of these": mean_of(l2[l2 > 0])} if (l2 > 0).any() else broken
