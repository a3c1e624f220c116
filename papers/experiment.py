"""What a table or figure of the papers is: settings, work on the bench, findings beside the printed numbers."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from matplotlib.figure import Figure

from evaluation import Cost
from papers.bench import Bench

Scale = Literal["smoke", "laptop", "paper"]
Outcome = Literal["confirmed", "refuted", "undecided", "not testable here"]


class Value(NamedTuple):
    """A number with its 95 % interval; without one where it is exact or its interval is not known."""

    value: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.value:.4g}"
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"


@dataclass(frozen=True)
class Table:
    """Rows of cells under a header, to be printed and kept as CSV.

    Attributes:
        name: of the file.
        header: names of the columns.
        rows: cells; None where there is nothing.
        caption: what it shows, with n, budget and interval.
    """

    name: str
    header: Sequence[str]
    rows: Sequence[Sequence[str | float | Value | None]]
    caption: str


@dataclass(frozen=True)
class Verdict:
    """What follows for a claim of the papers, and why."""

    claim: str
    outcome: Outcome
    reason: str


@dataclass(frozen=True)
class Findings:
    """What an experiment found: tables, figures by the names of their files, verdicts on its claims."""

    tables: Sequence[Table]
    figures: Mapping[str, Figure]
    verdicts: Sequence[Verdict]


@dataclass(frozen=True)
class Experiment(ABC):
    """A table or figure of the papers; subclasses are frozen dataclasses, so that a YAML file holds one.

    Args:
        title: what it shows.
        scales: scale -> settings that take the place of the experiment's own, such as n. "smoke" needs none.
        printed: the papers' numbers, row -> column -> value.
    """

    title: str
    scales: dict[str, dict[str, Any]] = field(default_factory=dict)
    printed: dict[str, dict[str, float]] = field(default_factory=dict)

    @abstractmethod
    def cost(self, bench: Bench) -> Cost:
        """About how many passes it takes if nothing is kept from before."""

    @abstractmethod
    def run(self, bench: Bench) -> Findings:
        """Do it."""


def beside(
    name: str, ours: Mapping[str, Mapping[str, Value]], printed: Mapping[str, Mapping[str, float]], caption: str
) -> Table:
    """Our numbers and the papers', one row for each pair of row and column, with the difference."""
    rows: list[list[str | float | Value | None]] = []
    for row, cells in ours.items():
        for column, value in cells.items():
            theirs = printed.get(row, {}).get(column)
            difference = None if theirs is None else round(value.value - theirs, 4)
            rows.append([row, column, value, theirs, difference])
    return Table(name, ["row", "column", "ours", "printed", "difference"], rows, caption)
