"""Which parameter of a channel is best, and which others may be."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from evaluation import Interval
from papers.passing import Curves, Point
from papers.verdicts import FEWEST, LEVEL

_RESAMPLES = 1000


@dataclass(frozen=True, eq=False)
class Tuned:
    """A choice of one among a family's parameters.

    Attributes:
        place: of the chosen one.
        candidates: places of all that cannot be told from it, its own among them.
        parameters: all of them.
    """

    place: int
    candidates: Sequence[int]
    parameters: Sequence[float]

    @property
    def parameter(self) -> float:
        """The chosen one."""
        return self.parameters[self.place]

    def interval(self) -> Interval:
        """The smallest and the largest of the candidates."""
        values = [self.parameters[place] for place in self.candidates]
        return Interval(min(values), max(values))


def best(points: Sequence[Sequence[Point]], seed: int = 0) -> Tuned:
    """The parameter of largest mean accuracy; of several, the first.

    Another one is no candidate where the paired 95 % interval of what it recovers less (bootstrap over images) lies
    below 0. Where fewer than 6 images are answered differently, nothing can be told.

    Args:
        points: for each attack that it is to suit, the points of the same parameters on tuning images.
        seed: of the resampling of images.
    """
    rights = [np.stack([point.right for point in of_attack], 1) for of_attack in points]  # each [n, parameters]
    # Sums differ in their last digits with the order of images; equal accuracies must stay equal.
    place = int(sum(right.mean(0) for right in rights).round(9).argmax())
    more = [(right - right[:, [place]]).round(9) for right in rights]
    rng = np.random.default_rng(seed)
    resampled = sum(
        rng.multinomial(len(each), np.full(len(each), 1 / len(each)), _RESAMPLES) @ each / len(each) for each in more
    )
    differ = sum(np.count_nonzero(each, axis=0) for each in more)
    high = np.quantile(resampled, (1 + LEVEL) / 2, axis=0)
    (candidates,) = np.nonzero((high >= 0) | (differ < FEWEST))
    return Tuned(place, candidates.tolist(), [point.parameter for point in points[0]])


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

    def distortions(self, family: str) -> Interval:
        """The smallest and the largest mean L2 behind one of the candidates."""
        means = [float(self.curves[family][place].l2.mean()) for place in self.choices[family].candidates]
        return Interval(min(means), max(means))


def spread(of: Recovered) -> tuple[float, Interval]:
    """Largest over smallest distortion of the families: at the chosen parameters, and at any of the candidates.

    At least as far apart lie the two families that have least in common, at most those that can differ most. Infinity
    where one channel leaves the image as it is and another does not.
    """
    chosen = [float(of.at_best(family).l2.mean()) for family in of.choices]
    ranges = [of.distortions(family) for family in of.choices]
    pairs = list(permutations(ranges, 2))
    least = max([1.0, *(_ratio(one.low, other.high) for one, other in pairs)])
    most = max([1.0, *(_ratio(one.high, other.low) for one, other in pairs)])
    return _ratio(max(chosen), min(chosen)), Interval(least, most)


def _ratio(most: float, least: float) -> float:
    if least == 0:
        return 1.0 if most == 0 else float("inf")
    return most / least
