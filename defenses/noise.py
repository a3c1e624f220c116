"""Noise: what is added to an activation or to a weight at every pass, in training and in evaluation alike.

No class here looks at `self.training`: randomness that vanishes in eval mode is no defense but a training trick.
`silenced()` turns noise off where that is the question.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from defenses.randomness import drawn_for, is_silenced, normal_like


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


class GaussianNoise(Noise):
    """x + N(0, std^2), independent per element; the gradient passes unchanged.

    RobustNet's noise (Liu et al. 2018, Random Self-Ensemble; EEPD section 3.5).

    Args:
        std: standard deviation in the units of the tensor, >= 0: before the first convolution pixels in [0, 1], or
            normalised pixels where a `Normalized` network is inside the noise.
    """

    def __init__(self, std: float) -> None:
        super().__init__()
        self.std = _level("std", std)
        self.random = std > 0

    def perturb(self, x: Tensor) -> Tensor:
        """`x` with a fresh draw."""
        noise = normal_like(x if self.shared else drawn_for(x), self.std)
        # In place: a second tensor of this size would cost a tenth of the draw.
        return noise.add_(x) if noise.shape == x.shape else noise + x

    def extra_repr(self) -> str:
        """The level, for `print(model)`."""
        return f"std={self.std}"


class ScaledNoise(Noise):
    """x + alpha * std(x) * N(0, 1) with a learned scalar alpha, one per layer.

    Parametric noise injection (PNI; He et al. 2019, https://arxiv.org/abs/1811.09310): `std` is the unbiased standard
    deviation over the whole tensor, recomputed at every pass and detached. On activations each image has its own draw.

    Args:
        alpha: start value of alpha; 0.25 in the paper.
    """

    def __init__(self, alpha: float = 0.25) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.tensor(float(_level("alpha", alpha))))

    def perturb(self, x: Tensor) -> Tensor:
        """`x` with a fresh draw."""
        return torch.addcmul(x, self.alpha * x.detach().std(), normal_like(x if self.shared else drawn_for(x)))


class SharedScaledNoise(ScaledNoise):
    """`ScaledNoise` on a weight (PNI-W): the batch shares the draw."""

    shared = True


class SharedGaussianNoise(GaussianNoise):
    """`GaussianNoise` on a parameter (ParamNet): the batch shares the draw."""

    shared = True


def _level(name: str, value: float) -> float:
    if not 0 <= value < float("inf"):
        raise ValueError(f"{name} must be a finite number >= 0, got {value}")
    return value
