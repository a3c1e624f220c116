"""Several evaluations side by side, each pair of them compared on the images that both have, one by one."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from analysis.report.curves import compared_charts
from analysis.report.folder import Evaluation
from analysis.report.html import html
from analysis.report.results import Check, Estimate, checks, headlines, worst_case
from evaluation import WORST_CASE, Comparison, Setting, aligned, compare, setting_of
from evaluation.records import write_atomically


@dataclass(frozen=True)
class Pair:
    """Two runs by name, and their difference against each adversary, first minus second.

    Attributes:
        first, second: names.
        differences: by adversary.
        unlike: adversaries of one name but other settings in the two runs, and the worst case if there are any: what
            differs may be the attacks.
    """

    first: str
    second: str
    differences: dict[str, Comparison]
    unlike: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Compared:
    """Evaluations, read and compared.

    Attributes:
        runs: by name: the recipe, with the folder's name behind it where recipes repeat.
        pairs: each two of them, in order.
    """

    runs: dict[str, Evaluation]
    pairs: tuple[Pair, ...]

    @classmethod
    def of(cls, folders: Sequence[Path]) -> "Compared":
        """Reads and compares.

        Raises:
            FileNotFoundError: a folder holds no finished evaluation.
            ValueError: there are fewer than two, one is damaged, or two of them have no image in common.
        """
        if len(set(folders)) < 2 or len(set(folders)) < len(folders):
            raise ValueError(f"a comparison takes two or more different evaluations, got {len(set(folders))}")
        found = [Evaluation.read(folder) for folder in folders]
        runs = dict(zip(_names(found), found, strict=True))
        return cls(runs, tuple(_pair(runs, first, second) for first, second in combinations(runs, 2)))

    @property
    def sizes(self) -> list[int]:
        """How many images the comparisons are about: one number if all runs have the same images."""
        return sorted({one.n for pair in self.pairs for one in pair.differences.values()})

    @property
    def adversaries(self) -> list[str]:
        """What some pair was compared under: the worst case, clean, then the others."""
        names = dict.fromkeys(name for pair in self.pairs for name in pair.differences)
        first = [name for name in (WORST_CASE, "clean") if name in names]
        return [*first, *(name for name in names if name not in first)]

    def table(self) -> str:
        """For a terminal: of two runs every adversary, of more the clean images and the worst case."""
        shown = self.adversaries if len(self.pairs) == 1 else [*{WORST_CASE, "clean"} & {*self.adversaries}]
        cells = [["adversary", "A", "B", "A %", "B %", "A - B", "95 % interval", "verdict"]]
        for name in sorted(shown, key=self.adversaries.index):
            cells += [_cells(pair, pair.differences[name]) for pair in self.pairs if name in pair.differences]
        return aligned(cells)

    def write(self, out: Path) -> Path:
        """Writes the page, whole or not at all, and returns its path."""
        page = html(
            "comparison.html.j2",
            runs=self.runs,
            sizes=self.sizes,
            pairs=self.pairs,
            matrices=[(name, self._matrix(name)) for name in self.adversaries],
            accuracies=self._accuracies(),
            checks={name: checks(run) for name, run in self.runs.items()},
            doubts=self._doubts(),
            charts=compared_charts(self.runs),
            worst_case=WORST_CASE,
        )
        write_atomically(out, page.encode())
        return out

    def _matrix(self, adversary: str) -> list[tuple[str, list[tuple[Comparison, bool] | None]]]:
        """By row: a run, and for each later one its difference to it, and whether their attacks were unlike.

        None where two were not compared.
        """
        names = list(self.runs)
        known = {
            (pair.first, pair.second): (pair.differences[adversary], adversary in pair.unlike)
            for pair in self.pairs
            if adversary in pair.differences
        }
        return [(name, [known.get((name, other)) for other in names[1:]]) for name in names[:-1]]

    def _accuracies(self) -> list[tuple[str, list[Estimate | None]]]:
        """By row: an adversary, and the single-draw accuracy of each run under it."""
        numbers = [{row.name: row.single for row in headlines(run)} for run in self.runs.values()]
        names = list(dict.fromkeys(name for found in numbers for name in found))
        rows = [(name, [found.get(name) for found in numbers]) for name in names]
        worst = [worst_case(run) for run in self.runs.values()]
        return [*rows, (WORST_CASE, [None if row is None else row.single for row in worst])]

    def _doubts(self) -> list[tuple[str, list[Check]]]:
        found = [(name, [check for check in checks(run) if check.kind == "doubt"]) for name, run in self.runs.items()]
        return [(name, doubts) for name, doubts in found if doubts]


def write_comparison(folders: Sequence[Path], out: Path) -> Path:
    """Writes one page that compares the evaluations in some folders, and returns its path; see `Compared.of`."""
    return Compared.of(folders).write(out)


def _names(evaluations: Sequence[Evaluation]) -> list[str]:
    recipes = [evaluation.recipe for evaluation in evaluations]
    return [
        name if recipes.count(name) == 1 else f"{name} ({evaluation.folder})"
        for name, evaluation in zip(recipes, evaluations, strict=True)
    ]


def _pair(runs: dict[str, Evaluation], first: str, second: str) -> Pair:
    a, b = runs[first], runs[second]
    data = [(run.data, run.manifest.get("split")) for run in (a, b)]
    if data[0] != data[1]:
        raise ValueError(f"{first} was evaluated on {data[0][0]} {data[0][1]}, {second} on {data[1][0]} {data[1][1]}")
    try:
        found = compare(a.rows, b.rows, _setting(a), _setting(b))
    except ValueError as error:
        raise ValueError(f"A = {first}, B = {second}: {error}") from None
    return Pair(first, second, {one.adversary: one for one in found}, _unlike(a, b))


def _unlike(a: Evaluation, b: Evaluation) -> frozenset[str]:
    of_a, of_b = (run.manifest.get("attacks") or {} for run in (a, b))
    found = [name for name in of_a if name in of_b and of_a[name] != of_b[name]]
    return frozenset([*found, WORST_CASE] if found else found)


def _setting(evaluation: Evaluation) -> Setting:
    return setting_of({**evaluation.manifest, "random": evaluation.random})


def _cells(pair: Pair, found: Comparison) -> list[str]:
    low, high = found.interval
    verdict = {"A higher": f"{pair.first} higher", "B higher": f"{pair.second} higher"}.get(found.verdict, "undecided")
    if found.adversary in pair.unlike:
        verdict += " (other attack)"
    return [
        found.adversary,
        pair.first,
        pair.second,
        f"{100 * found.a:.2f}",
        f"{100 * found.b:.2f}",
        f"{100 * found.difference:+.2f}",
        f"[{100 * low:+.2f}, {100 * high:+.2f}]" if found.only_a + found.only_b else "no image differs",
        verdict,
    ]
