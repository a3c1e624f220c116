"""Pairs of an original image that is answered right and what an attack made of it that is answered wrong."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attacks import Attack, CarliniWagner
from evaluation import Cost, judge
from evaluation.intervals import percentiles
from papers.bench import Bench, Network, Part, Source
from papers.experiment import Experiment, Value
from papers.kept import Arrays
from papers.verdicts import LEVEL, Numbers

ORIGINAL = "original"
_RESAMPLES = 2000
_PASSES = 3  # to see which of a batch's images are pairs


@dataclass(frozen=True, eq=False)
class Pairs:
    """Some of the images of a batch.

    Attributes:
        x: the originals [B, C, H, W]; the network answers their label.
        x_adv: what the attack made of them; without an attack the same as x.
        label: [B].
        answer: [B], what the network answers to x_adv; without an attack the label.
        index: [B], their places in the data set.
        start: place of the batch's first image.
    """

    x: Tensor
    x_adv: Tensor
    label: Tensor
    answer: Tensor
    index: Tensor
    start: int

    def __len__(self) -> int:
        return len(self.x)


def pairs_of(bench: Bench, network: Network, attack: Attack | None, source: Source, part: Part) -> Pairs:
    """Those of a batch that are right and, if there is an attack, were broken by it."""
    answer = judge(network.module, part.x, 1).answers[:, 0]
    kept, x_adv = answer == part.y, part.x
    if attack is not None:
        x_adv = bench.attacked(network, attack, source, part)
        answer = judge(network.module, x_adv, 1).answers[:, 0]
        kept = kept & (answer != part.y)
    rows = kept.nonzero().squeeze(1)
    return Pairs(part.x[rows], x_adv[rows], part.y[rows], answer[rows], part.start + rows, part.start)


@dataclass(frozen=True)
class Paired(Experiment):
    """Base of experiments on originals and adversarial images; attackers do not know of any channel or noise.

    Args:
        network: its name.
        data: the data set.
        n: images, before those are left out that the network or the attacker gets wrong.
        attacks: on the network, by name; the first is the papers'.
    """

    network: str = "cifar10_resnet20_imagenet_norm"
    data: str = "CIFAR10"
    n: int = 300
    attacks: dict[str, Attack] = field(default_factory=lambda: {"C&W": CarliniWagner()})

    def source(self) -> Source:
        """The images; batches as in other experiments, so that attacked images are shared."""
        return Source(self.data, self.n)

    def attack_cost(self, bench: Bench) -> Cost:
        """Of all attacks, and of seeing what they broke."""
        network, source = bench.network(self.network), self.source()
        attacks = sum((bench.cost(network, attack, source) for attack in self.attacks.values()), Cost())
        return attacks + Cost(forward=_PASSES * self.n)

    def collected(
        self,
        bench: Bench,
        key: tuple[str, ...],
        attack: Attack | None,
        shapes: Mapping[str, tuple[int, ...]],
        make: Callable[[Pairs], Arrays],
    ) -> Arrays:
        """Something of all pairs, kept.

        Args:
            bench: where.
            key: what it depends on besides network, attack and images.
            attack: None: originals alone.
            shapes: by name, what `make` answers for one pair; () for a number.
            make: of at least one pair, each array with a first axis of pairs.

        Returns:
            Those arrays, and "index" [pairs], places in the data set.
        """
        network, source = bench.network(self.network), self.source()

        def of(part: Part) -> Arrays:
            pairs = pairs_of(bench, network, attack, source, part)
            index = {"index": pairs.index.cpu().numpy()}
            if not len(pairs):
                return {**{name: np.zeros((0, *shape)) for name, shape in shapes.items()}, **index}
            return {**make(pairs), **index}

        return bench.over((*key, network.key, repr(attack)), source, of)

    def collected_by_name(
        self,
        bench: Bench,
        key: tuple[str, ...],
        attacks: Mapping[str, Attack | None],
        shapes: Mapping[str, tuple[int, ...]],
        make: Callable[[Pairs], Arrays],
    ) -> dict[str, Arrays]:
        """`collected` for several attacks by name, saying how far it is."""
        found = {}
        for name, attack in attacks.items():
            found[name] = self.collected(bench, key, attack, shapes, make)
            bench.say(f"{name}: done, {len(found[name]['index'])} images")
        return found


def counts_of(found: Mapping[str, Arrays]) -> str:
    """For a caption: how many images each name has."""
    return ", ".join(f"{name}: n = {len(arrays['index'])}" for name, arrays in found.items())


def matched(one: Arrays, other: Arrays) -> tuple[Arrays, Arrays]:
    """The images that are in both, in the same order."""
    _, here, there = np.intersect1d(one["index"], other["index"], return_indices=True)
    return {name: value[here] for name, value in one.items()}, {name: value[there] for name, value in other.items()}


def larger(a: NDArray[np.floating], b: NDArray[np.floating]) -> tuple[Numbers, Numbers]:
    """For `verdicts.all_above`: 1 where a is larger, 1 where b is. Their difference says which is, image by image."""
    return (a > b).astype(float), (b > a).astype(float)


def quantile(values: NDArray[np.floating], share: float, seed: int = 0) -> Value:
    """A quantile of numbers [n] with its bootstrap interval over images."""
    draws = np.quantile(values[_resampled(len(values), seed)], share, axis=1)
    return Value(float(np.quantile(values, share)), *percentiles(draws, LEVEL))


def quantile_ratio(a: NDArray[np.floating], b: NDArray[np.floating], share: float, seed: int = 0) -> Value:
    """A quantile of a over that of b, of the same images, resampled together."""
    rows = _resampled(len(a), seed)
    draws = np.quantile(a[rows], share, axis=1) / np.quantile(b[rows], share, axis=1)
    return Value(float(np.quantile(a, share) / np.quantile(b, share)), *percentiles(draws, LEVEL))


def numpy(values: Tensor) -> NDArray[np.float64]:
    """As float64 on the processor."""
    return values.detach().to("cpu", torch.float64).numpy()


def _resampled(n: int, seed: int) -> NDArray[np.integer]:
    return np.random.default_rng(seed).integers(0, n, (_RESAMPLES, n))
