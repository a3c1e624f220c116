"""Noise: what is added to an activation or to a weight at every pass, in training and in evaluation alike.

No class here looks at `self.training`: randomness that vanishes in eval mode is no defense but a training trick.
`silenced()` turns noise off where that is the question.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from defenses.randomness import centred_uniform_like, drawn_for, is_silenced, laplace_like, normal_like


class Noise(nn.Module, ABC):
    """Tensor -> tensor of the same shape with fresh noise at every call.

    Attributes:
        random: False if the noise has no effect (level 0 that is not learned).
        shared: True if one draw serves all images of a batch (weights), False if each image has its own.
    """

    random: bool = True
    shared: bool = False

    def forward(self, x: Tensor) -> Tensor:
        """`x` with noise; `x` itself inside `silenced()` or where the level is 0."""
        return self.perturb(x) if self.random and not is_silenced() else x

    @abstractmethod
    def perturb(self, x: Tensor) -> Tensor:
        """`x` with a fresh draw."""

    @abstractmethod
    def level(self, x: Tensor) -> float:
        """Standard deviation, in the units of `x`, of the noise that `perturb` would add to it."""


class AbsoluteNoise(Noise):
    """x + noise of mean 0 and one absolute level, independent per element; the gradient passes unchanged.

    Args:
        std: standard deviation in the units of the tensor, >= 0: before the first convolution pixels in [0, 1], or
            normalised pixels where a `Normalized` network is inside the noise.
    """

    def __init__(self, std: float) -> None:
        super().__init__()
        self.std = at_least_0("std", std)
        self.random = std > 0

    def perturb(self, x: Tensor) -> Tensor:
        """`x` with a fresh draw."""
        return x + self.draw(x if self.shared else drawn_for(x))

    def level(self, x: Tensor) -> float:
        """See `Noise`."""
        return self.std

    @abstractmethod
    def draw(self, x: Tensor) -> Tensor:
        """Noise of standard deviation `std`, like x."""

    def extra_repr(self) -> str:
        """The level, for `print(model)`."""
        return f"std={self.std}"


class GaussianNoise(AbsoluteNoise):
    """x + N(0, std^2): RobustNet's noise (Liu et al. 2018, Random Self-Ensemble; EEPD section 3.5)."""

    def perturb(self, x: Tensor) -> Tensor:
        """`x` with a fresh draw."""
        noise = self.draw(x if self.shared else drawn_for(x))
        # In place: a second tensor of this size would cost a tenth of the draw.
        return noise.add_(x) if noise.shape == x.shape else noise + x

    def draw(self, x: Tensor) -> Tensor:
        """See `AbsoluteNoise`."""
        return normal_like(x, self.std)


class UniformNoise(AbsoluteNoise):
    """x + U[-a, a) of half-width a = sqrt(3) std, in place of RobustNet's Gaussian (EEPD section 3.5)."""

    def draw(self, x: Tensor) -> Tensor:
        """See `AbsoluteNoise`."""
        return centred_uniform_like(_in_full(x), self.std).to(x.dtype)


class LaplaceNoise(AbsoluteNoise):
    """x + Laplace noise of scale b = std / sqrt(2), in place of RobustNet's Gaussian (EEPD section 3.5)."""

    def draw(self, x: Tensor) -> Tensor:
        """See `AbsoluteNoise`."""
        return laplace_like(_in_full(x), self.std).to(x.dtype)


class ScaledNoise(Noise):
    """x + alpha * std(x) * N(0, 1) with a learned scalar alpha, one per layer.

    Parametric noise injection (PNI; He et al. 2019, https://arxiv.org/abs/1811.09310): `std` is the unbiased standard
    deviation over the whole tensor, recomputed at every pass and detached. On activations each image has its own draw.

    Args:
        alpha: start value of alpha; 0.25 in the paper.
    """

    def __init__(self, alpha: float = 0.25) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.tensor(float(at_least_0("alpha", alpha))))

    def perturb(self, x: Tensor) -> Tensor:
        """`x` with a fresh draw."""
        return torch.addcmul(x, self.alpha * x.detach().std(), normal_like(x if self.shared else drawn_for(x)))

    def level(self, x: Tensor) -> float:
        """See `Noise`."""
        return float(self.alpha.detach().abs() * x.detach().std())


class SharedScaledNoise(ScaledNoise):
    """`ScaledNoise` on a weight (PNI-W): the batch shares the draw."""

    shared = True


class SharedGaussianNoise(GaussianNoise):
    """`GaussianNoise` on a parameter (ParamNet): the batch shares the draw."""

    shared = True


def at_least_0(name: str, value: float) -> float:
    """`value`, if it can be the level of a noise.

    Raises:
        ValueError: it is negative, infinite or NaN.
    """
    if not 0 <= value < float("inf"):
        raise ValueError(f"{name} must be a finite number >= 0, got {value}")
    return value


def _in_full(x: Tensor) -> Tensor:
    """`x` or a stand-in in float32: numbers of 8 or 11 bits are too coarse to draw uniformly, their mean is not 0."""
    return x if x.dtype in (torch.float32, torch.float64) else torch.empty_like(x, dtype=torch.float32)
