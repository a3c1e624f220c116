"""What a model answers: on draws of its own, which no attack has seen."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from attacks import Attack, Trace, evaluating
from defenses import Stream, drawing_from
from evaluation.batch import Batch, sampled, unfinished
from models import folded_batchnorm


class Verdict(NamedTuple):
    """What a model said to B images.

    Attributes:
        answers: [B, draws], the class answered at each draw.
        probs: [B, classes], softmax probabilities averaged over the draws (float64).
    """

    answers: Tensor
    probs: Tensor

    @property
    def counts(self) -> Tensor:
        """How often each class was answered, [B, classes]."""
        counts = torch.zeros_like(self.probs, dtype=torch.int64)
        return counts.scatter_add_(1, self.answers, torch.ones_like(self.answers))


class Examined(NamedTuple):
    """A unit of work: the rows of a batch, and its images [B, C, H, W] as the adversary left them."""

    rows: Batch
    x_adv: Tensor


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
        answers = torch.empty(len(x), draws, dtype=torch.int64, device=x.device)
        probs = torch.zeros_like(logits, dtype=torch.float64)
        for draw in range(draws):
            logits = model(x) if draw else logits
            answers[:, draw] = logits.argmax(1)
            probs += logits.double().softmax(1)
    if not probs.isfinite().all():
        raise FloatingPointError("the model answers NaN or infinity; its weights are no use (did training diverge?)")
    return Verdict(answers, probs / draws)


def examine(
    model: nn.Module,
    images: tuple[Tensor, Tensor],
    first: int,
    name: str,
    attack: Attack | None,
    seed: int,
    draws: int,
    first_success: bool = False,
) -> Examined:
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
    if attack is None:
        nothing = torch.zeros_like(y, dtype=torch.bool)
        trace = Trace(x, torch.zeros_like(y), x.new_empty(0, len(x)), nothing, nothing)
    else:
        with drawing_from(Stream.named(seed, name, "attack", index=first)):
            trace = attack.run(model, x, y, first_success=first_success)
    with drawing_from(Stream.named(seed, name, "judge", index=first)):
        verdict = judge(model, trace.x_adv, draws)
    return Examined(_batch(first, x, y, trace, verdict), trace.x_adv)


def _batch(first: int, x: Tensor, y: Tensor, trace: Trace, verdict: Verdict) -> Batch:
    delta, loss = (trace.x_adv - x).flatten(1), _numpy(trace.loss)
    return Batch(
        index=np.arange(first, first + len(y)),
        label=_numpy(y),
        answers=_numpy(verdict.answers),
        probs=_numpy(verdict.probs),
        l2=_numpy(delta.norm(dim=1)),
        linf=_numpy(delta.abs().amax(1)),
        queries=_numpy(trace.queries),
        zero_gradient=_numpy(trace.zero_gradient),
        erred=_numpy(trace.erred),
        loss=sampled(loss),
        unfinished=unfinished(loss),
    )


def _numpy(x: Tensor) -> np.ndarray:
    return np.asarray(x.detach().cpu())
