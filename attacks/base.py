"""What every attack is: a function of a callable model and images, that leaves no trace on the model."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attacks.goal import Goal, draws_of
from attacks.losses import Loss
from attacks.shown import Gradient, Model, Shown, innermost
from defenses.randomness import is_random
from models.folding import folded_batchnorm


@dataclass(frozen=True)
class Trace:
    """What an attack found and how it went.

    Attributes:
        x_adv: [B, C, H, W], like x: detached, in [0, 1], inside the ball, whether or not the model errs on it.
        queries: [B], answers of the model about each row: forward passes times draws (a backward pass counts nothing).
        loss: [steps, B], what the attack makes grow, of each image at each step, before the step was taken; NaN where
            an image had left already.
        zero_gradient: [B], whether the gradient of an image vanished entirely at some step.
        erred: [B], whether some answer on the way was as wanted: more than half of its draws. An attack that returns
            its last image may come back from there (a silent success, Pintor et al. 2022).
    """

    x_adv: Tensor
    queries: Tensor
    loss: Tensor
    zero_gradient: Tensor
    erred: Tensor


class Log:
    """What an attack writes down on its way; `rows` are the places in the batch of the images that are still in it.

    Args:
        steps: number of steps.
        x: the whole batch.
        goal: what is wanted of it.
    """

    def __init__(self, steps: int, x: Tensor, goal: Goal) -> None:
        self._goal = goal
        self.queries = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        self.loss = torch.full((steps, len(x)), float("nan"), dtype=x.dtype, device=x.device)
        self.zero_gradient = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        self.erred = torch.zeros_like(self.zero_gradient)

    def step(
        self, step: int | Tensor, answer: Gradient, rows: Tensor | None = None, satisfied: Tensor | None = None
    ) -> None:
        """A loss and its gradient were asked for; where a hinge is `satisfied`, no gradient is no bad sign.

        Rows may be at steps of their own: a tensor as long as `rows`.
        """
        places = slice(None) if rows is None else rows
        self.loss[step, places] = answer.loss
        zero = answer.gradient.abs().amax((1, 2, 3)) == 0
        self.zero_gradient[places] |= zero if satisfied is None else zero & ~satisfied
        self.asked(answer.logits, rows)

    def asked(self, logits: Tensor, rows: Tensor | None = None) -> Tensor:
        """Something was asked: logits [*draws, len(rows), classes], which are passed on."""
        places, goal = (slice(None), self._goal) if rows is None else (rows, self._goal[rows])
        self.queries[places] += draws_of(logits)
        self.erred[places] |= goal.mostly_reached(logits)
        return logits

    def trace(self, x_adv: Tensor) -> Trace:
        """All of it, and what was found."""
        return Trace(x_adv.detach(), self.queries, self.loss, self.zero_gradient, self.erred)


class Best:
    """The best image found for each row of a batch: one that is broken, or else that of the largest loss.

    Args:
        x: the whole batch, which stands until something is offered.
        goal: what counts as broken.
        loss: what decides between two images that both are broken, or both are not.
    """

    def __init__(self, x: Tensor, goal: Goal, loss: Loss) -> None:
        self._goal, self._loss = goal, loss
        self.x_adv = x.clone()
        self.broken = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        self.loss = torch.full((len(x),), float("-inf"), dtype=x.dtype, device=x.device)

    def offer(self, x_adv: Tensor, logits: Tensor, rows: Tensor | None = None) -> None:
        """Take over what is better: images of some rows of the batch, and the model's answers to them."""
        places = torch.arange(len(self.x_adv), device=x_adv.device) if rows is None else rows
        goal = self._goal[places]
        broken, loss = goal.broken(logits), self._loss(logits, goal)
        better = (broken & ~self.broken[places]) | ((broken == self.broken[places]) & (loss > self.loss[places]))
        taken = places[better]
        self.x_adv[taken], self.broken[taken], self.loss[taken] = x_adv[better], broken[better], loss[better]

    def unbroken(self) -> Tensor:
        """Rows that nothing has broken."""
        return (~self.broken).nonzero().squeeze(1)


class Attack(ABC):
    """Base of all attacks; subclasses are frozen dataclasses, so settings print, compare, hash and come from YAML."""

    def __call__(self, model: Model, x: Tensor, y: Tensor, target: Tensor | None = None) -> Tensor:
        """The adversarial images alone; see `run`."""
        return self.run(model, x, y, target).x_adv

    def run(
        self, model: Model, x: Tensor, y: Tensor, target: Tensor | None = None, first_success: bool = False
    ) -> Trace:
        """Attack the images `x`.

        The model is attacked in eval mode. Weights, weight gradients, BatchNorm statistics and the mode of every
        submodule are as before; works inside `no_grad` and `inference_mode`.

        Args:
            model: images [B, C, H, W] in [0, 1] -> logits [*draws, B, classes].
            x: images [B, C, H, W] in [0, 1].
            y: labels [B] that the model shall not answer.
            target: labels [B] that it shall answer instead; None: any other than y.
            first_success: an image may leave the batch as soon as the model errs on it. Only its success counts then:
                do not train on it, transfer it or vote on it. Without effect where the model is random.

        Raises:
            ValueError: an image leaves [0, 1], there are not as many labels as images, a label or target is no class
                of the model, or the model answers probabilities instead of logits.
            FloatingPointError: the model answers NaN or infinity.
        """
        _check(x, y, target)
        if not len(x):
            return Log(0, x, Goal(y, target)).trace(x.detach().clone())
        with undisturbed(model):
            # Tensors made in inference mode cannot enter a graph: clones made here can, labels included.
            x, y = x.detach().clone(), y.clone()
            target = None if target is None else target.clone()
            shown = Shown(model, y, target)
            trace = self.search(shown, x, Goal(y, target, first_success and not is_random(model)))
            shown.check()
        return trace

    @abstractmethod
    def search(self, model: Shown, x: Tensor, goal: Goal) -> Trace:
        """The attack itself, on at least one image; called by `run` with gradients on, autocast off, in eval mode."""


@contextmanager
def undisturbed(model: Model) -> Iterator[None]:
    """Gradients on, autocast off, the model in eval mode with BatchNorm folded; all of it undone at the end."""
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        # An attack's own gradients underflow in half precision, and bfloat16 swallows small steps.
        for device in {"cpu", "cuda" if torch.cuda.is_available() else "cpu"}:
            stack.enter_context(torch.autocast(device, enabled=False))
        if isinstance(model, nn.Module):
            stack.enter_context(evaluating(model))
        if isinstance(inner := innermost(model), nn.Module):
            stack.enter_context(folded_batchnorm(inner))
        yield


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode inside; afterwards each submodule has its own mode back (frozen BatchNorm stays frozen)."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _check(x: Tensor, y: Tensor, target: Tensor | None) -> None:
    if x.dim() != 4 or y.shape != x.shape[:1] or (target is not None and target.shape != y.shape):
        shapes = f"x {tuple(x.shape)}, y {tuple(y.shape)}" + (
            "" if target is None else f", target {tuple(target.shape)}"
        )
        raise ValueError(f"an attack takes images [B, C, H, W] and labels [B], got {shapes}")
    if not x.is_floating_point():
        raise ValueError(f"images must be floating point in [0, 1], got {x.dtype} (divide by 255)")
    if x.numel() and not (x.amin() >= 0 and x.amax() <= 1):
        raise ValueError(f"images must lie in [0, 1], got values from {x.amin():.4g} to {x.amax():.4g}")
    for name, labels in (("label", y), ("target", target)):
        if labels is not None and labels.numel() and labels.amin() < 0:
            raise ValueError(f"a {name} must be a class number >= 0, got {int(labels.amin())}")
