"""Which model an attacker is shown: all that "adaptive" and "oblivious" mean, apart from the number of draws."""

from abc import ABC, abstractmethod
from contextlib import ExitStack
from dataclasses import MISSING, dataclass, fields

import torch
from torch import Tensor, nn

from attacks.shown import Model, Wrapper
from defenses.channels import Channel, standing_in
from defenses.randomness import Stream, frozen, has_shared_draws, is_random, silenced
from defenses.voting import Vote


@dataclass(frozen=True)
class View(ABC):
    """A model -> the model that the attack sees."""

    def __str__(self) -> str:
        settings = [f for f in fields(self) if f.default is MISSING or getattr(self, f.name) != f.default]
        values = ", ".join(f"{f.name}={getattr(self, f.name)}" for f in settings)
        return f"{type(self).__name__}({values})" if values else type(self).__name__

    @property
    def faithful(self) -> bool:
        """Whether the view answers what the model answers, so that a success on it is one on the model."""
        return False

    @abstractmethod
    def of(self, model: Model) -> Model:
        """`model` under this view, with the same weights."""


@dataclass(frozen=True)
class Exact(View):
    """The model itself, derivatives too: those of rounding are 0."""

    @property
    def faithful(self) -> bool:
        """True."""
        return True

    def of(self, model: Model) -> Model:
        """See `View`."""
        return model


@dataclass(frozen=True)
class StraightThrough(View):
    """BPDA: channels without a useful derivative get that of the identity (Athalye et al. 2018, 1802.00420).

    Args:
        everywhere: channels that have a derivative, too (the papers' attack on FC and SVD).
        at_image: the network's derivative is taken at the image and not behind the channels, while the answer is the
            one behind them: the papers' variant (EEPD table 1), weaker as a rule; implies `everywhere`.
    """

    everywhere: bool = False
    at_image: bool = False

    @property
    def faithful(self) -> bool:
        """True."""
        return True

    def of(self, model: Model) -> Model:
        """See `View`."""
        return _AtImage(model) if self.at_image else _Through(model, self.everywhere)


@dataclass(frozen=True)
class Surrogate(View):
    """The partially adaptive attacker: he knows the network and takes its channels for another one (EEPD table 1).

    Args:
        channel: what he assumes; in the place of the model's first channel, the others left out.
        everywhere: see `StraightThrough`, which the attacker applies to his assumption.
    """

    channel: Channel
    everywhere: bool = False

    def of(self, model: Model) -> Model:
        """See `View`.

        Raises:
            ValueError: the model has no channel to stand in for.
        """
        return _Assumed(model, self.channel, self.everywhere)


@dataclass(frozen=True)
class Oblivious(View):
    """The bare network: no channel, no noise."""

    def of(self, model: Model) -> Model:
        """See `View`."""
        return _Bare(model)


@dataclass(frozen=True)
class Frozen(View):
    """The random model with one fixed draw, the same for all images and passes: is it randomness that protects?

    Args:
        seed: names the draw.
    """

    seed: int = 0

    def of(self, model: Model) -> Model:
        """See `View`."""
        return _FrozenModel(model, self.seed)


@dataclass(frozen=True)
class Voted(View):
    """A random model's mean probability over passes, the smoothed classifier that SmoothAdv attacks (1906.04584).

    Its cross entropy is that of the mean; `EOT` follows the mean of the draws' cross entropies.

    Args:
        votes: passes behind one answer.
        most_images: most images in one pass.
    """

    votes: int
    most_images: int = 256

    def __post_init__(self) -> None:
        Vote(nn.Identity(), self.votes, "probabilities", self.most_images)  # refuses what is impossible

    def of(self, model: Model) -> Model:
        """See `View`."""
        if not isinstance(model, nn.Module):
            raise ValueError(f"Voted takes a model that is a module, got {type(model).__name__}")
        return Vote(model, self.votes, "probabilities", self.most_images)


class _Seen(Wrapper):
    """A model under a view: `random` and `shared` are said here, whatever its parts say."""

    speaks_for_its_parts = True

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self.random, self.shared = is_random(model), has_shared_draws(model)


class _Through(_Seen):
    def __init__(self, model: Model, everywhere: bool) -> None:
        super().__init__(model)
        self.everywhere = everywhere

    def forward(self, x: Tensor) -> Tensor:
        with standing_in(lambda channel, images: _through(channel, images, self.everywhere)):
            return self.model(x)


class _AtImage(_Seen):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            behind: Tensor = self.model(x)
        if not (torch.is_grad_enabled() and x.requires_grad):
            return behind
        with standing_in(_left_out):
            here = self.model(x)
        return behind + (here - here.detach())


class _Assumed(_Seen):
    def __init__(self, model: Model, channel: Channel, everywhere: bool) -> None:
        super().__init__(model)
        channels = [part for part in _modules(model) if isinstance(part, Channel)]
        if not channels:
            raise ValueError(f"Surrogate({channel}) has nothing to stand in for: {type(model).__name__} has no channel")
        self.channel, self.everywhere, self._first = channel, everywhere, [channels[0]]
        rest = [part for part in _modules(model) if not isinstance(part, Channel)]
        self.random = any(getattr(part, "random", False) for part in [channel, *rest])
        self.shared = any(
            getattr(part, "random", False) and getattr(part, "shared", False) for part in [channel, *rest]
        )

    def forward(self, x: Tensor) -> Tensor:
        with standing_in(self._stand_in):
            return self.model(x)

    def _stand_in(self, channel: Channel, x: Tensor) -> Tensor:
        return _through(self.channel, x, self.everywhere) if channel is self._first[0] else x


class _Bare(_Seen):
    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self.random = self.shared = False

    def forward(self, x: Tensor) -> Tensor:
        with ExitStack() as stack:
            stack.enter_context(silenced())
            stack.enter_context(standing_in(_left_out))
            return self.model(x)


class _FrozenModel(_Seen):
    def __init__(self, model: Model, seed: int) -> None:
        super().__init__(model)
        self.seed = seed
        self.random = self.shared = False

    def forward(self, x: Tensor) -> Tensor:
        with frozen(Stream.named(self.seed, "frozen")):
            return self.model(x)


def _through(channel: Channel, x: Tensor, everywhere: bool) -> Tensor:
    exact = channel.differentiable and not everywhere
    return channel.transform(x) if exact else channel.straight_through(x)


def _left_out(channel: Channel, x: Tensor) -> Tensor:
    return x


def _modules(model: Model) -> list[nn.Module]:
    return list(model.modules()) if isinstance(model, nn.Module) else []
