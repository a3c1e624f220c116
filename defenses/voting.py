"""Voting: one answer from many noisy passes (EEPD figures 10 and 11), and when to give none."""

from contextvars import copy_context
from typing import Literal

import numpy as np
import torch
from scipy.stats import binom
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from defenses.randomness import Stream, drawing_from, has_shared_draws, uniform_like

ABSTAINED = -1

# Added to every count (Krichevsky and Trofimov): a class without votes must not answer minus infinity.
_PRIOR = 0.5


class Vote(nn.Module):
    """Images [B, C, H, W] -> logits [B, classes] of `votes` passes through `network`, each with its own draw.

    Draws of activations are copies of the images in one pass; draws that a batch shares (noisy weights) take a pass
    each. Where a gradient is wanted and the copies do not fit into one pass, every pass is repeated on the way back
    with the draws it had, so that memory never holds the graphs of two (in train mode BatchNorm counts it twice).

    Args:
        network: images -> logits [B, classes].
        votes: passes N, at least 1.
        mode: "labels": log((n_k + 1/2) / (N + classes / 2)) with n_k the passes that answer class k, so that the
            largest logit is the most frequent label, the lowest class number of several. A count has no derivative; the
            gradient is that of the other mode, so that an attack is not stopped by rounding. "probabilities": the log
            of the mean softmax probability, with its exact gradient.
        most_images: most images in one pass, unless the batch itself is larger.

    Raises:
        ValueError: `votes` or `most_images` is below 1, or there is no such mode.
    """

    def __init__(
        self,
        network: nn.Module,
        votes: int,
        mode: Literal["labels", "probabilities"] = "labels",
        most_images: int = 256,
    ) -> None:
        super().__init__()
        for name, value in (("votes", votes), ("most_images", most_images)):
            if not (isinstance(value, int) and value >= 1):
                raise ValueError(f"{name} must be a whole number >= 1, got {value}")
        if mode not in ("labels", "probabilities"):
            raise ValueError(f"mode must be labels or probabilities, got {mode}")
        self.network, self.votes, self.mode, self.most_images = network, votes, mode, most_images
        self.one_by_one = has_shared_draws(network)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        log_sum, counts = self._poll(x)
        if self.mode == "probabilities":
            return log_sum - float(np.log(self.votes))
        logits = ((counts + _PRIOR) / (self.votes + _PRIOR * counts.shape[1])).log()
        return logits + (log_sum - log_sum.detach()) if log_sum.requires_grad else logits

    @torch.no_grad()
    def counts(self, x: Tensor) -> Tensor:
        """How many passes answer each class: images [B, C, H, W] -> int64 [B, classes]; see `abstaining`."""
        return self._poll(x)[1].long()

    def extra_repr(self) -> str:
        """The settings, for `print(model)`."""
        return f"votes={self.votes}, mode={self.mode}"

    def _poll(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Over all passes: log of the sum of the probabilities, and counts, both [B, classes]."""
        at_once = 1 if self.one_by_one else max(1, self.most_images // max(len(x), 1))
        parts = in_parts(self.votes, at_once)
        ask = self._replayable if torch.is_grad_enabled() and len(parts) > 1 else self._ask
        log_sums, counts = zip(*[ask(x, draws) for draws in parts], strict=True)
        return torch.stack(log_sums).logsumexp(0), torch.stack(counts).sum(0)

    def _ask(self, x: Tensor, draws: int) -> tuple[Tensor, Tensor]:
        # Not `repeat`: it forgets that a batch is channels_last.
        logits: Tensor = self.network(torch.cat([x] * draws) if draws > 1 else x)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32)).view(draws, len(x), -1)
        answers = nn.functional.one_hot(logits.argmax(-1), logits.shape[-1])
        return logits.log_softmax(-1).logsumexp(0), answers.sum(0).to(logits.dtype)

    def _replayable(self, x: Tensor, draws: int) -> tuple[Tensor, Tensor]:
        # The way back is walked after the caller has left his streams and views: both are kept for it.
        seed = int(uniform_like(torch.empty(1, dtype=torch.float64)) * 2**32)
        context = copy_context()

        def again(images: Tensor) -> tuple[Tensor, Tensor]:
            return context.run(self._ask_from, seed, images, draws)

        log_sum, counts = checkpoint(again, x, use_reentrant=False)
        return log_sum, counts

    def _ask_from(self, seed: int, x: Tensor, draws: int) -> tuple[Tensor, Tensor]:
        with drawing_from(Stream(seed)):
            return self._ask(x, draws)


def abstaining(counts: Tensor, alpha: float = 0.001) -> Tensor:
    """The most frequent label, or -1 where the first place may be owed to luck.

    PREDICT of Cohen et al. 2019 (https://arxiv.org/abs/1902.02918, section 3.2.1): the two-sided binomial test of
    n_A, the passes for the first class, among n_A + n_B, those for the first two, at probability 1/2. The label that is
    given is another one than that of infinitely many passes with probability at most alpha.

    Args:
        counts: passes per class, [B, classes >= 2].
        alpha: level of the test, in (0, 1).

    Returns:
        int64 [B], on the device of the counts.

    Raises:
        ValueError: alpha is outside (0, 1).
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie in (0, 1), got {alpha}")
    top = counts.topk(2, dim=1)
    first, second = np.asarray(top.values.cpu(), np.int64).T
    # At probability 1/2 both tails are alike; when the places are shared they overlap.
    p_value = np.minimum(1, 2 * binom.cdf(second, first + second, 0.5))
    certain = torch.from_numpy(p_value <= alpha).to(counts.device)
    return torch.where(certain, top.indices[:, 0], ABSTAINED)


def in_parts(whole: int, most: int) -> list[int]:
    """`whole` in parts of nearly the same size, each at most `most`."""
    number = -(-whole // most)
    return [whole // number + (part < whole % number) for part in range(number)]
