"""Randomized smoothing: L2 radii within which the answer of many noisy passes provably stays the same.

Cohen, Rosenfeld & Kolter 2019, https://arxiv.org/abs/1902.02918. The smoothed classifier answers the class that the
network answers most often at x + N(0, std^2); noise is added to pixels of [0, 1] and not clipped.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import beta, norm
from torch import Tensor, nn

from attacks import evaluating
from defenses import Chain, Channel, Defended, Gauss
from defenses.randomness import Stream, drawing_from, has_shared_draws, normal_like
from defenses.voting import ABSTAINED, Vote
from evaluation.numbers import Interval, wilson
from models import folded_batchnorm

# Noise is drawn for so many copies at a time, whatever fits into a pass: the draws are the same on every machine, and
# those of a smaller number of samples are the first of a larger one.
_BLOCK = 100


@dataclass(frozen=True)
class Smoothing:
    """How to certify (CERTIFY in the paper, section 3.2.2).

    Args:
        std: standard deviation of the noise in pixels of [0, 1], > 0.
        n0: samples that select the class, at least 1.
        n: samples that estimate its probability, more than log2(1 / alpha): as many heads in a row a fair coin shows
            with a probability of alpha. No radius exceeds `largest_radius`.
        alpha: probability, in (0, 1), that an image's certificate is wrong.

    Raises:
        ValueError: a value is outside its range.
    """

    std: float
    n0: int = 100
    n: int = 1000
    alpha: float = 0.001

    def __post_init__(self) -> None:
        if not 0 < self.std < float("inf"):
            raise ValueError(f"std must be a finite number > 0, got {self.std}")
        if self.n0 < 1:
            raise ValueError(f"n0 must be at least 1, got {self.n0}")
        if not 0 < self.alpha < 1:
            raise ValueError(f"alpha must lie in (0, 1), got {self.alpha}")
        least = max(1, math.floor(-math.log2(self.alpha)) + 1)
        if self.n < least:
            raise ValueError(f"n, the samples, must be at least {least} at alpha {self.alpha:g}, got {self.n}")

    def radius(self, hits: int) -> float:
        """The certified radius, std * Phi^-1(p) with p the lower bound of the class's probability; 0 where p <= 1/2.

        Args:
            hits: of the n samples, how many were of the selected class.
        """
        return max(0.0, self.std * float(norm.ppf(lower_bound(hits, self.n, self.alpha))))

    @property
    def largest_radius(self) -> float:
        """The radius if all n samples agree."""
        return self.radius(self.n)


class Certificate(NamedTuple):
    """What is known of one image.

    Attributes:
        predicted: the smoothed classifier's class, -1 if it abstains.
        radius: L2 radius in pixels of [0, 1] within which it stays so; 0 if it abstains.
        hits: of the n samples, how many were of the selected class.
    """

    predicted: int
    radius: float
    hits: int


class CertifiedAccuracy(NamedTuple):
    """Images that are classified correctly with a radius of at least `radius`: `correct` of n, with an interval."""

    radius: float
    correct: int
    n: int
    interval: Interval


def lower_bound(hits: int, n: int, alpha: float) -> float:
    """Clopper and Pearson's one-sided bound: the p at which `hits` or more of n have probability alpha; 0 without hits.

    A true probability lies above it with probability at least 1 - alpha (Biometrika 26, 1934, p. 404).

    Raises:
        ValueError: unless 0 <= hits <= n.
    """
    if not 0 <= hits <= n:
        raise ValueError(f"need 0 <= hits <= n, got {hits} and {n}")
    return float(beta.ppf(alpha, hits, n - hits + 1)) if hits else 0.0


def smoothing_base(network: nn.Module) -> tuple[nn.Module, float | None]:
    """The network to be certified of one that brings its own Gaussian noise, so that none is added twice.

    Args:
        network: any; a `Vote` is left aside, since certifying votes by itself. Of a `Defended` network whose first
            channel (of a `Chain`, too) is `Gauss` that channel is left out. All other noise is part of the network
            that is certified.

    Returns:
        The network without that channel, sharing its modules, and the channel's std; None if there is no such channel.
    """
    while isinstance(network, Vote):
        network = network.network
    if not isinstance(network, Defended):
        return network, None
    links = _links(network.channels)
    if not (isinstance(first := next(links, None), Gauss) and first.random):
        return network, None
    others = list(links)
    return (Defended(network.network, others) if others else network.network), float(first.std)


def _links(channels: Iterable[nn.Module]) -> Iterator[Channel]:
    for channel in channels:
        if isinstance(channel, Chain):
            yield from _links(channel.channels)
        elif isinstance(channel, Channel):
            yield channel


@torch.inference_mode()
def certify(
    network: nn.Module, x: Tensor, smoothing: Smoothing, seed: int = 0, first: int = 0, most_images: int = 1000
) -> list[Certificate]:
    """Certify images one by one; a network may be random itself, which the theorem allows.

    The noise on an image depends on (seed, first + its place) only: not on the batch, on `most_images` or on what was
    certified before. Where a batch shares the draw of noisy weights every pass holds one sample, as they would not be
    independent otherwise.

    Args:
        network: images -> logits [B, classes], without the smoothing noise; see `smoothing_base`.
        x: images [B, C, H, W] in [0, 1].
        smoothing: noise, samples and level.
        seed: of all draws.
        first: number of the first image.
        most_images: noisy copies in one pass.

    Raises:
        ValueError: `most_images` is below 1.
        FloatingPointError: the network answers NaN or infinity.
    """
    if most_images < 1:
        raise ValueError(f"most_images must be at least 1, got {most_images}")
    at_once = 1 if has_shared_draws(network) else most_images
    with torch.autocast(x.device.type, enabled=False), evaluating(network), folded_batchnorm(network):
        return [_certificate(network, x[i : i + 1], smoothing, seed, first + i, at_once) for i in range(len(x))]


def _certificate(
    network: nn.Module, image: Tensor, smoothing: Smoothing, seed: int, index: int, at_once: int
) -> Certificate:
    def counts(stage: str, n: int) -> Tensor:
        noise, inner = (Stream.named(seed, "certify", stage, part, index=index) for part in ("noise", "network"))
        return _counts(network, _noisy(image, smoothing.std, n, noise, at_once), inner)

    selected = int(counts("selection", smoothing.n0).argmax())
    hits = int(counts("estimation", smoothing.n)[selected])
    radius = smoothing.radius(hits)
    return Certificate(selected if radius > 0 else ABSTAINED, radius, hits)


def _noisy(image: Tensor, std: float, n: int, noise: Stream, at_once: int) -> Iterator[Tensor]:
    """Passes of n noisy copies of an image [1, C, H, W]."""
    block, blocks = torch.cat([image] * _BLOCK), max(1, at_once // _BLOCK)
    for start in range(0, n, blocks * _BLOCK):
        left = min(n - start, blocks * _BLOCK)
        with drawing_from(noise):
            # Whole blocks: how many values are asked for at a time decides which ones are drawn.
            drawn = [normal_like(block, std) for _ in range(-(-left // _BLOCK))]
        yield from torch.split(torch.cat(drawn)[:left] + image, at_once)


def _counts(network: nn.Module, passes: Iterator[Tensor], inner: Stream) -> Tensor:
    """How often each class is answered, [classes]."""
    total: Tensor | int = 0
    for x in passes:
        with drawing_from(inner):
            logits: Tensor = network(x)
        if not (logits < float("inf")).all():  # NaN compares as False
            raise FloatingPointError(
                "the model answers NaN or infinity; its weights are no use (did training diverge?)"
            )
        total = total + logits.argmax(1).bincount(minlength=logits.shape[1])
    assert isinstance(total, Tensor), "n >= 1"
    return total


def certified_accuracy(
    radii: NDArray[np.floating], correct: NDArray[np.bool_], at: Sequence[float] = (0, 0.25, 0.5, 0.75, 1)
) -> list[CertifiedAccuracy]:
    """Certified accuracy as a curve, with 95 % Wilson intervals over images.

    The intervals cover the choice of images; that each certificate is wrong with probability alpha comes on top.

    Args:
        radii: certified radius per image, [n].
        correct: whether the smoothed classifier answers the label; False where it abstains, [n].
        at: radii, >= 0.

    Raises:
        ValueError: there is no image.
    """
    n = len(radii)
    counts = [int(np.sum(correct & (radii >= radius))) for radius in at]
    return [CertifiedAccuracy(radius, k, n, wilson(k, n)) for radius, k in zip(at, counts, strict=True)]
