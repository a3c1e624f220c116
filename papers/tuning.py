"""Which parameter of a channel is best, and how sure that choice is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation import Interval
from evaluation.intervals import percentiles
from papers.passing import Curves, Point
from papers.verdicts import LEVEL

RESAMPLES = 1000


@dataclass(frozen=True, eq=False)
class Tuned:
    """A choice of one among a family's parameters.

    Attributes:
        place: of the chosen one.
        places: what would have been chosen on resampled images, [resamples].
        parameters: all of them.
    """

    place: int
    places: NDArray[np.int64]
    parameters: Sequence[float]

    @property
    def parameter(self) -> float:
        """The chosen one."""
        return self.parameters[self.place]

    def interval(self) -> Interval:
        """The middle 95 % of what resampled images would have chosen."""
        return percentiles(np.asarray(self.parameters, np.float64)[self.places], LEVEL)


def best(points: Sequence[Sequence[Point]], seed: int = 0) -> Tuned:
    """The parameter of largest mean accuracy; of several, the first.

    Args:
        points: for each attack that it is to suit, the points of the same parameters on tuning images.
        seed: of the resampling of images.
    """
    rng = np.random.default_rng(seed)
    whole, resampled = np.zeros(len(points[0])), np.zeros((RESAMPLES, len(points[0])))
    for of_attack in points:
        right = np.stack([point.right for point in of_attack], 1)  # [n, parameters]
        whole += right.mean(0)
        resampled += rng.multinomial(len(right), np.full(len(right), 1 / len(right)), RESAMPLES) @ right / len(right)
    # Sums differ in their last digits with the order of images; equal accuracies must stay equal.
    return Tuned(int(whole.round(9).argmax()), resampled.round(9).argmax(1), [point.parameter for point in points[0]])


@dataclass(frozen=True, eq=False)
class Recovered:
    """A situation: an attack on one side, and what each family of channels recovers with the parameter chosen for it.

    Attributes:
        side, attack: names.
        curves: on the reported images.
        choices: family -> what was chosen on the tuning images.
    """

    side: str
    attack: str
    curves: Curves
    choices: Mapping[str, Tuned]

    def at_best(self, family: str) -> Point:
        """What the chosen parameter does to the reported images."""
        return self.curves[family][self.choices[family].place]

    def distortions(self, family: str) -> NDArray[np.float64]:
        """Mean L2 behind what resampled tuning images would have chosen, [resamples]."""
        means = np.array([point.l2.mean() for point in self.curves[family]])
        resampled: NDArray[np.float64] = means[self.choices[family].places]
        return resampled


def spread(of: Recovered) -> tuple[float, Interval]:
    """Largest over smallest distortion of the families at their chosen parameters, with its 95 % interval."""
    chosen = np.array([of.at_best(family).l2.mean() for family in of.choices])
    resampled = np.stack([of.distortions(family) for family in of.choices])
    return float(_ratio(chosen[:, None])[0]), percentiles(_ratio(resampled), LEVEL)


_HUGE = 1e9  # stands for infinity, which percentiles cannot interpolate


def _ratio(distortions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Largest over smallest along the first axis; `_HUGE` where one leaves the image as it is and another does not."""
    least, most = distortions.min(0), distortions.max(0)
    ratio = np.full_like(most, _HUGE)
    np.divide(most, least, out=ratio, where=least * _HUGE > most)
    ratio[most == 0] = 1.0
    return ratio
