"""Images that pass through channels of a family, one parameter after the other, clean or as an attack left them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from attacks import Attack
from defenses import Channel
from evaluation import Cost, judge
from papers.bench import Bench, Network, Part, Source
from papers.experiment import Experiment
from papers.families import CIFAR_RANGE, channel
from papers.kept import Arrays

CLEAN, IDENTITY = "Clean", "Iden"
_LARGE = 500  # images in a batch that nobody attacks, where they are small


@dataclass(frozen=True)
class Side:
    """A network and its images.

    Args:
        network: its name.
        data: the data set.
        attacks: on the network alone, by name; the attacker does not know of the channels.
        bounds_range: of the noise, see `defenses.PapersGauss`.
        tune_from: parameters are chosen on images from this one on; reported are others, from the first on.
        draws: passes of a random channel over an attacked image; over a clean one, of which there are many, 1.
        large: whether images are so large that 50 fill a batch also where nobody attacks.
    """

    network: str = "cifar10_resnet20_imagenet_norm"
    data: str = "CIFAR10"
    attacks: dict[str, Attack] = field(default_factory=dict)
    bounds_range: float = CIFAR_RANGE
    tune_from: int = 5000
    draws: int = 10
    large: bool = False

    def source(self, situation: str, n: int, tuning: bool) -> Source:
        """The images of a situation: "Clean" or the name of an attack."""
        source = Source(self.data, n, self.tune_from if tuning else 0)
        return source._replace(size=_LARGE) if situation == CLEAN and not self.large else source


class Point(NamedTuple):
    """What one channel does to n images: share of passes that are right, [n], and mean L2 from the clean image, [n]."""

    parameter: float
    right: NDArray[np.float64]
    l2: NDArray[np.float64]


Curves = Mapping[str, Sequence[Point]]


@dataclass(frozen=True)
class Passing(Experiment):
    """Base of experiments that vary the parameters of channels.

    Args:
        sides: networks and images by name.
        n: images, by side and situation: "Clean", or the name of an attack. What is missing or 0 is left out.
        parameters: by family (`papers.families`), in the order of rising distortion.
    """

    sides: dict[str, Side] = field(default_factory=dict)
    n: dict[str, dict[str, int]] = field(default_factory=dict)
    parameters: dict[str, list[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, counts in self.n.items():
            known = {CLEAN, *(self.sides[name].attacks if name in self.sides else ())}
            if odd := set(counts) - known:
                raise ValueError(f"n names {', '.join(sorted(odd))} for {name}, which has {', '.join(sorted(known))}")

    def situations(self) -> list[tuple[str, str]]:
        """(side, "Clean" or attack) of everything that is to be done."""
        return [(side, situation) for side in self.sides for situation, n in self.n.get(side, {}).items() if n]

    def tuned_on(self, side: str, situation: str) -> int:
        """How many other images there are to choose parameters on; 0 where none are chosen."""
        return 0

    def cost(self, bench: Bench) -> Cost:
        """See `Experiment`."""
        return sum((self._cost(bench, *names) for names in self.situations()), Cost())

    def _cost(self, bench: Bench, side: str, situation: str) -> Cost:
        of = self.sides[side]
        n = self.n[side][situation] + self.tuned_on(side, situation)
        attack = of.attacks.get(situation)
        passes = sum(self._draws(of, situation, each) for each in self._channels(of).values())
        whole = Cost(forward=(1 + passes) * n)
        if attack is not None:
            whole += bench.cost(bench.network(of.network), attack, of.source(situation, n, tuning=False))
        return whole

    def curves(self, bench: Bench, side: str, situation: str, tuning: bool = False) -> Curves:
        """Family -> its points; "Iden" -> one point, of the images as they are.

        Args:
            bench: where.
            side: which of `sides`.
            situation: "Clean" or the name of an attack.
            tuning: of the images on which parameters are chosen.
        """
        of = self.sides[side]
        network, attack = bench.network(of.network), of.attacks.get(situation)
        n = self.tuned_on(side, situation) if tuning else self.n[side][situation]
        source = of.source(situation, n, tuning)
        found: dict[str, list[Point]] = {IDENTITY: [_point(0, passed(bench, network, [], source, 1, attack))]}
        for (family, parameter), each in self._channels(of).items():
            arrays = passed(bench, network, [each], source, self._draws(of, situation, each), attack)
            found.setdefault(family, []).append(_point(parameter, arrays))
        bench.say(f"{side}, {situation}{', tuning' if tuning else ''}: done")
        return found

    def _channels(self, of: Side) -> dict[tuple[str, float], Channel]:
        return {
            (family, parameter): channel(family, parameter, of.bounds_range)
            for family, parameters in self.parameters.items()
            for parameter in parameters
        }

    def _draws(self, of: Side, situation: str, each: Channel) -> int:
        return 1 if situation == CLEAN or not each.random else of.draws


def passed(
    bench: Bench,
    network: Network,
    channels: Sequence[Channel],
    source: Source,
    draws: int,
    attack: Attack | None = None,
) -> Arrays:
    """What a network answers behind channels, to clean images or to those that an attack on it alone made.

    Args:
        bench: where.
        network: bare.
        channels: in front of it, in this order.
        source: images.
        draws: passes, if a channel is random.
        attack: None: clean images.

    Returns:
        right [n]: share of passes that are right; l2 [n]: mean distance of what leaves the channels from the clean
        image, the papers' "distortion".
    """
    passes = draws if any(each.random for each in channels) else 1

    @torch.no_grad()
    def make(part: Part) -> Arrays:
        x = part.x if attack is None else bench.attacked(network, attack, source, part)
        right, l2 = torch.zeros(len(x), device=x.device), torch.zeros(len(x), device=x.device)
        for _ in range(passes):
            y = x
            for each in channels:
                y = each(y)
            right += judge(network.module, y, 1).answers[:, 0] == part.y
            l2 += (y - part.x).flatten(1).norm(dim=1)
        return {"right": (right / passes).cpu().numpy(), "l2": (l2 / passes).cpu().numpy()}

    return bench.over(("passed", network.key, repr(list(channels)), str(passes), repr(attack)), source, make)


def _point(parameter: float, arrays: Arrays) -> Point:
    return Point(parameter, arrays["right"].astype(np.float64), arrays["l2"].astype(np.float64))
