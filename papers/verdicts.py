"""From numbers per image to verdicts: what is larger, what is much the same."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evaluation import Interval, bootstrap, wilson
from evaluation.intervals import percentiles, resampled_means
from papers.experiment import Outcome, Value, Verdict

LEVEL = 0.95
FEWEST = 6  # images that differ: 2^(1 - 6) < 0.05, the smallest p-value of a sign test
Numbers = NDArray[np.float64]


class Difference(NamedTuple):
    """Of means over the same images, with its 95 % interval."""

    value: float
    low: float
    high: float

    def points(self) -> str:
        """As percentage points."""
        return f"{100 * self.value:+.1f} [{100 * self.low:+.1f}, {100 * self.high:+.1f}] points"


def percent(shares: Numbers) -> Value:
    """The mean of shares in [0, 1], [n], in percent with its interval over images."""
    low, high = bootstrap(shares)
    return Value(100 * float(shares.mean()), 100 * low, 100 * high)


def mean_of(values: Numbers) -> Value:
    """The mean of any numbers [n], with a bootstrap interval over images."""
    low, high = percentiles(resampled_means(values[:, None, None])[:, 0], LEVEL)
    return Value(float(values.mean()), low, high)


def difference(a: Numbers, b: Numbers) -> Difference:
    """Mean of a - b, shares in [0, 1] of the same images; where one has more, of the first ones.

    A bootstrap over images, `widened` where the sample says too little for one.
    """
    n = min(len(a), len(b))
    each = a[:n] - b[:n]
    found = percentiles(resampled_means(each[:, None, None])[:, 0], LEVEL)
    return Difference(float(each.mean()), *widened(found, each))


def widened(found: Interval, each: Numbers) -> Interval:
    """The bootstrap interval of a mean difference of shares, made safe where the sample says little.

    A bootstrap knows nothing of what the sample does not hold. Where fewer than 6 images differ, or all do by the same,
    the interval reaches as far as Wilson's for either sign, and with fewer than 6 it holds 0.

    Args:
        found: the interval.
        each: difference of each image, in [-1, 1], [n].
    """
    if np.count_nonzero(each) < FEWEST or each.min() == each.max():
        more, less = (wilson(int(sign.sum()), len(each)) for sign in (each > 0, each < 0))
        found = Interval(min(found.low, more.low - less.high), max(found.high, more.high - less.low))
    return holding_zero(found, each)


def holding_zero(found: Interval, each: Numbers) -> Interval:
    """An interval of a mean difference, with 0 in it where an exact sign test of the images [n] cannot exclude 0.

    Fewer than 6 images that differ, all in one direction, are not significant.
    """
    if np.count_nonzero(each) >= FEWEST:
        return found
    return Interval(min(found.low, 0.0), max(found.high, 0.0))


def above(found: Difference) -> Outcome:
    """Whether a difference is positive, if that can be told."""
    return "confirmed" if found.low > 0 else "refuted" if found.high < 0 else "undecided"


def inside(found: Difference | Interval | Value, least: float = -np.inf, most: float = np.inf) -> Outcome:
    """Whether something lies between two limits, if its interval can tell."""
    if found.low is None or found.high is None:
        return "undecided"
    if least <= found.low and found.high <= most:
        return "confirmed"
    return "refuted" if found.low > most or found.high < least else "undecided"


def within(found: Difference | Interval, margin: float) -> Outcome:
    """Whether a difference is no larger than a margin on either side, if that can be told."""
    return inside(found, -margin, margin)


def together(outcomes: Sequence[Outcome]) -> Outcome:
    """Of a claim that says all of them: one refuted part refutes it."""
    if "refuted" in outcomes:
        return "refuted"
    if not outcomes or "not testable here" in outcomes:
        return "not testable here"
    return "undecided" if "undecided" in outcomes else "confirmed"


def all_above(claim: str, pairs: Mapping[str, tuple[Numbers, Numbers]]) -> Verdict:
    """In each of the named pairs the first is larger than the second, paired over images."""
    found = {name: difference(*pair) for name, pair in pairs.items()}
    reason = "; ".join(f"{name}: {each.points()}" for name, each in found.items())
    return Verdict(claim, together([above(each) for each in found.values()]), reason or "nothing to compare")


def all_within(claim: str, pairs: Mapping[str, tuple[Numbers, Numbers]], margin: float) -> Verdict:
    """In each of the named pairs the two differ by no more than a margin (in [0, 1]), paired over images."""
    found = {name: difference(*pair) for name, pair in pairs.items()}
    reason = "; ".join(f"{name}: {each.points()}" for name, each in found.items())
    outcome = together([within(each, margin) for each in found.values()])
    return Verdict(claim, outcome, reason or "nothing to compare")
