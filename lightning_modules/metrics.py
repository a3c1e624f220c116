"""Accuracy as two whole numbers, so that it is exact on any number of devices and any division into batches."""

import torch
from torch import Tensor
from torchmetrics import Metric


class CountedAccuracy(Metric):
    """Correct answers / answers; states are sums of integers.

    >>> accuracy = CountedAccuracy()
    >>> accuracy(torch.tensor([[2.0, 1.0], [0.0, 3.0]]), torch.tensor([0, 0]))
    tensor(0.5000)
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    correct: Tensor
    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("correct", default=torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("total", default=torch.tensor(0), dist_reduce_fx="sum")

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Count a batch: logits [B, classes], labels [B]."""
        # Not in place: a state that was reset in inference mode (trainer.validate) must also count in a later fit.
        self.correct = self.correct + (logits.argmax(-1) == labels).sum()
        self.total = self.total + labels.numel()

    def compute(self) -> Tensor:
        """The fraction in [0, 1]; NaN before the first image."""
        return self.correct / self.total
