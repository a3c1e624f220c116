"""The model as an attack sees it: answers that are checked, gradients with respect to the images, and their record."""

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

# Images [B, C, H, W] in [0, 1] -> logits [*draws, B, classes]: a random model may answer with several draws at once.
Model = Callable[[Tensor], Tensor]


class Wrapper(nn.Module):
    """A module around a model that answers like it, but for how it is asked."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model


def innermost(model: Model) -> Model:
    """The model inside all wrappers."""
    while isinstance(model, Wrapper):
        model = model.model
    return model


class Piece(NamedTuple):
    """Some of the draws of a model that answers with many: small enough for memory, `draws` in number."""

    answer: Model
    draws: int
    differentiable: bool = True


@runtime_checkable
class Divisible(Protocol):
    """A model whose draws can be asked for piece by piece (EOT)."""

    def pieces(self, batch: int) -> list[Piece]:
        """What to ask one after the other, for a batch of this size."""


class Shown:
    """A callable around a model. Its answers are checked: NaN without waiting for the device, the rest at the first.

    Args:
        model: images -> logits, see `Model`.
        labels: whatever labels and targets will be asked for.
    """

    def __init__(self, model: Model, *labels: Tensor | None) -> None:
        self.model = model
        self.labels = labels
        self._known = False
        self._bad: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """Logits [*draws, B, classes] in the dtype of the images (float32 at least)."""
        return self._seen(self.model(x), x)

    def pieces(self, batch: int) -> list[Piece]:
        """The model in pieces that fit into memory; one piece unless it is `Divisible`."""
        if isinstance(self.model, Divisible):
            parts = self.model.pieces(batch)
            return [Piece(lambda x, p=p: self._seen(p.answer(x), x), p.draws, p.differentiable) for p in parts]
        return [Piece(self, 1)]

    def answers(self, x: Tensor) -> Tensor:
        """Logits without a graph, for attacks that need no gradient."""
        with torch.no_grad():
            return self(x)

    def check(self) -> None:
        """To be called at the end.

        Raises:
            FloatingPointError: some answer held NaN or infinity.
        """
        if self._bad is not None and bool(self._bad):
            raise FloatingPointError("the model answers NaN or infinity: no attack can tell where to go from there")

    def _seen(self, logits: Tensor, x: Tensor) -> Tensor:
        if not self._known and logits.numel():
            _check_logits(logits, len(x), self.labels)
            self._known = True
        bad = ~(logits.detach() < float("inf")).all()  # NaN compares as False
        self._bad = bad if self._bad is None else self._bad | bad
        return logits.to(torch.promote_types(x.dtype, torch.float32))


class Gradient(NamedTuple):
    """What a model says at B images: logits [*draws, B, classes], loss [B], and the gradient of the loss, like x."""

    logits: Tensor
    loss: Tensor
    gradient: Tensor


def input_gradient(model: Model, x: Tensor, loss: Callable[[Tensor], Tensor]) -> Gradient:
    """Loss per image and its gradient with respect to `x`; over draws, the mean of the gradients.

    Only `torch.autograd.grad` on the input: `.backward()` would fill the weights' gradients and reduce them over ranks.
    Pieces of a model (EOT) are differentiated one after the other, so that memory holds one piece.

    Args:
        model: images -> logits [*draws, B, classes].
        x: images.
        loss: logits -> [B], the mean over draws of a loss of each draw.
    """
    pieces = model.pieces(len(x)) if isinstance(model, Divisible) else [Piece(model, 1)]
    if len(pieces) == 1:
        return _gradient(pieces[0].answer, x, loss)
    counted = sum(piece.draws for piece in pieces if piece.differentiable)
    logits, losses, gradient = [], torch.zeros((), dtype=x.dtype, device=x.device), torch.zeros_like(x)
    for piece in pieces:
        if piece.differentiable:
            part = _gradient(piece.answer, x, loss)
            logits.append(_stacked(part.logits))
            losses = losses + part.loss * (piece.draws / counted)
            gradient += part.gradient * (piece.draws / counted)
        else:
            with torch.no_grad():
                logits.append(_stacked(piece.answer(x)))
    return Gradient(torch.cat(logits), losses, gradient)


def _gradient(model: Model, x: Tensor, loss: Callable[[Tensor], Tensor]) -> Gradient:
    x = x.detach().requires_grad_()
    logits = model(x)
    losses = loss(logits)
    gradient = None
    if losses.requires_grad:  # else no operation of the model has a derivative: as good as a gradient of 0
        (gradient,) = torch.autograd.grad(losses.sum(), x, allow_unused=True)
    return Gradient(logits.detach(), losses.detach(), torch.zeros_like(x) if gradient is None else gradient)


def _stacked(logits: Tensor) -> Tensor:
    return logits.reshape(-1, *logits.shape[-2:])


def _check_logits(logits: Tensor, batch: int, labels: tuple[Tensor | None, ...]) -> None:
    if logits.dim() < 2 or logits.shape[-2] != batch:
        raise ValueError(f"a model answers logits [*draws, {batch}, classes] here, got {tuple(logits.shape)}")
    answer = logits.detach().float()
    if bool(((answer >= 0) & (answer <= 1)).all() and ((answer.sum(-1) - 1).abs() < 1e-5).all()):
        raise ValueError("the model answers probabilities; an attack needs logits (leave the softmax out)")
    for wanted in labels:
        if wanted is not None and wanted.amax() >= logits.shape[-1]:
            last = logits.shape[-1] - 1
            raise ValueError(f"a label or target is {int(wanted.amax())}, the model has classes 0 to {last}")
