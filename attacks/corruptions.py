"""Corruptions as attacks: the worst of many random or gridded changes that no model has to be known for.

Noise and contrast follow foolbox and the papers (EEPD figure 17), rotation and translation Engstrom et al. 2019,
https://arxiv.org/abs/1712.02779.
"""

import math
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional as F

from attacks.balls import pixels
from attacks.base import Attack, Best, Log, Trace
from attacks.goal import Goal
from attacks.losses import Loss, Margin
from attacks.shown import Shown
from defenses.randomness import normal_like, uniform_like


@dataclass(frozen=True)
class Trials(Attack):
    """The worst of a number of images: one that breaks the model, or else that of the largest loss."""

    @property
    @abstractmethod
    def tries(self) -> int:
        """How many images are tried."""

    @abstractmethod
    def candidates(self, x: Tensor) -> Iterator[Tensor]:
        """`tries` batches like x, in [0, 1]; drawn for the whole batch, so that draws depend on nobody's leaving."""

    @property
    def criterion(self) -> Loss:
        """What decides between images that both break the model, or both do not."""
        return Margin()

    def search(self, model: Shown, x: Tensor, goal: Goal) -> Trace:
        """See `Attack.run`; the trace's loss is the largest one after each try."""
        log, best = Log(self.tries, x, goal), Best(x, goal, self.criterion)
        rows = torch.arange(len(x), device=x.device)
        for step, candidate in enumerate(self.candidates(x)):
            best.offer(candidate[rows], log.asked(model.answers(candidate[rows]), rows), rows)
            log.loss[step, rows] = best.loss[rows]
            rows = best.unbroken() if goal.first_success else rows
            if not len(rows):
                break
        return log.trace(best.x_adv)


@dataclass(frozen=True)
class AdditiveUniform(Trials):
    """x + U(-eps, eps) for each value, clipped to [0, 1].

    Args:
        eps: half the width, in pixels of [0, 1]. (The library behind EEPD figure 17 squared it.)
        trials: draws, the worst of which is kept; 0 returns x.
    """

    eps: float = 0.1
    trials: int = 10

    def __post_init__(self) -> None:
        _refuse(self, self.trials >= 0 and 0 <= self.eps < math.inf, "trials >= 0 and a finite eps >= 0")

    def __str__(self) -> str:
        return f"AdditiveUniform x {self.trials} (eps {pixels(self.eps)})"

    @property
    def tries(self) -> int:
        """One per trial."""
        return self.trials

    def candidates(self, x: Tensor) -> Iterator[Tensor]:
        """See `Trials`."""
        return ((x + self.eps * (2 * uniform_like(x) - 1)).clamp(0, 1) for _ in range(self.trials))


@dataclass(frozen=True)
class AdditiveGaussian(Trials):
    """x + N(0, std^2) for each value, clipped to [0, 1].

    Args:
        std: standard deviation in pixels of [0, 1].
        trials: draws, the worst of which is kept; 0 returns x.
    """

    std: float = 0.1
    trials: int = 10

    def __post_init__(self) -> None:
        _refuse(self, self.trials >= 0 and 0 <= self.std < math.inf, "trials >= 0 and a finite std >= 0")

    def __str__(self) -> str:
        return f"AdditiveGaussian x {self.trials} (std {pixels(self.std)})"

    @property
    def tries(self) -> int:
        """One per trial."""
        return self.trials

    def candidates(self, x: Tensor) -> Iterator[Tensor]:
        """See `Trials`."""
        return ((x + normal_like(x, self.std)).clamp(0, 1) for _ in range(self.trials))


@dataclass(frozen=True)
class ContrastReduction(Trials):
    """(1 - e) x + e / 2 for e in steps up to `eps`: towards grey.

    Args:
        eps: the largest e, in [0, 1]; 1 is grey.
        levels: number of steps of equal size; 0 returns x.
    """

    eps: float = 0.5
    levels: int = 10

    def __post_init__(self) -> None:
        _refuse(self, self.levels >= 0 and 0 <= self.eps <= 1, "levels >= 0 and eps in [0, 1]")

    def __str__(self) -> str:
        return f"ContrastReduction x {self.levels} (eps {self.eps:g})"

    @property
    def tries(self) -> int:
        """One per level."""
        return self.levels

    def candidates(self, x: Tensor) -> Iterator[Tensor]:
        """See `Trials`."""
        return (x + self.eps * level / self.levels * (0.5 - x) for level in range(1, self.levels + 1))


@dataclass(frozen=True)
class RotationTranslation(Trials):
    """Turned about the centre, then shifted; bilinear, zeros from outside. The worst of a grid of both.

    The defaults are the paper's grid for CIFAR-10.

    Args:
        max_angle: largest angle in degrees, to both sides.
        max_shift: largest shift in pixels of the image, to all four sides.
        angles: number of angles from -max_angle to max_angle; 1 is angle 0.
        shifts: number of shifts from -max_shift to max_shift, in each direction; 1 is shift 0.
    """

    max_angle: float = 30.0
    max_shift: float = 3.0
    angles: int = 31
    shifts: int = 5

    def __post_init__(self) -> None:
        allowed = 0 <= self.max_angle <= 180 and 0 <= self.max_shift < math.inf and min(self.angles, self.shifts) >= 1
        _refuse(self, allowed, "max_angle in [0, 180], max_shift >= 0, angles and shifts >= 1")

    def __str__(self) -> str:
        grid = f"{self.angles} x {self.shifts} x {self.shifts}"
        return f"RotationTranslation ({self.max_angle:g} degrees, {self.max_shift:g} pixels, {grid})"

    @property
    def tries(self) -> int:
        """The points of the grid."""
        return self.angles * self.shifts**2

    def candidates(self, x: Tensor) -> Iterator[Tensor]:
        """See `Trials`; the smallest changes first."""
        shifts = _grid(self.max_shift, self.shifts)
        grid = product(_grid(self.max_angle, self.angles), shifts, shifts)
        return (moved(x, *point) for point in sorted(grid, key=lambda point: sum(abs(part) for part in point)))


def moved(x: Tensor, angle: float, down: float, right: float) -> Tensor:
    """Images turned counterclockwise by `angle` degrees about their centre, then shifted by pixels; zeros enter."""
    if angle == down == right == 0:
        return x  # exactly
    height, width = x.shape[2:]
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    # Where each pixel comes from, in pixels from the centre (across, down): the inverse turn of (p - shift).
    turn = ((cos, -sin), (sin, cos))
    back = [[row[0], row[1], -row[0] * right - row[1] * down] for row in turn]
    # affine_grid counts in half widths and half heights.
    half = (width / 2, height / 2)
    theta = [[back[i][0] * half[0] / half[i], back[i][1] * half[1] / half[i], back[i][2] / half[i]] for i in (0, 1)]
    grid = F.affine_grid(x.new_tensor([theta]).expand(len(x), 2, 3), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="zeros", align_corners=False).clamp(0, 1)


def _grid(largest: float, points: int) -> list[float]:
    return [largest * (2 * i / (points - 1) - 1) for i in range(points)] if points > 1 else [0.0]


def _refuse(attack: Attack, allowed: bool, wanted: str) -> None:
    if not allowed:
        raise ValueError(f"{type(attack).__name__} takes {wanted}; got {attack!r}")
