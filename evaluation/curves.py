"""Robust accuracy over the size of the perturbation: over eps, and over the L2 norm that an attack needed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.batch import Rows
from evaluation.intervals import Interval, bootstraps, wilson
from evaluation.summary import Setting, Summary

_POINTS = 33
_RESAMPLES = 500  # a curve has many intervals, of which nobody reads the third digit
_BLOCKS = 10  # passes are resampled in at least so many blocks: enough for a variance, and 100 passes cost no more


@dataclass(frozen=True)
class Point:
    """Accuracy in [0, 1] where perturbations up to `radius` (pixels of [0, 1]) count, with its interval."""

    radius: float
    accuracy: float
    interval: Interval


@dataclass(frozen=True)
class Curve:
    """Robust accuracy of n images against one attack, by radius; 0 is the first radius."""

    adversary: str
    n: int
    points: tuple[Point, ...]


def eps_curves(summaries: Sequence[Summary], radii: Mapping[str, Mapping[str, float]]) -> list[Curve]:
    """Single-draw accuracy over eps, with the intervals of the summaries; eps 0 is "clean".

    Args:
        summaries: of a suite that was run at several radii.
        radii: name of the curve -> adversary -> its eps in pixels of [0, 1].

    Raises:
        ValueError: there is no summary of an adversary.
    """
    known = {summary.adversary: summary for summary in summaries}
    if missing := sorted({name for radius in radii.values() for name in radius} - set(known)):
        raise ValueError(f"no numbers of {', '.join(missing)}; there are {', '.join(known)}")
    found = []
    for base, radius in radii.items():
        at = {**({"clean": 0.0} if "clean" in known else {}), **radius}
        names = sorted(at, key=at.__getitem__)
        points = tuple(Point(at[name], known[name].accuracy, known[name].interval) for name in names)
        found.append(Curve(base, known[names[0]].n if names else 0, points))
    return found


def l2_curves(rows: Mapping[str, Rows], setting: Setting) -> list[Curve]:
    """Accuracy over L2, one curve for each adversary but "clean"; meant for attacks that look for the smallest norm.

    An image whose perturbation is longer than the radius is left as it was, so its answers are those to the clean
    image; a shorter one is taken. Of a model that is not random, an image that is wrong without perturbation is wrong
    at each radius. Of a random one the accuracy is that of a single draw throughout, of the attack's images as they
    are: no lesser of two noisy shares is taken, which would be too low.

    Args:
        rows: adversary -> its images; without "clean" there are no curves.
        setting: see `Setting`; `votes` and `decision_level` play no part.

    Returns:
        Points at 0 and at quantiles of the images' L2, the last one included, at most 34.

    Raises:
        ValueError: an adversary's images or draws are not those of "clean".
    """
    clean = rows.get("clean")
    if clean is None:
        return []
    return [_l2_curve(clean, attacked, setting) for name, attacked in rows.items() if name != "clean"]


def _l2_curve(clean: Rows, attacked: Rows, setting: Setting) -> Curve:
    if not np.array_equal(clean.index, attacked.index) or clean.draws != attacked.draws:
        raise ValueError(f"{attacked.adversary} and clean differ in images or draws")
    quantiles = np.quantile(attacked.l2, np.linspace(0, 1, _POINTS), method="higher")
    radii = np.unique([0.0, *quantiles])
    before, after = (_blocks(rows, setting) for rows in (clean, attacked))
    if not setting.random:
        after = before * after
    near = attacked.l2[:, None] <= radii
    values = np.where(near[:, None, :], after[:, :, None], before[:, :, None])
    accuracy = values.mean(axis=(0, 1))
    points = zip(radii.tolist(), accuracy.tolist(), _intervals(values, clean, setting), strict=True)
    return Curve(attacked.adversary, clean.n, tuple(Point(*point) for point in points))


def _intervals(values: NDArray[np.float64], clean: Rows, setting: Setting) -> list[Interval]:
    if setting.random:
        return bootstraps(values, setting.batches(clean), setting.level, setting.seed, _RESAMPLES)
    return [wilson(round(hits), clean.n, setting.level) for hits in values.sum(axis=(0, 1))]


def _blocks(rows: Rows, setting: Setting) -> NDArray[np.float64]:
    """Right answers as means of blocks of passes, [n, blocks]; their mean is that of all passes."""
    if not setting.random:
        return rows.right[:, :1].astype(np.float64)
    length = _block_length(rows.draws) if setting.shared else rows.draws
    return rows.right.reshape(rows.n, -1, length).mean(axis=2)


def _block_length(draws: int) -> int:
    """The longest that leaves 10 blocks at least and no rest: blocks of different lengths would vary by that alone."""
    return max(length for length in range(1, max(draws // _BLOCKS, 1) + 1) if draws % length == 0)
