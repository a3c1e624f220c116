"""Checks that ask the model itself: its labels and logits, its gradients, how it answers nearby."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from attacks import CrossEntropy, Goal, Margin, input_gradient, undisturbed
from attacks.shown import innermost
from defenses import Stream, drawing_from, is_random
from evaluation.batch import Rows
from evaluation.checks.check import ALLOWED, LEVEL, Check, Question, accuracy, mean_interval, percent, too_many
from evaluation.checks.diagnostics import Reference
from evaluation.cost import Cost
from evaluation.intervals import wilson

Batches = Sequence[tuple[Tensor, Tensor]]

CARLINI = "Carlini et al. 2019, https://arxiv.org/abs/1902.06705"
ATHALYE = "Athalye et al. 2018, https://arxiv.org/abs/1802.00420"
PINTOR = "Pintor et al. 2022, https://arxiv.org/abs/2106.09947"
INPUTS = Question("labels and pixels", CARLINI)
LOGITS = Question("logits", "Croce & Hein 2020, https://arxiv.org/abs/2003.01690: AutoAttack's own checks")
CLEAN = Question("clean accuracy", CARLINI)
GRADIENTS = Question("gradients", f"{ATHALYE}; I1 of {PINTOR}")
DRAWS = Question("gradients over draws", ATHALYE)
SOFTMAX = Question("softmax", "Carlini & Wagner 2016, https://arxiv.org/abs/1607.04311; Croce & Hein 2020")
STABLE = Question("unstable answers", f"I2 of {PINTOR}")
# From this gap between the two largest logits on the largest probability is 1 in float32, and the cross entropy 0.
GAP = 24 * float(np.log(2))
_WIDTH = 8 / 255  # of the uniform noise of I2
_UNSTABLE = 0.1  # threshold of I2
_PASSES = 3  # draws whose gradients are compared
_MEAN_OF = 8  # draws of a random model behind a margin of I2


@dataclass(frozen=True)
class Seen:
    """What the gradient that an attack follows is like at images [n] that nobody attacked.

    Attributes:
        zero: whether it vanishes.
        broken: whether it holds NaN or infinity.
        constant: whether all draws give the same one.
        gap: between the two largest logits.
    """

    zero: NDArray[np.bool_]
    broken: NDArray[np.bool_]
    constant: NDArray[np.bool_]
    gap: NDArray[np.float64]


def inputs(batches: Batches, classes: int) -> Check:
    """Whether labels are classes and images lie in [0, 1] and fill it."""
    x, y = ([batch[part] for batch in batches] for part in (0, 1))
    low, high = min(float(part.amin()) for part in x), max(float(part.amax()) for part in x)
    first, last = min(int(part.amin()) for part in y), max(int(part.amax()) for part in y)
    figures = {"min": low, "max": high, "label_min": first, "label_max": last, "n": sum(map(len, y))}
    text = f"pixels from {low:.3g} to {high:.3g}, labels from {first} to {last} of {classes} classes"
    wrong = {
        "a label is no class": first < 0 or last >= classes,
        "a model takes pixels in [0, 1]; these look like 0 to 255": high > 2 and low >= 0,
        "a model takes pixels in [0, 1]; these look normalised": low < 0,
        "pixels exceed 1": 1 < high <= 2 and low >= 0,
        "the images are all but black, as if divided by 255 twice": low >= 0 and high <= 2 / 255,
    }
    found = [what for what, there in wrong.items() if there]
    return INPUTS.answered(bool(found), "; ".join([text, *found]), figures)


@torch.no_grad()
def logits(network: nn.Module, batches: Batches, seed: int) -> Check:
    """Whether the model answers finite logits and not probabilities."""
    with undisturbed(network), torch.no_grad(), drawing_from(Stream.named(seed, "checks", "logits")):
        answer = torch.cat([network(x).double() for x, _ in batches])
    finite = bool(answer.isfinite().all())
    off = float((answer.sum(-1) - 1).abs().amax()) if finite else float("inf")
    bounded = finite and bool(((answer >= -1e-5) & (answer <= 1 + 1e-5)).all())
    figures: dict[str, float] = {"finite": finite, "n": len(answer)}
    if not finite:
        return LOGITS.answered(True, "the model answers NaN or infinity", figures)
    figures |= {"min": float(answer.amin()), "max": float(answer.amax())}
    values = f"answers lie between {figures['min']:.4g} and {figures['max']:.4g}"
    if bounded and off < 1e-5:
        return LOGITS.answered(True, f"{values} and sum to 1: probabilities, where attacks need logits", figures)
    return LOGITS.answered(False, values, figures)


def clean_accuracy(clean: Rows, classes: int) -> Check:
    """Whether the model knows its images at all; if not, labels or normalisation are wrong as a rule."""
    value, chance = accuracy(clean), 1 / classes
    high = wilson(round(value * clean.n), clean.n, LEVEL).high
    text = f"{percent(value)} of {clean.n} images that nobody attacked are right, chance is {percent(chance)}"
    # At chance or below, and too many images for a model that is half-way between chance and perfect.
    doubt = value <= chance * 1.5 and high < (1 + chance) / 2
    return CLEAN.answered(doubt, text, {"accuracy": value, "chance": chance, "high": high, "n": clean.n})


def cost(network: nn.Module, samples: int) -> Cost:
    """Passes of `logits`, `look` and `stability`, with so many samples, for each image."""
    looks = _PASSES if is_random(network) else 1
    margins = (samples + 1) * (_MEAN_OF if is_random(innermost(network)) else 1)
    return Cost(forward=1 + looks + margins, gradient=looks)


def look(network: nn.Module, batches: Batches, at: Reference, seed: int) -> Seen:
    """Ask for the gradients that the attack would follow at its first step.

    Args:
        network: images -> logits.
        batches: images in [0, 1] and labels.
        at: the attack, whose view and loss are taken.
        seed: of the draws.
    """
    parts = [_look(network, x, y, at, seed, number) for number, (x, y) in enumerate(batches)]
    return Seen(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def gradients(seen: Seen, attacked: Rows, alive: NDArray[np.bool_]) -> Check:
    """I1: whether the gradients of the images that survive are there.

    Args:
        seen: at the images themselves.
        attacked: rows of the attack.
        alive: [n], images that no gradient attack of the suite broke.
    """
    n, zero = int(alive.sum()), (seen.zero | attacked.zero_gradient)[alive]
    figures = {"zero": float(zero.sum()), "broken": float(seen.broken.sum()), "n": n}
    if seen.broken.any():
        return GRADIENTS.answered(True, f"{int(seen.broken.sum())} gradients hold NaN or infinity", figures)
    if not n:
        return GRADIENTS.not_run("no image survives the suite")
    text = f"the gradient of {int(zero.sum())} of {n} surviving images vanished somewhere on the attack's way"
    return GRADIENTS.answered(too_many(int(zero.sum()), n, ALLOWED), text, figures)


def draws(seen: Seen, random: bool) -> Check:
    """Whether a random model shows the attack its randomness."""
    if not random:
        return DRAWS.not_run("the model is not random")
    same, n = int(seen.constant.sum()), len(seen.constant)
    text = f"{same} of {n} images have one gradient at {_PASSES} draws of what the attack sees"
    return DRAWS.answered(too_many(same, n, ALLOWED), text, {"constant": same, "n": n})


def softmax(seen: Seen, at: Reference, alive: NDArray[np.bool_]) -> Check:
    """Whether float32's softmax has hidden from the attack what it should climb on the images that survive."""
    if not isinstance(at.attack.loss, CrossEntropy):
        return SOFTMAX.not_run(f"{type(at.attack.loss).__name__} does not pass through a softmax")
    n = int(alive.sum())
    if not n:
        return SOFTMAX.not_run("no image survives the suite")
    flat = int((seen.gap[alive] > GAP).sum())
    text = f"at {flat} of {n} surviving images the two largest logits lie more than {GAP:.1f} apart: float32's limit"
    figures = {"saturated": flat, "median_gap": float(np.median(seen.gap[alive])), "n": n}
    return SOFTMAX.answered(too_many(flat, n, ALLOWED), text, figures)


def stability(network: nn.Module, batches: Batches, alive: NDArray[np.bool_], seed: int, samples: int) -> Check:
    """I2: how much the margin of surviving images changes under noise that nobody sees.

    The relative change is that of the margin between logits, cut at 1. A random model is asked with the same draws at
    both points, and the mean of its margins is compared.

    Args:
        network: images -> logits.
        batches: images in [0, 1] and labels.
        alive: [n], over all batches.
        seed: of the noise.
        samples: noisy versions of each image; the paper takes 100.
    """
    n = int(alive.sum())
    if not n:
        return STABLE.not_run("no image survives the suite")
    changes = [_changes(network, x, y, seed, number, samples) for number, (x, y) in enumerate(batches)]
    change = np.concatenate(changes)[alive]
    low, high = mean_interval(change)
    mean = float(change.mean())
    text = (
        f"uniform noise of width {_WIDTH * 255:g}/255 changes the margin of {n} surviving images by"
        f" {percent(mean)} [{percent(low)}, {percent(high)}]"
    )
    return STABLE.answered(low > _UNSTABLE, text, {"change": mean, "low": low, "high": high, "n": n})


def _look(
    network: nn.Module, x: Tensor, y: Tensor, at: Reference, seed: int, number: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_], NDArray[np.float64]]:
    with undisturbed(network), drawing_from(Stream.named(seed, "checks", "gradients", index=number)):
        model = at.adversary.view.of(network)
        x, y = x.detach().clone(), y.clone()
        passes = _PASSES if is_random(network) else 1
        loss = partial(at.attack.loss, goal=Goal(y))
        found = [input_gradient(model, x, loss) for _ in range(passes)]
    gradient = torch.stack([answer.gradient for answer in found]).flatten(2)
    top = found[0].logits.double().topk(2, dim=-1).values
    columns = (
        (gradient == 0).all(2).all(0),
        (~gradient.isfinite()).any(2).any(0),
        (gradient == gradient[:1]).all(2).all(0),
        top[:, 0] - top[:, 1],
    )
    zero, broken, constant, gap = (np.asarray(column.cpu()) for column in columns)
    return zero, broken, constant, gap


def _changes(network: nn.Module, x: Tensor, y: Tensor, seed: int, number: int, samples: int) -> NDArray[np.float64]:
    generator = torch.Generator().manual_seed(Stream.named(seed, "checks", "noise", index=number).seed)
    with undisturbed(network), torch.no_grad():
        x, y = x.detach().clone(), y.clone()
        here = _margin(network, x, y, seed, number)
        total = torch.zeros_like(here)
        for _ in range(samples):
            noise = (torch.rand(x.shape, generator=generator, dtype=x.dtype) - 0.5).to(x.device)
            there = _margin(network, (x + _WIDTH * noise).clamp(0, 1), y, seed, number)
            change = (there - here).abs() / here.abs().clamp_min(torch.finfo(here.dtype).tiny)
            total += change.clamp_max(1)
    return np.asarray((total / samples).cpu())


def _margin(network: nn.Module, x: Tensor, y: Tensor, seed: int, number: int) -> Tensor:
    passes = _MEAN_OF if is_random(innermost(network)) else 1
    with drawing_from(Stream.named(seed, "checks", "margin", index=number)):
        answers = torch.stack([network(x).double() for _ in range(passes)])
    return Margin()(answers, Goal(y))
