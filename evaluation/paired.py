"""Two models on the same images: which one is better, if that can be told."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from evaluation.batch import Rows
from evaluation.intervals import Interval, percentiles, resampled_means
from evaluation.summary import Setting, check_unanimous
from evaluation.worst_case import scores, within

WORST_CASE = "worst case"  # no adversary's name holds a space


@dataclass(frozen=True)
class Comparison:
    """Accuracy of A and of B against one adversary, image by image.

    Attributes:
        adversary: its name, or "worst case" over those that both were evaluated under.
        n: images that both have.
        a, b: single-draw accuracy of each, in [0, 1].
        difference: a - b.
        interval: of `difference`, at `level`: bootstrap over images, which both share, and over passes where shared.
        level: confidence level.
        verdict: "undecided" unless the interval excludes 0 and as many images differ as an exact sign test needs.
        only_a, only_b: images that only A or only B gets right; of a random model, more often than the other.
        mcnemar: p-value of McNemar's exact test where neither model is random, else None.
    """

    adversary: str
    n: int
    a: float
    b: float
    difference: float
    interval: Interval
    level: float
    verdict: Literal["A higher", "B higher", "undecided"]
    only_a: int
    only_b: int
    mcnemar: float | None


def compare(a: Mapping[str, Rows], b: Mapping[str, Rows], of_a: Setting, of_b: Setting) -> list[Comparison]:
    """Compares two per-image tables on the images in both, adversary by adversary, then in the worst case of these.

    Args:
        a: adversary -> its images, as `rows_of` gives them.
        b: the same of the other model.
        of_a: see `Setting`; level and seed of the intervals are taken from this one.
        of_b: of the other model.

    Raises:
        ValueError: no adversary or no image is in both, or labels differ.
    """
    names = [name for name in a if name in b]
    if not names:
        raise ValueError(f"no adversary is in both: A has {', '.join(a)}; B has {', '.join(b)}")
    both = {name: _in_both(a[name], b[name]) for name in names}
    a, b = ({name: pair[side] for name, pair in both.items()} for side in (0, 1))
    found = [_comparison(name, _Side.of(a[name], of_a), _Side.of(b[name], of_b), of_a) for name in names]
    if len(names) > 1 and _has_halves(a[names[0]], of_a) and _has_halves(b[names[0]], of_b):
        worst_a, worst_b = (
            _Side.of_all({name: rows[name] for name in names}, of) for rows, of in ((a, of_a), (b, of_b))
        )
        found.append(_comparison(WORST_CASE, worst_a, worst_b, of_a))
    return found


def _has_halves(rows: Rows, setting: Setting) -> bool:
    return rows.draws > 1 or not setting.random


@dataclass(frozen=True, eq=False)
class _Side:
    values: NDArray[np.float64]  # [n, passes]
    batch: NDArray[np.integer] | None
    random: bool

    @classmethod
    def of(cls, rows: Rows, setting: Setting) -> "_Side":
        if not setting.random:
            check_unanimous(rows)
        right = rows.right if setting.random else rows.right[:, :1]
        return cls(right.astype(np.float64), setting.batches(rows), setting.random)

    @classmethod
    def of_all(cls, rows: dict[str, Rows], setting: Setting) -> "_Side":
        values, _ = scores(within(rows, setting), setting.random)
        return cls(values, setting.batches(next(iter(rows.values()))), setting.random)

    def means(self, seed: int, stream: int) -> NDArray[np.float64]:
        return resampled_means(self.values[:, :, None], self.batch, seed, stream=stream)[:, 0]


def _comparison(name: str, a: _Side, b: _Side, setting: Setting) -> Comparison:
    # The same seed picks the same images for both. Two models may have been judged with the same noise: where batches
    # and passes agree they pick the same passes too, which counts what they have in common, be it nothing.
    stream = 0 if _paired(a, b) else 1
    interval = percentiles(a.means(setting.seed, 0) - b.means(setting.seed, stream), setting.level)
    differences = a.values.mean(axis=1) - b.values.mean(axis=1)
    only_a, only_b = int((differences > 0).sum()), int((differences < 0).sum())
    exact = None if a.random or b.random else _mcnemar(only_a, only_b)
    return Comparison(
        adversary=name,
        n=len(differences),
        a=float(a.values.mean()),
        b=float(b.values.mean()),
        difference=float(a.values.mean() - b.values.mean()),
        interval=interval,
        level=setting.level,
        verdict=_verdict(interval, only_a + only_b, setting.level),
        only_a=only_a,
        only_b=only_b,
        mcnemar=exact,
    )


def _paired(a: _Side, b: _Side) -> bool:
    if a.batch is None or b.batch is None:
        return False
    return a.values.shape == b.values.shape and np.array_equal(a.batch, b.batch)


def _verdict(interval: Interval, differing: int, level: float) -> Literal["A higher", "B higher", "undecided"]:
    # Resampling few differing images of one sign never shows the other sign. 2^(1 - k) is the smallest p-value that an
    # exact sign test of k images can have: 6 of them for 95 %.
    if differing < math.ceil(1 - math.log2(1 - level)):
        return "undecided"
    return "A higher" if interval.low > 0 else "B higher" if interval.high < 0 else "undecided"


def _mcnemar(only_a: int, only_b: int) -> float:
    """McNemar's test (1947, Psychometrika 12, p. 153) in its exact form: are discordant images as likely either way?"""
    discordant = only_a + only_b
    return float(binomtest(only_a, discordant).pvalue) if discordant else 1.0


def _in_both(a: Rows, b: Rows) -> tuple[Rows, Rows]:
    """The images that both have: a time limit or another --n may have left some out of one."""
    if not (found := set(a.index.tolist()) & set(b.index.tolist())):
        raise ValueError(f"{a.adversary}: no image is in both, of {a.n} in A and {b.n} in B")
    a, b = (rows.at(np.isin(rows.index, list(found))) for rows in (a, b))
    if a.n != b.n:
        raise ValueError(f"{a.adversary}: some images are there twice")
    if (differ := np.flatnonzero(a.label != b.label)).size:
        place = differ[0]
        raise ValueError(
            f"{a.adversary}: labels of {differ.size} images differ, first image {a.index[place]} "
            f"({a.label[place]} and {b.label[place]}); same data and split?"
        )
    return a, b
