"""The sets of images an attack may choose from: all images in [0, 1] within a distance of the original."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from defenses.randomness import normal_like, uniform_like


@dataclass(frozen=True)
class Ball(ABC):
    """Images in [0, 1] at most `eps` from x; all tensors are [B, C, H, W].

    Args:
        eps: radius in pixel units, so 8/255 is 0.03137... (the papers' 0.031 is not).
    """

    order: ClassVar[float]  # p of the norm
    eps: float = 8 / 255

    def __post_init__(self) -> None:
        if not 0 <= self.eps < float("inf"):
            raise ValueError(f"eps must be a finite radius >= 0 in pixels of [0, 1], got {self.eps}")

    def _eps(self, radius: Tensor | None) -> float | Tensor:
        return self.eps if radius is None else radius

    @abstractmethod
    def project(self, x_adv: Tensor, x: Tensor, radius: Tensor | None = None) -> Tensor:
        """The point of the ball nearest to `x_adv` (L2: nearest in the ball, then clipped to [0, 1]).

        Args:
            x_adv: any images.
            x: the middle.
            radius: [B, 1, 1, 1], > 0, of each image in the place of `eps`.
        """

    @abstractmethod
    def ascent(self, gradient: Tensor, x_adv: Tensor | None = None) -> Tensor:
        """The direction of norm 1 along which a linear loss with this gradient grows fastest (0 where it is 0).

        Args:
            gradient: of the loss.
            x_adv: where the step begins. A step of few pixels (L1) then passes over those that cannot move.
        """

    def norm(self, delta: Tensor) -> Tensor:
        """Of perturbations: [B, C, H, W] -> [B]."""
        return torch.linalg.vector_norm(delta.flatten(1), ord=self.order, dim=1)

    @abstractmethod
    def sample(self, x: Tensor, radius: Tensor | None = None) -> Tensor:
        """A uniform draw from the ball around each image, then clipped to [0, 1]; `radius` as in `project`."""


@dataclass(frozen=True)
class Linf(Ball):
    """max |x_adv - x| <= eps."""

    order: ClassVar[float] = float("inf")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.eps > 1:  # no image is farther from another one
            raise ValueError(f"eps of an Linf ball must be at most 1, pixels are in [0, 1]; got {self.eps:g} (n/255?)")

    def project(self, x_adv: Tensor, x: Tensor, radius: Tensor | None = None) -> Tensor:
        """Clip every pixel into [x - eps, x + eps] and [0, 1]."""
        eps = self._eps(radius)
        low, high = (x - eps).clamp_(min=0), (x + eps).clamp_(max=1)
        return torch.clamp(x_adv, low, high)

    def ascent(self, gradient: Tensor, x_adv: Tensor | None = None) -> Tensor:
        """The sign of every component."""
        return gradient.sign()

    def sample(self, x: Tensor, radius: Tensor | None = None) -> Tensor:
        """Each pixel uniform in [x - eps, x + eps]."""
        eps = self._eps(radius)
        return torch.clamp(x + eps * (2 * uniform_like(x) - 1), 0, 1)


@dataclass(frozen=True)
class L2(Ball):
    """||x_adv - x||_2 <= eps over all pixels of an image."""

    order: ClassVar[float] = 2.0
    eps: float = 0.5

    def project(self, x_adv: Tensor, x: Tensor, radius: Tensor | None = None) -> Tensor:
        """Shorten the difference to eps, then clip to [0, 1], which only brings it nearer to x."""
        delta, eps = x_adv - x, self._eps(radius)
        length = _norm(delta).clamp_min(torch.finfo(x.dtype).tiny).clamp_min(eps)  # never 0 / 0
        return torch.clamp(x + delta * (eps / length), 0, 1)

    def ascent(self, gradient: Tensor, x_adv: Tensor | None = None) -> Tensor:
        """The gradient at length 1."""
        tiny = torch.finfo(gradient.dtype).tiny
        # A confident network's gradients are so small that their squares underflow: first to a largest component of 1.
        largest = gradient.flatten(1).abs().amax(1).view(-1, 1, 1, 1)
        gradient = gradient / largest.clamp_min(tiny)
        return gradient / _norm(gradient).clamp_min(tiny)

    def sample(self, x: Tensor, radius: Tensor | None = None) -> Tensor:
        """A uniform direction, and a length whose n-th power is uniform."""
        direction, eps = self.ascent(normal_like(x)), self._eps(radius)
        share = uniform_like(x[:, :1, :1, :1]) ** (1 / x[0].numel())
        return torch.clamp(x + eps * share * direction, 0, 1)


@dataclass(frozen=True)
class L1(Ball):
    """||x_adv - x||_1 <= eps over all pixels of an image.

    Args:
        eps: radius, the sum of |x_adv - x|: 12 over 3 x 32 x 32 pixels is 0.0039 each.
        density: share of the pixels that one step moves, in (0, 1]; at least one. A pixel moves by 1 at most: a step of
            length s on fewer than s pixels is cut short by the box.
    """

    order: ClassVar[float] = 1.0
    eps: float = 12.0
    density: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.density <= 1:
            raise ValueError(f"density must be a share of the pixels in (0, 1], got {self.density}")

    def project(self, x_adv: Tensor, x: Tensor, radius: Tensor | None = None) -> Tensor:
        """Shorten every difference by the same amount (not below 0), then clip to [0, 1].

        With the least amount that suffices this is the nearest point. In double precision and rounded towards x, so
        that rounding leads nobody out of the ball.
        """
        inside, origin = x_adv.clamp(0, 1), x.double()
        delta = x_adv.double() - origin
        size, room = delta.abs(), torch.where(delta > 0, 1 - origin, origin)
        eps = self.eps if radius is None else radius.flatten(1)
        cut = _cut(size.flatten(1), room.flatten(1), eps).view(-1, 1, 1, 1)
        moved = torch.minimum((size - cut).clamp_min(0), room)
        nearest = (origin + moved * delta.sign()).to(x.dtype)
        too_far = (nearest.double() - origin).abs() > moved
        nearest = torch.where(too_far, torch.nextafter(nearest, x), nearest)
        # Exactly at the border, or `ascent` would take it for free to move.
        nearest = torch.where(moved < room, nearest, (delta > 0).to(x.dtype))
        return torch.where(cut > 0, nearest, inside)

    def ascent(self, gradient: Tensor, x_adv: Tensor | None = None) -> Tensor:
        """Along the share `density` of the largest gradients, in proportion to them.

        The steepest direction moves one pixel, which is slow (SLIDE, https://arxiv.org/abs/1904.13000); this is it
        where `density` leaves one, and the whole gradient where it is 1. SLIDE's steps are equal: between the pixels
        of one step they know no better or worse, and come to rest below the maximum even of a linear loss. From `x_adv`
        on, pixels that the box holds back are not counted; those with gradients as large as the others' are pushed all
        the same, or the projection would pull them back.
        """
        tiny = torch.finfo(gradient.dtype).tiny
        gradient = gradient / gradient.abs().amax((1, 2, 3), keepdim=True).clamp_min(tiny)  # or a sum underflows
        size, held = gradient.abs(), torch.zeros_like(gradient, dtype=torch.bool)
        if x_adv is not None:
            held = torch.where(gradient > 0, x_adv >= 1, x_adv <= 0)
        free = size.masked_fill(held, 0).flatten(1)
        least = free.topk(max(1, round(self.density * free.shape[1])), dim=1).values[:, -1:].view(-1, 1, 1, 1)
        step = gradient * (size >= least)  # masked_fill forgets that a tensor is channels_last
        moving = step.masked_fill(held, 0).abs().sum((1, 2, 3), keepdim=True)
        # Nothing moves where all is held; what is held may then stay as it is.
        return torch.where(moving > 0, step / moving.clamp_min(tiny), 0.0)

    def sample(self, x: Tensor, radius: Tensor | None = None) -> Tensor:
        """Exponential sizes, random signs, and a length whose n-th power is uniform."""
        eps = self._eps(radius)
        size, sign = -torch.log1p(-uniform_like(x)), (2 * (uniform_like(x) < 0.5) - 1)
        share = uniform_like(x[:, :1, :1, :1]) ** (1 / x[0].numel())
        total = size.sum((1, 2, 3), keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
        return self.project(x + eps * share * sign * size / total, x, radius)


def _cut(size: Tensor, room: Tensor, eps: float | Tensor) -> Tensor:
    """The least c >= 0 with sum min((size - c)+, room) <= eps.

    As c falls, the sum grows along straight lines: one steeper from c = size on, one flatter from c = size - room on.

    Args:
        size: [B, n], >= 0.
        room: [B, n], >= 0.
        eps: >= 0, or [B, 1].

    Returns:
        [B].
    """
    turns, order = torch.cat([size, size - room], 1).sort(1, descending=True)
    slope = torch.where(order < size.shape[1], 1.0, -1.0).to(size).cumsum(1)
    grown = (slope[:, :-1] * -turns.diff(dim=1)).cumsum(1)
    total = torch.cat([torch.zeros_like(size[:, :1]), grown], 1)
    last = ((total < eps).sum(1, keepdim=True) - 1).clamp_min(0)
    # Where even c = 0 leaves less than eps, the line may be flat: no division by 0.
    missing = (eps - total.gather(1, last)) / slope.gather(1, last).clamp_min(1)
    cut = turns.gather(1, last) - missing
    return torch.where(torch.minimum(size, room).sum(1, keepdim=True) <= eps, 0.0, cut).squeeze(1)


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
