"""The sets of images an attack may choose from: all images in [0, 1] within a distance of the original."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from defenses.randomness import normal_like, uniform_like


@dataclass(frozen=True)
class Ball(ABC):
    """Images in [0, 1] at most `eps` from x; all tensors are [B, C, H, W].

    Args:
        eps: radius in pixel units, so 8/255 is 0.03137... (the papers' 0.031 is not).
    """

    eps: float = 8 / 255

    def __post_init__(self) -> None:
        if not 0 <= self.eps < float("inf"):
            raise ValueError(f"eps must be a finite radius >= 0 in pixels of [0, 1], got {self.eps}")

    @abstractmethod
    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """The point of the ball nearest to `x_adv` (L2: nearest in the ball, then clipped to [0, 1])."""

    @abstractmethod
    def ascent(self, gradient: Tensor) -> Tensor:
        """The direction of norm 1 along which a linear loss with this gradient grows fastest (0 where it is 0)."""

    @abstractmethod
    def sample(self, x: Tensor) -> Tensor:
        """A uniform draw from the ball around each image, then clipped to [0, 1]."""


@dataclass(frozen=True)
class Linf(Ball):
    """max |x_adv - x| <= eps."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.eps > 1:  # no image is farther from another one
            raise ValueError(f"eps of an Linf ball must be at most 1, pixels are in [0, 1]; got {self.eps:g} (n/255?)")

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Clip every pixel into [x - eps, x + eps] and [0, 1]."""
        return torch.clamp(torch.minimum(torch.maximum(x_adv, x - self.eps), x + self.eps), 0, 1)

    def ascent(self, gradient: Tensor) -> Tensor:
        """The sign of every component."""
        return gradient.sign()

    def sample(self, x: Tensor) -> Tensor:
        """Each pixel uniform in [x - eps, x + eps]."""
        return torch.clamp(x + self.eps * (2 * uniform_like(x) - 1), 0, 1)


@dataclass(frozen=True)
class L2(Ball):
    """||x_adv - x||_2 <= eps over all pixels of an image."""

    eps: float = 0.5

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Shorten the difference to eps, then clip to [0, 1], which only brings it nearer to x."""
        delta = x_adv - x
        length = _norm(delta).clamp_min(max(self.eps, torch.finfo(x.dtype).tiny))  # never 0 / 0
        return torch.clamp(x + delta * (self.eps / length), 0, 1)

    def ascent(self, gradient: Tensor) -> Tensor:
        """The gradient at length 1."""
        tiny = torch.finfo(gradient.dtype).tiny
        # A confident network's gradients are so small that their squares underflow: first to a largest component of 1.
        largest = gradient.flatten(1).abs().amax(1).view(-1, 1, 1, 1)
        gradient = gradient / largest.clamp_min(tiny)
        return gradient / _norm(gradient).clamp_min(tiny)

    def sample(self, x: Tensor) -> Tensor:
        """A uniform direction, and a length whose n-th power is uniform."""
        direction = self.ascent(normal_like(x))
        radius = uniform_like(x[:, :1, :1, :1]) ** (1 / x[0].numel())
        return torch.clamp(x + self.eps * radius * direction, 0, 1)


def _norm(x: Tensor) -> Tensor:
    return x.flatten(1).norm(dim=1).view(-1, 1, 1, 1)


def pixels(value: float) -> str:
    """A radius or step as people write it: a short decimal as it is, else 8/255 where it is a multiple of 1/510.

    >>> pixels(8 / 255), pixels(0.031), pixels(0.5 / 255), pixels(0.2)
    ('8/255', '0.031', '0.5/255', '0.2')
    """
    levels = round(value * 255 * 2) / 2
    is_fraction = len(repr(value)) > len("0.0001") and abs(value * 255 - levels) < 1e-9
    return f"{levels:g}/255" if is_fraction else f"{value:g}"
