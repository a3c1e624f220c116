"""What every attack is: a function of a callable model and images, that leaves no trace on the model."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.folding import folded_batchnorm

# Images [B, C, H, W] in [0, 1] -> logits [*draws, B, classes]: a random model may answer with several draws at once.
Model = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Trace:
    """What an attack found and how it went.

    Attributes:
        x_adv: [B, C, H, W], like x: detached, in [0, 1], inside the ball, whether or not the model errs on it.
        queries: [B], images of each row that the model was shown (a backward pass counts nothing).
        loss: [steps, B], the loss of each image at each step, before the step was taken.
        zero_gradient: [B], whether the gradient of an image vanished entirely at some step.
    """

    x_adv: Tensor
    queries: Tensor
    loss: Tensor
    zero_gradient: Tensor


class Attack(ABC):
    """Base of all attacks; subclasses are frozen dataclasses, so settings print, compare, hash and come from YAML."""

    def __call__(self, model: Model, x: Tensor, y: Tensor, target: Tensor | None = None) -> Tensor:
        """The adversarial images alone; see `run`."""
        return self.run(model, x, y, target).x_adv

    def run(self, model: Model, x: Tensor, y: Tensor, target: Tensor | None = None) -> Trace:
        """Attack the images `x`.

        The model is attacked in eval mode. Weights, weight gradients, BatchNorm statistics and the mode of every
        submodule are as before; works inside `no_grad` and `inference_mode`.

        Args:
            model: images [B, C, H, W] in [0, 1] -> logits [*draws, B, classes].
            x: images [B, C, H, W] in [0, 1].
            y: labels [B] that the model shall not answer.
            target: labels [B] that it shall answer instead; None: any other than y.

        Raises:
            ValueError: an image leaves [0, 1], or there are not as many labels as images.
        """
        _check(x, y, target)
        with undisturbed(model):
            # Tensors made in inference mode cannot enter a graph: clones made here can, labels included.
            return self.attack(model, x.detach().clone(), y.clone(), None if target is None else target.clone())

    @abstractmethod
    def attack(self, model: Model, x: Tensor, y: Tensor, target: Tensor | None) -> Trace:
        """The attack itself; called by `run` with gradients on, autocast off and the model in eval mode."""


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
            stack.enter_context(folded_batchnorm(model))
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


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy [B] of logits [*draws, B, classes]; over draws the losses are averaged, not the logits."""
    *draws, batch, classes = logits.shape
    labels = labels.expand(*draws, batch)
    loss = F.cross_entropy(logits.reshape(-1, classes), labels.reshape(-1), reduction="none")
    return loss.view(math.prod(draws), batch).mean(0)


def input_gradient(
    model: Model, x: Tensor, loss: Callable[[Tensor], Tensor], scale: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Loss per image [B] and its gradient with respect to `x`, times `scale` (-1 to descend).

    Only `torch.autograd.grad` on the input: `.backward()` would fill the weights' gradients and reduce them over ranks.
    """
    x = x.detach().requires_grad_()
    losses = loss(model(x))
    (gradient,) = torch.autograd.grad(losses.sum() * scale, x)
    return losses.detach(), gradient


def _check(x: Tensor, y: Tensor, target: Tensor | None) -> None:
    if x.dim() != 4 or y.shape != x.shape[:1] or (target is not None and target.shape != y.shape):
        shapes = f"x {tuple(x.shape)}, y {tuple(y.shape)}" + (
            "" if target is None else f", target {tuple(target.shape)}"
        )
        raise ValueError(f"an attack takes images [B, C, H, W] and labels [B], got {shapes}")
    if x.numel() and not (x.amin() >= 0 and x.amax() <= 1):
        raise ValueError(f"images must lie in [0, 1], got values from {x.amin():.4g} to {x.amax():.4g}")
