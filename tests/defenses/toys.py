"""Images and draws for the tests of channels."""

from collections.abc import Callable

import torch
from torch import Tensor

from defenses import Stream, drawing_from


def images(batch: int = 4, dtype: torch.dtype = torch.float32, shape: tuple[int, ...] = (3, 8, 8)) -> Tensor:
    return torch.rand(batch, *shape, dtype=dtype)


def drawn(channel: Callable[[Tensor], Tensor], x: Tensor, seed: int = 7) -> Tensor:
    with drawing_from(Stream(seed)):
        return channel(x)
