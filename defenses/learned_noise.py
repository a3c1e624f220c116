"""Noise that finds its own level: a scale that is trained, and one that follows the tensor as BatchNorm does."""

import torch
from torch import Tensor, nn

from defenses.noise import Noise, at_least_0
from defenses.randomness import drawn_for, normal_like


class LearnedNoise(Noise):
    """x + scale * N(0, 1), independent per element, with a learned absolute scale, one number per layer.

    The level is |scale|: the draw is symmetric, so the sign means nothing. RobustNet trained in the manner of PNI; by
    EEPD section 3.7 the level falls by two orders of magnitude from 0.25, and the robustness with it. The gradient
    passes to x unchanged; to `scale` it is the sum of gradient * draw. Trained without weight decay, as every
    parameter of a `Noise` is (lightning_modules.parameter_groups).

    Args:
        std: start value of the level, in the units of the tensor, >= 0.
    """

    def __init__(self, std: float = 0.25) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(float(at_least_0("std", std))))

    def perturb(self, x: Tensor) -> Tensor:
        """`x` with a fresh draw."""
        return torch.addcmul(x, self.scale, normal_like(drawn_for(x)))

    def level(self, x: Tensor) -> float:
        """See `Noise`."""
        return float(self.scale.detach().abs())

    def extra_repr(self) -> str:
        """The level as it is now, for `print(model)`."""
        return f"scale={float(self.scale.detach()):.4g}"


class RunningScaledNoise(Noise):
    """x + ratio * s * N(0, 1), where s is the running standard deviation of the tensor, frozen for inference.

    The future work of EEPD section 3.7. The variance over the whole tensor is averaged over batches as BatchNorm
    averages: in train mode only (inside `silenced()` too), with the weight `momentum` for a new batch; the first batch
    sets it. The noise itself is the same in both modes, and gradients do not pass to s. Before the first batch s is 1.

    s lies in two buffers, which the state dict holds and which DistributedDataParallel copies from the first process
    to the others before each step, as it does BatchNorm's: all of them use the average of the first one's batches.

    Args:
        ratio: of the noise to the tensor, both as standard deviations, >= 0.
        momentum: weight of a new batch, in (0, 1].
    """

    running_var: Tensor
    batches: Tensor

    def __init__(self, ratio: float = 0.25, momentum: float = 0.1) -> None:
        super().__init__()
        if not 0 < momentum <= 1:
            raise ValueError(f"momentum must lie in (0, 1], got {momentum}")
        self.ratio = at_least_0("ratio", ratio)
        self.momentum = momentum
        self.random = ratio > 0
        self.register_buffer("running_var", torch.tensor(1.0))
        self.register_buffer("batches", torch.tensor(0))

    def forward(self, x: Tensor) -> Tensor:
        """See `Noise`; in train mode the batch is counted first, and its noise is of the new scale."""
        if self.training:
            self._count(x)
        return super().forward(x)

    def perturb(self, x: Tensor) -> Tensor:
        """`x` with a fresh draw."""
        return torch.addcmul(x, self.ratio * self.running_var.sqrt(), normal_like(drawn_for(x)))

    def level(self, x: Tensor) -> float:
        """See `Noise`."""
        return self.ratio * float(self.running_var) ** 0.5

    @torch.no_grad()
    def _count(self, x: Tensor) -> None:
        var = x.detach().to(self.running_var.dtype).var()
        # No `if`, which would make a GPU wait for the counter.
        later = torch.lerp(self.running_var, var, self.momentum)
        self.running_var.copy_(torch.where(self.batches == 0, var, later))
        self.batches.add_(1)

    def extra_repr(self) -> str:
        """The setting, for `print(model)`."""
        return f"ratio={self.ratio}, momentum={self.momentum}"
