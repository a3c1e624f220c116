"""Logits with a graph behind them, and what flows back from there to the images; batched over images.

Derivatives are with respect to pixels of [0, 1] unless a `scale` is given. The papers took theirs behind the
normalisation (x - mean) / std: `normalisation_scale` gives the std that makes ours comparable with theirs.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from attacks import Model, undisturbed
from models import Normalize

Scale = float | Tensor


class Graph(NamedTuple):
    """One forward pass that can be differentiated as often as needed.

    Attributes:
        step: [B, C, H, W] of zeros; the images are x + scale * step, and derivatives are with respect to it.
        logits: [B, classes] in float64, so that nothing is lost before the network's own rounding.
    """

    step: Tensor
    logits: Tensor


@contextmanager
def graph_of(model: Model, x: Tensor, scale: Scale = 1.0) -> Iterator[Graph]:
    """One pass of a model that is left as it was, inside `no_grad` and `inference_mode`, too (`attacks.undisturbed`).

    A random model answers with one draw, which all derivatives share; it comes from the stream around the call.

    Args:
        model: images -> logits [B, classes].
        x: images [B, C, H, W] of any range, at least one.
        scale: pixels per unit of `step`, a number or [C, 1, 1].

    Raises:
        ValueError: x are no images, the answer has another shape, or has no derivative.
        FloatingPointError: the model answers NaN or infinity.
    """
    if x.dim() != 4 or not len(x) or not x.is_floating_point():
        raise ValueError(f"need images [B, C, H, W] of floating point, B >= 1, got {tuple(x.shape)} of {x.dtype}")
    with undisturbed(model):
        # Clones: what was made in inference mode cannot enter a graph.
        x, scale = x.detach().clone(), scale.clone().to(x) if isinstance(scale, Tensor) else scale
        step = torch.zeros_like(x, requires_grad=True)
        logits = model(x + scale * step)
        _check(logits, len(x))
        yield Graph(step, logits.double())


def pull_back(graph: Graph, cotangents: Iterable[Tensor]) -> Iterator[Tensor]:
    """Products of vectors with the Jacobian of the logits, one backward pass each.

    Args:
        graph: of B images.
        cotangents: each [B, classes], one vector per image.

    Yields:
        [B, C, H, W], for each image the sum over classes k of cotangent[k] * d logit[k] / d step.
    """
    for cotangent in cotangents:
        (gradient,) = torch.autograd.grad(graph.logits, graph.step, cotangent, retain_graph=True)
        yield gradient


def residual(probs: Tensor, classes: Tensor) -> Tensor:
    """The derivative of the cross-entropy by the logits, p - onehot(class), whose entries sum to 0.

    The entry of the class is minus the sum of the others: 1 - p would be rounded to 0 for a very sure answer.

    Args:
        probs: [B, classes].
        classes: [B].

    Returns:
        [B, classes].
    """
    others = probs.scatter(1, classes[:, None], 0.0)
    return others.scatter(1, classes[:, None], -others.sum(1, keepdim=True))


def cross_entropy(logits: Tensor, classes: Tensor) -> Tensor:
    """log(1 + sum over k != c of exp(z_k - z_c)), whose second derivatives are right for very sure answers, too.

    Those of `torch.nn.functional.cross_entropy` contain p_c - p . w, which is rounding where p_c is nearly 1.

    Args:
        logits: [B, classes], at least 2 classes.
        classes: [B].

    Returns:
        [B].
    """
    lead = logits - logits.gather(1, classes[:, None])
    others = lead.scatter(1, classes[:, None], float("-inf")).logsumexp(1)
    return softplus(others, threshold=700)  # as far as exp goes; the default gives up at 20


def normalisation_scale(model: nn.Module) -> Scale:
    """Standard deviations [C, 1, 1] that the model divides pixels by; 1 if it does not normalise.

    With it as `scale`, derivatives are those with respect to normalised images, as the papers took them.
    """
    found = (part.std for part in model.modules() if isinstance(part, Normalize))
    return next(found, 1.0)


def checked_classes(classes: Tensor, batch: int, count: int) -> Tensor:
    """Class numbers [B] or [B, M] that a graph may use.

    Raises:
        ValueError: they are not one row per image, or no classes of the model.
    """
    if classes.shape[:1] != (batch,) or classes.is_floating_point():
        raise ValueError(f"need class numbers for {batch} images, got {tuple(classes.shape)} of {classes.dtype}")
    if classes.numel() and not (classes.amin() >= 0 and classes.amax() < count):
        low, high = int(classes.amin()), int(classes.amax())
        raise ValueError(f"the model has classes 0 to {count - 1}, got classes from {low} to {high}")
    return classes.clone()


def starts(count: int, chunk: int) -> range:
    """Where chunks of images begin.

    Raises:
        ValueError: chunk is below 1.
    """
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1, got {chunk}")
    return range(0, count, chunk)


def _check(logits: Tensor, batch: int) -> None:
    if logits.dim() != 2 or len(logits) != batch or logits.shape[1] < 2:
        raise ValueError(f"a model answers logits [{batch}, 2 classes or more] here, got {tuple(logits.shape)}")
    if not logits.isfinite().all():
        raise FloatingPointError("the model answers NaN or infinity; nothing follows from its derivatives")
    if not logits.requires_grad:
        raise ValueError("the logits have no derivative with respect to the image (a channel without one in front?)")
