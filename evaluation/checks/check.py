"""What a check of an evaluation says, and the statistics that it may base a doubt on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, norm

from evaluation.batch import Rows
from evaluation.intervals import wilson

Verdict = Literal["pass", "doubt", "not run"]
# About twenty comparisons are made for each model: at 95 % a sound evaluation would often be doubted by chance.
LEVEL = 0.99
# Of the images that survive, this share may show the sign of a failed attack: "0 on >= 95 % of surviving samples".
ALLOWED = 0.05
_LONGEST = 200  # characters of an error that are shown: some of CUDA's fill a page
_ORDER: dict[Verdict, int] = {"doubt": 0, "pass": 1, "not run": 2}


@dataclass(frozen=True)
class Check:
    """One question that was asked of an evaluation.

    Attributes:
        name: of the check.
        verdict: "doubt" where the figures contradict a sound evaluation by more than chance explains; "not run" where
            nothing can be said, `text` says why.
        text: one plain sentence with the figures.
        figures: what the verdict rests on, by name; accuracies and shares in [0, 1], "n" images.
        source: who asked for it.
    """

    name: str
    verdict: Verdict
    text: str
    figures: dict[str, float]
    source: str


class NotRun(Exception):
    """Raised where a check, or what it needs, cannot be made; the text says why, in one line."""


def reason(error: Exception) -> str:
    """What kept a check from being made, in one line."""
    text = " ".join(str(error).split())
    said = text if isinstance(error, NotRun) else f"{type(error).__name__}: {text}"
    return said if len(said) <= _LONGEST else f"{said[:_LONGEST]}..."


class Difference(NamedTuple):
    """Accuracy under one adversary minus that under another on the same n images, in [-1, 1], with its interval."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{100 * self.value:+.1f} points [{100 * self.low:+.1f}, {100 * self.high:+.1f}]"

    @property
    def figures(self) -> dict[str, float]:
        """For `Check.figures`."""
        return {"difference": self.value, "low": self.low, "high": self.high, "n": self.n}


@dataclass(frozen=True)
class Question:
    """Name and source of a check, from which its answers are made."""

    name: str
    source: str

    def not_run(self, why: str) -> Check:
        """The check could not be made."""
        return Check(self.name, "not run", why, {}, self.source)

    def answered(self, doubt: bool, text: str, figures: Mapping[str, float]) -> Check:
        """The check was made."""
        plain = {name: float(value) for name, value in figures.items()}
        return Check(self.name, "doubt" if doubt else "pass", text, plain, self.source)


def format_checks(checks: Sequence[Check]) -> str:
    """Checks as lines for a terminal, doubts first, what was not run last.

    Raises:
        ValueError: there is no check.
    """
    if not checks:
        raise ValueError("nothing to print: no check was given")
    ordered = sorted(checks, key=lambda check: _ORDER[check.verdict])
    name, verdict = (max(len(getattr(check, part)) for check in checks) for part in ("name", "verdict"))
    return "\n".join(f"{check.verdict:<{verdict}}  {check.name:<{name}}  {check.text}" for check in ordered)


def accuracy(rows: Rows) -> float:
    """Of a single draw, averaged over draws and images."""
    return float(rows.right.mean())


def rightness(rows: Rows) -> NDArray[np.float64]:
    """Share of the judge's draws that were right, [n]."""
    return rows.right.mean(axis=1)


def difference(first: Rows, second: Rows, shared: bool) -> Difference:
    """Accuracy of the first minus that of the second, paired image by image.

    The adjusted Wald interval for paired proportions (Agresti & Min 2005, Statistics in Medicine 24, p. 729): one
    image on which both agree and half an image for each side are added, so that few images never give an interval
    without width. It holds for shares of draws as for 0 and 1. Where a batch shares its draws (noise on weights), the
    variance of a batch's mean between passes is added for both.

    Args:
        first: rows of one adversary.
        second: those of another, of the same images.
        shared: whether the j-th draw of a batch is one draw.

    Raises:
        ValueError: the images differ.
    """
    if not np.array_equal(first.index, second.index):
        raise ValueError(f"{first.adversary} and {second.adversary} were not judged on the same images")
    gaps, n = rightness(first) - rightness(second), first.n
    middle = gaps.sum() / (n + 2)
    variance = ((gaps**2).sum() + 1) / (n + 2) - middle**2
    error = variance / (n + 2) + (_between_passes(first) + _between_passes(second) if shared else 0.0)
    half = norm.ppf((1 + LEVEL) / 2) * sqrt(error)
    return Difference(float(gaps.mean()), float(middle - half), float(middle + half), n)


def too_many(count: int, n: int, allowed: float) -> bool:
    """Whether `count` of n images is more than the share `allowed` explains: exact binomial test, one-sided."""
    return bool(n) and binomtest(int(count), int(n), allowed, "greater").pvalue < (1 - LEVEL) / 2


def too_few(count: int, n: int, wanted: float) -> bool:
    """Whether `count` of n images is less than the share `wanted` explains."""
    return bool(n) and binomtest(int(count), int(n), wanted, "less").pvalue < (1 - LEVEL) / 2


def mean_interval(values: NDArray[np.floating]) -> tuple[float, float]:
    """Of the mean of values in [0, 1]: normal, but no narrower than that of an all but certain proportion."""
    n = len(values)
    mean, half = float(values.mean()), norm.ppf((1 + LEVEL) / 2) * float(values.std()) / sqrt(n)
    floor = wilson(0, n, LEVEL).high / 2 if values.std() == 0 else 0.0
    return max(mean - max(half, floor), 0.0), min(mean + max(half, floor), 1.0)


def percent(value: float) -> str:
    """A share as text, in per cent."""
    return f"{100 * value:.1f} %"


def _between_passes(rows: Rows) -> float:
    if rows.draws < 2:
        return 0.0
    total = 0.0
    for batch in np.unique(rows.batch):
        right = rows.right[rows.batch == batch]
        total += (len(right) / rows.n) ** 2 * right.mean(axis=0).var(ddof=1) / rows.draws
    return total
