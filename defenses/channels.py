"""Input channels: images in [0, 1] -> images in front of a network, the papers' perturbations (EEPD section 3)."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from defenses.randomness import drawn_for, is_silenced, normal_like, uniform_like

# What takes the place of a channel's own `transform`: (channel, images) -> images.
StandIn = Callable[["Channel", Tensor], Tensor]
_STAND_IN: ContextVar[StandIn | None] = ContextVar("stand_in", default=None)


class Channel(nn.Module, ABC):
    """Images [B, C, H, W] -> images of the same shape; values may leave [0, 1].

    Attributes:
        random: whether two passes of one image may differ.
        shared: whether all images of a batch see the same draw.
        differentiable: whether the gradient of `transform` says where the output moves. Where it does not, an adaptive
            attack passes the gradient straight through (BPDA).
    """

    random: bool = False
    shared: bool = False
    differentiable: bool = True

    def forward(self, x: Tensor) -> Tensor:
        """`transform`, or what `standing_in` put into its place."""
        stand_in = _STAND_IN.get()
        return self.transform(x) if stand_in is None else stand_in(self, x)

    @abstractmethod
    def transform(self, x: Tensor) -> Tensor:
        """The channel itself."""

    def straight_through(self, x: Tensor) -> Tensor:
        """The values of `transform` with the derivative of the identity (Athalye et al. 2018, 1802.00420)."""
        through: Tensor = _StraightThrough.apply(x, self.transform)
        return through


@contextmanager
def standing_in(stand_in: StandIn) -> Iterator[None]:
    """Inside, every channel answers as `stand_in` does: how an attacker sees a model that he does not run exactly."""
    token = _STAND_IN.set(stand_in)
    try:
        yield
    finally:
        _STAND_IN.reset(token)


class Defended(nn.Module):
    """A network behind channels.

    Args:
        network: images -> logits.
        channels: what the images pass through, in this order.
    """

    def __init__(self, network: nn.Module, channels: Sequence[Channel]) -> None:
        super().__init__()
        self.channels = nn.Sequential(*channels)
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Images [B, C, H, W] in [0, 1] -> logits [B, classes]."""
        logits: Tensor = self.network(self.channels(x))
        return logits


class Identity(Channel):
    """Changes nothing."""

    def transform(self, x: Tensor) -> Tensor:
        """See `Channel`."""
        return x


class ColourDepth(Channel):
    """CD: every pixel rounded to one of 2^bits values.

    Args:
        bits: per colour, 1 to 8.
    """

    differentiable = False

    def __init__(self, bits: int) -> None:
        super().__init__()
        if bits not in range(1, 9):
            raise ValueError(f"bits must be a whole number from 1 to 8, got {bits}")
        self.bits = bits

    def transform(self, x: Tensor) -> Tensor:
        """See `Channel`."""
        steps = 2**self.bits - 1
        return (x * steps).round() / steps

    def extra_repr(self) -> str:
        """The setting, for `print(model)`."""
        return f"bits={self.bits}"


class AdditiveNoise(Channel):
    """x + noise of mean 0, independent per pixel, without clipping; the gradient passes unchanged.

    Args:
        std: standard deviation in pixels of [0, 1], >= 0. The papers' "sigma" is another scale.
    """

    def __init__(self, std: float) -> None:
        super().__init__()
        if not 0 <= std < float("inf"):
            raise ValueError(f"std must be a finite number >= 0, got {std}")
        self.std = std
        self.random = std > 0

    def transform(self, x: Tensor) -> Tensor:
        """See `Channel`."""
        return x + self.std * self.draw(drawn_for(x)) if self.random and not is_silenced() else x

    @abstractmethod
    def draw(self, x: Tensor) -> Tensor:
        """Noise of standard deviation 1, like x."""

    def extra_repr(self) -> str:
        """The setting, for `print(model)`."""
        return f"std={self.std}"


class Gauss(AdditiveNoise):
    """Gaussian noise."""

    def draw(self, x: Tensor) -> Tensor:
        """See `AdditiveNoise`."""
        return normal_like(x)


class Uniform(AdditiveNoise):
    """Uniform noise; of half-width sqrt(3) std."""

    def draw(self, x: Tensor) -> Tensor:
        """See `AdditiveNoise`."""
        return (2 * uniform_like(x) - 1) * 3**0.5


class Laplace(AdditiveNoise):
    """Laplace noise; of scale b = std / sqrt(2)."""

    def draw(self, x: Tensor) -> Tensor:
        """See `AdditiveNoise`."""
        side = 2 * uniform_like(x) - 1  # in [-1, 1), so that the tail is finite but at exactly -1
        tail = (1 - side.abs()).clamp_min(torch.finfo(x.dtype).tiny)
        return -side.sign() * tail.log() / 2**0.5


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, transform: Callable[[Tensor], Tensor]) -> Tensor:
        return transform(x).view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None
