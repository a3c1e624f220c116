"""What a model answers: on draws of its own, which no attack has seen."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from attacks import Attack, evaluating
from defenses import Stream, drawing_from
from evaluation.records import Batch
from models import folded_batchnorm


class Verdict(NamedTuple):
    """Answers to B images over some draws: counts [B, classes] (int64) and mean softmax probabilities [B, classes]."""

    counts: Tensor
    probs: Tensor


@torch.inference_mode()
def judge(model: nn.Module, x: Tensor, draws: int) -> Verdict:
    """Ask `draws` times; draws come from the stream around the call.

    Args:
        model: images [B, C, H, W] in [0, 1] -> logits [B, classes].
        x: images.
        draws: passes, at least 1; a deterministic model needs one.

    Raises:
        FloatingPointError: the model answers NaN or +infinity: no label follows from that.
    """
    # A judge in half precision would see another model: autocast is for training.
    with torch.autocast(x.device.type, enabled=False), evaluating(model), folded_batchnorm(model):
        logits = model(x)
        counts = torch.zeros_like(logits, dtype=torch.int64)
        probs = torch.zeros_like(logits, dtype=torch.float64)
        for draw in range(draws):
            logits = model(x) if draw else logits
            counts[torch.arange(len(x), device=x.device), logits.argmax(1)] += 1
            probs += logits.double().softmax(1)
    if not probs.isfinite().all():
        raise FloatingPointError("the model answers NaN or infinity; its weights are no use (did training diverge?)")
    return Verdict(counts, probs / draws)


def examine(
    model: nn.Module,
    images: tuple[Tensor, Tensor],
    first: int,
    name: str,
    attack: Attack | None,
    seed: int,
    draws: int,
    first_success: bool = False,
) -> Batch:
    """One unit of work: attack a batch, then judge the result on other draws.

    What comes out depends on the arguments only, not on the device count or on what was evaluated before.

    Args:
        model: the model to be judged, which is also what the attack sees.
        images: (x [B, C, H, W] in [0, 1], y [B]): one batch, always the same images under the same number.
        first: index of its first image in the split; images follow each other.
        name: of the adversary; with `seed` and `first` it names the streams.
        attack: None judges the images as they are.
        seed: of the evaluation.
        draws: passes of the judge.
        first_success: an image that a deterministic model errs on is attacked no further, see `Attack.run`.
    """
    x, y = images
    queries, zero_gradient, x_adv = torch.zeros_like(y), torch.zeros_like(y, dtype=torch.bool), x
    if attack is not None:
        with drawing_from(Stream.named(seed, name, "attack", index=first)):
            trace = attack.run(model, x, y, first_success=first_success)
        queries, zero_gradient, x_adv = trace.queries, trace.zero_gradient, trace.x_adv
    with drawing_from(Stream.named(seed, name, "judge", index=first)):
        verdict = judge(model, x_adv, draws)
    delta = (x_adv - x).flatten(1)
    return Batch(
        index=np.arange(first, first + len(y)),
        label=_numpy(y),
        draws=draws,
        counts=_numpy(verdict.counts),
        probs=_numpy(verdict.probs),
        l2=_numpy(delta.norm(dim=1)),
        linf=_numpy(delta.abs().amax(1)),
        queries=_numpy(queries),
        zero_gradient=_numpy(zero_gradient),
    )


def _numpy(x: Tensor) -> np.ndarray:
    return np.asarray(x.detach().cpu())
