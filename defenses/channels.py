"""Input channels: images in [0, 1] -> images in front of a network, the papers' perturbations (EEPD section 3)."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, cast

import torch
from torch import Tensor, nn

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

    def expected_l2(self, shape: Sequence[int]) -> float | None:
        """How far an image moves: the root mean square of ||channel(x) - x||_2 over the draws.

        Args:
            shape: of one image, [C, H, W].

        Returns:
            The distance in pixels of [0, 1]; None where it depends on the image.
        """
        return None


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

    def expected_l2(self, shape: Sequence[int]) -> float:
        """0."""
        return 0.0


class Chain(Channel):
    """Channels one after the other as one channel: the papers' CD+FC is `Chain([ColourDepth(4), FFTCompression(50)])`.

    An attacker who replaces channels replaces it as a whole. One who only works around missing derivatives gets the
    exact derivative of each member that has one and passes straight through the others: as with the members in a row.

    Args:
        channels: in the order in which images pass through them; none is the identity.
    """

    def __init__(self, channels: Sequence[Channel]) -> None:
        super().__init__()
        self.channels = nn.ModuleList(channels)
        self.random = any(channel.random for channel in channels)
        self.shared = any(channel.random and channel.shared for channel in channels)

    @property
    def differentiable(self) -> bool:  # type: ignore[override]
        """Whether all members are; always while somebody stands in, when `transform` goes round those that are not."""
        return _STAND_IN.get() is not None or all(channel.differentiable for channel in self._members())

    def transform(self, x: Tensor) -> Tensor:
        """See `Channel`."""
        attacked = _STAND_IN.get() is not None
        for channel in self._members():
            # Not `channel(x)`: whoever stands in has been asked about the whole chain.
            around = attacked and not channel.differentiable
            x = channel.straight_through(x) if around else channel.transform(x)
        return x

    def expected_l2(self, shape: Sequence[int]) -> float | None:
        """See `Channel`; known if at most one member changes images."""
        distances = [channel.expected_l2(shape) for channel in self._members()]
        moved = [distance for distance in distances if distance != 0] or [0.0]
        return moved[0] if len(moved) == 1 else None

    def _members(self) -> Iterator[Channel]:
        return cast(Iterator[Channel], iter(self.channels))


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, transform: Callable[[Tensor], Tensor]) -> Tensor:
        return transform(x).view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None
