"""Input gradients of the cross-entropy with each class, and the gradient anomaly of adversarial images.

EEPD sections 3.7 and D.6 with figures 12 to 15; ICLR draft section 5 with figures 4 and 15 to 17.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from analysis.derivatives import Graph, Scale, checked_classes, graph_of, pull_back, residual, starts
from analysis.noisy_copies import NoiseOfLevel, noisy_copies
from attacks import Model
from defenses import PapersGauss


@dataclass(frozen=True, eq=False)
class GradientNorms:
    """How much a small step of an image could change the cross-entropy with some classes.

    Attributes:
        norms: [draws, B, M], L2 norm of the input gradient of the cross-entropy with class `classes[b, m]`; float64.
        probs: [draws, B, classes of the model], what it answered at the same draw; float64.
        classes: [B, M].
    """

    norms: Tensor
    probs: Tensor
    classes: Tensor

    @property
    def predicted(self) -> Tensor:
        """[draws, B], the class of the highest probability."""
        return self.probs.argmax(2)

    @property
    def anomalous(self) -> Tensor:
        """[draws, B], whether some class has a smaller norm than the predicted one: the gradient anomaly.

        EEPD section D.6.1, on 939 images of CIFAR-10: 1 % of the originals, 99 % of the adversarial images.

        Raises:
            ValueError: the norms are not those of all classes in order.
        """
        count = self.probs.shape[2]
        if not torch.equal(self.classes, _all_classes(self.probs.shape[1], count, self.classes.device)):
            raise ValueError(f"the anomaly needs the norms of all {count} classes: leave `classes` out")
        return (self.norms < self.norms.gather(2, self.predicted[..., None])).any(2)


def class_gradients(model: Model, x: Tensor, classes: Tensor | None = None, *, scale: Scale = 1.0) -> Tensor:
    """Input gradients of the cross-entropy with several classes: one forward, one backward pass for each of them.

    Args:
        model: images -> logits [B, classes]; in eval mode meanwhile, and left as it was.
        x: images [B, C, H, W], all in one pass.
        classes: [B, M], the classes of each image; None for all.
        scale: pixels per unit, see `derivatives`.

    Returns:
        [B, M, C, H, W] in the dtype of x.

    Raises:
        ValueError: see `derivatives.graph_of` and `checked_classes`.
        FloatingPointError: the model answers NaN or infinity.
    """
    with graph_of(model, x, scale) as graph:
        probs, labels = graph.logits.detach().softmax(1), _labels(graph, classes)
        return torch.stack(list(pull_back(graph, (residual(probs, label) for label in labels.T))), 1)


def gradient_norms(
    model: Model,
    x: Tensor,
    classes: Tensor | None = None,
    *,
    draws: int = 1,
    scale: Scale = 1.0,
    chunk: int = 128,
) -> GradientNorms:
    """L2 norms of `class_gradients`, for networks whose answer is sure, too.

    Where the probabilities of all other classes are below float32's 1e-38, the norm is still right up to the rounding
    of one backward pass, so the anomaly is never decided by what is rounded to 0.

    Args:
        model: images -> logits [B, classes]; in eval mode meanwhile, and left as it was.
        x: images [B, C, H, W].
        classes: [B, M], the classes of each image; None for all.
        draws: passes of a random model, each a norm of its own; they come from the stream around the call, one
            for each chunk (noisy weights are shared by the images of a chunk).
        scale: pixels per unit, see `derivatives`.
        chunk: images in one pass.

    Raises:
        ValueError: draws or chunk is below 1, and see `derivatives.graph_of` and `checked_classes`.
        FloatingPointError: the model answers NaN or infinity.
    """
    if draws < 1:
        raise ValueError(f"draws must be at least 1, got {draws}")
    if classes is not None and len(classes) != len(x):
        raise ValueError(f"need a row of classes per image, got {len(classes)} for {len(x)} images")
    parts = []
    for start in starts(len(x), chunk):
        images, of = x[start : start + chunk], None if classes is None else classes[start : start + chunk]
        parts.append([_norms(model, images, of, scale) for _ in range(draws)])
    if not parts:
        raise ValueError("need at least 1 image, got 0")
    norms, probs, labels = zip(*[map(torch.stack, zip(*part, strict=True)) for part in parts], strict=True)
    return GradientNorms(torch.cat(norms, 1), torch.cat(probs, 1), torch.cat(labels, 1)[0])


def norms_under_noise(
    model: Model,
    x: Tensor,
    classes: Tensor | None,
    levels: Sequence[float],
    noise: NoiseOfLevel = PapersGauss,
    *,
    draws: int = 1,
    seed: int = 0,
    first: int = 0,
    scale: Scale = 1.0,
    chunk: int = 128,
) -> list[GradientNorms]:
    """Gradient norms of noisy images, original or adversarial (EEPD figures 12 to 14, ICLR draft figures 15 to 17).

    The noise on an image depends on (seed, its number, level) only.

    Args:
        model: see `gradient_norms`.
        x: images [B, C, H, W].
        classes: [B, M], such as the original, the adversarial and a random class; None for all.
        levels: of the noise, in the unit that `noise` takes.
        noise: level -> channel.
        draws: noisy copies of each image, and draws of a random model with them.
        seed: of the noise.
        first: number of the first image.
        scale: pixels per unit, see `derivatives`.
        chunk: images in one pass.

    Returns:
        One result per level, [draws, B, M] each.

    Raises:
        ValueError, FloatingPointError: see `gradient_norms`.
    """
    found = []
    for channel in map(noise, levels):
        copies = [noisy_copies(image, channel, draws, seed, first + place) for place, image in enumerate(x)]
        parts = [gradient_norms(model, noisy, classes, scale=scale, chunk=chunk) for noisy in torch.stack(copies, 1)]
        norms, probs = torch.cat([part.norms for part in parts]), torch.cat([part.probs for part in parts])
        found.append(GradientNorms(norms, probs, parts[0].classes))
    return found


def _norms(model: Model, x: Tensor, classes: Tensor | None, scale: Scale) -> tuple[Tensor, Tensor, Tensor]:
    """[B, M], [B, classes] and [B, M] of one pass."""
    with graph_of(model, x, scale) as graph:
        probs, labels = graph.logits.detach().softmax(1), _labels(graph, classes)
        norms = torch.empty(labels.shape, dtype=torch.float64, device=x.device)
        for place, label in enumerate(labels.T):
            cotangent = residual(probs, label)
            # The pass itself sees vectors of size 1, whatever the size of the gradient.
            size = cotangent.abs().amax(1, keepdim=True)
            (gradient,) = pull_back(graph, [cotangent / size.clamp_min(torch.finfo(size.dtype).tiny)])
            norms[:, place] = size[:, 0] * torch.linalg.vector_norm(gradient.flatten(1), dim=1, dtype=torch.float64)
    return norms, probs, labels


def _all_classes(batch: int, count: int, device: torch.device) -> Tensor:
    return torch.arange(count, device=device).repeat(batch, 1)


def _labels(graph: Graph, classes: Tensor | None) -> Tensor:
    batch, count = graph.logits.shape
    if classes is None:
        return _all_classes(batch, count, graph.logits.device)
    if classes.dim() != 2:
        raise ValueError(f"classes must be [images, classes of each], got {tuple(classes.shape)}")
    return checked_classes(classes, batch, count)
