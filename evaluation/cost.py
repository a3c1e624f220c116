"""What an evaluation costs: passes of the model, counted while it runs and estimated before."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from attacks import Attack, evaluating
from defenses import Defended, Identity, Stream, drawing_from, is_random
from defenses.randomness import has_shared_draws

# How far ahead the label's logit is in the stand-ins for the network: one that nothing breaks, so that every attack
# takes all its steps, and one that breaks soon, because attacks that walk along the boundary need one.
_LEADS = (100.0, 0.1)
_MOST_PIXELS = 4096  # that a stand-in looks at: all of a small image


@dataclass(frozen=True)
class Cost:
    """Passes of images through the model, a draw of a random model counted as one pass.

    Attributes:
        forward: all of them.
        gradient: those of them that were differentiated, too.
        seconds: the time they took; 0 where nothing was timed.
    """

    forward: int = 0
    gradient: int = 0
    seconds: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        """Both one after the other."""
        return Cost(
            self.forward + other.forward, self.gradient + other.gradient, round(self.seconds + other.seconds, 6)
        )

    def __mul__(self, times: int) -> "Cost":
        """This, so many times."""
        return Cost(self.forward * times, self.gradient * times, self.seconds * times)


@dataclass
class Meter:
    """Counts while `counting` is open."""

    forward: int = 0
    gradient: int = 0
    started: float = 0.0

    @property
    def cost(self) -> Cost:
        """What was counted so far."""
        return Cost(self.forward, self.gradient, time.monotonic() - self.started)


@contextmanager
def counting(model: nn.Module) -> Iterator[Meter]:
    """Inside, passes through the model are counted, whoever asks for them."""
    meter = Meter(started=time.monotonic())

    def count(module: nn.Module, arguments: tuple[Any, ...], logits: Any) -> None:
        if isinstance(logits, Tensor):  # and not when it is traced
            meter.forward += len(arguments[0])
            meter.gradient += len(arguments[0]) * logits.requires_grad

    handle = model.register_forward_hook(count)
    try:
        yield meter
    finally:
        handle.remove()


class _StandIn(nn.Module):
    """A linear network that costs nothing and is as random as the one it stands for.

    Args:
        model: the network.
        shape: of an image, (C, H, W).
        classes: how many.
        lead: of class 0 over the others.
    """

    def __init__(self, model: nn.Module, shape: torch.Size, classes: int, lead: float) -> None:
        super().__init__()
        self.random, self.shared = is_random(model), has_shared_draws(model)
        self.step = -(-shape.numel() // _MOST_PIXELS)
        self.linear = nn.Linear(-(-shape.numel() // self.step), classes)
        with torch.no_grad():
            self.linear.weight.copy_(torch.linspace(-1, 1, self.linear.weight.numel()).view_as(self.linear.weight))
            self.linear.weight[0] *= -1
            self.linear.bias.zero_()[0] = lead

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(x.flatten(1)[:, :: self.step] - 0.5)
        return logits


def per_image(model: nn.Module, attacks: Mapping[str, Attack], image: Tensor, classes: int) -> dict[str, Cost]:
    """What each attack costs an image if it never leaves early, by the name of the adversary: an upper bound as a rule.

    Each attack is run on linear stand-ins for the model, which takes a fraction of a second.

    Args:
        model: the network to be attacked; nothing is asked of it.
        attacks: by name.
        image: [C, H, W], for its shape.
        classes: how many.
    """
    x, y = torch.full((1, *image.shape), 0.5), torch.zeros(1, dtype=torch.long)
    costs = {}
    for name, attack in attacks.items():
        found = []
        for lead in _LEADS:
            # Behind a channel, since a view may want one to stand in for.
            model_like = Defended(_StandIn(model, image.shape, classes, lead), [Identity()])
            with counting(model_like) as meter, drawing_from(Stream(0)):
                attack.run(model_like, x, y)
            found.append(meter)
        costs[name] = Cost(max(m.forward for m in found), max(m.gradient for m in found))
    return costs


def timed(model: nn.Module, x: Tensor) -> tuple[float, float]:
    """Seconds of a forward pass of one image of the batch, and of a forward and gradient pass.

    Args:
        model: the network, on the device of the images.
        x: images [B, C, H, W] in [0, 1], as many as usually go through at once.
    """
    with torch.inference_mode(False), evaluating(model):
        x = x.detach().clone()
        _once(model, x, gradient=True)  # the first pass prepares things
        return _once(model, x, gradient=False) / len(x), _once(model, x, gradient=True) / len(x)


def _once(model: nn.Module, x: Tensor, gradient: bool) -> float:
    started = time.monotonic()
    with torch.set_grad_enabled(gradient):
        logits = model(x.requires_grad_(gradient))
        if gradient and logits.requires_grad:  # neither holds behind a channel that rounds
            torch.autograd.grad(logits.sum(), x, allow_unused=True)
    logits.sum().item()  # waits for the device
    return time.monotonic() - started
