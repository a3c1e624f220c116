"""Normalisation as a part of the network, so that everything outside deals in pixels in [0, 1]."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Normalize(nn.Module):
    """(x - mean) / std, channel by channel, for images [B, C, H, W] (or [..., C, H, W]).

    Mean and standard deviation are not in the state dict: published weights load without them.

    Args:
        mean: C means, in the units of the images (for pixels in [0, 1], such as 0.485).
        std: C positive standard deviations, in the same units.

    Raises:
        ValueError: if lengths differ or a standard deviation is not positive; on images without C channels.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != len(std) or not mean:
            raise ValueError(f"mean {list(mean)} and std {list(std)} must have one value for each channel")
        if min(std) <= 0:
            raise ValueError(f"std {list(std)} must be positive")
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x`, [..., C, H, W]."""
        if x.shape[-3] != len(self.mean):
            # Broadcasting would turn a grey image into C channels without a word.
            raise ValueError(f"images have {x.shape[-3]} channels, mean and std {len(self.mean)}")
        return (x - self.mean) / self.std

    def extra_repr(self) -> str:
        """Show the constants when the module is printed."""
        return f"mean={self.mean.flatten().tolist()}, std={self.std.flatten().tolist()}"


class Normalized(nn.Module):
    """A network behind the normalisation that it was trained with: images [B, C, H, W] in [0, 1] -> logits.

    Args:
        network: maps normalised images to logits; kept as the attribute `network`.
        mean: see `Normalize`.
        std: see `Normalize`.
    """

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.normalize = Normalize(mean, std)
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x` and return the network's logits [B, classes]."""
        return self.network(self.normalize(x))
