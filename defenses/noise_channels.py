"""Input channels of additive noise: in pixels of [0, 1], and by the scale of the papers (EEPD section 3)."""

from abc import abstractmethod
from collections.abc import Sequence
from math import prod

from torch import Tensor

from defenses.channels import Channel
from defenses.randomness import centred_uniform_like, drawn_for, is_silenced, laplace_like, normal_like


class AdditiveNoise(Channel):
    """x + noise of mean 0, independent per pixel, without clipping; the gradient passes unchanged.

    Args:
        std: standard deviation in pixels of [0, 1], >= 0. The papers' "sigma" is another scale: `PapersGauss` and kin.
    """

    def __init__(self, std: float) -> None:
        super().__init__()
        self.std = _finite("std", std)
        self.random = std > 0

    def transform(self, x: Tensor) -> Tensor:
        """See `Channel`."""
        if not self.random or is_silenced():
            return x
        noise = self.draw(drawn_for(x))
        # In place where that does: a further tensor costs a tenth of the draw.
        return noise.add_(x) if noise.shape == x.shape else x + noise

    @abstractmethod
    def draw(self, x: Tensor) -> Tensor:
        """Noise like x."""

    def expected_l2(self, shape: Sequence[int]) -> float:
        """`std` * sqrt(values per image)."""
        return self.std * prod(shape) ** 0.5

    def extra_repr(self) -> str:
        """The setting, for `print(model)`."""
        return f"std={self.std}"


class Gauss(AdditiveNoise):
    """Gaussian noise."""

    def draw(self, x: Tensor) -> Tensor:
        """See `AdditiveNoise`."""
        return normal_like(x, self.std)


class Uniform(AdditiveNoise):
    """Uniform noise; of half-width sqrt(3) std."""

    def draw(self, x: Tensor) -> Tensor:
        """See `AdditiveNoise`."""
        return centred_uniform_like(x, self.std)


class Laplace(AdditiveNoise):
    """Laplace noise; of scale b = std / sqrt(2)."""

    def draw(self, x: Tensor) -> Tensor:
        """See `AdditiveNoise`."""
        return laplace_like(x, self.std)


class PapersGauss(Gauss):
    """Gaussian noise by the papers' "sigma", foolbox 1.9's epsilon: std = sigma * bounds_range / sqrt(3).

    Args:
        sigma: as in the papers' tables, >= 0.
        bounds_range: maximum minus minimum of the values that they declared, counted in pixels of [0, 1], > 0. It is 1
            for EEPD's figure 8. Their ResNet-18 on CIFAR-10 saw normalised images declared to lie within 5.5: 1.105
            here (times 0.2009, the mean over colours of the standard deviation that they divided by).
    """

    def __init__(self, sigma: float, bounds_range: float = 1.0) -> None:
        super().__init__(_half_width(sigma, bounds_range) / 3**0.5)


class PapersUniform(Uniform):
    """Uniform noise on [-1, 1] * sigma * bounds_range: as strong as `PapersGauss` of the same sigma, which see."""

    def __init__(self, sigma: float, bounds_range: float = 1.0) -> None:
        super().__init__(_half_width(sigma, bounds_range) / 3**0.5)


class PapersLaplace(Laplace):
    """Laplace noise of scale b = sigma * bounds_range / sqrt(3): sqrt(2) times `PapersGauss`, which see."""

    def __init__(self, sigma: float, bounds_range: float = 1.0) -> None:
        super().__init__(2**0.5 * _half_width(sigma, bounds_range) / 3**0.5)


def _half_width(sigma: float, bounds_range: float) -> float:
    if not 0 < bounds_range < float("inf"):
        raise ValueError(f"bounds_range must be a finite number > 0, got {bounds_range}")
    return _finite("sigma", sigma) * bounds_range


def _finite(name: str, value: float) -> float:
    if not 0 <= value < float("inf"):
        raise ValueError(f"{name} must be a finite number >= 0, got {value}")
    return value
