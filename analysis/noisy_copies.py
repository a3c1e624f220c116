"""Noisy versions of images that depend on the image's number only: not on the batch, nor on chunk sizes."""

from collections.abc import Callable

import torch
from torch import Tensor

from defenses import Channel, Stream, drawing_from

# A level of noise -> the channel that adds it, such as `Gauss` (a std in pixels) or `PapersGauss` (the papers' sigma).
NoiseOfLevel = Callable[[float], Channel]


@torch.no_grad()
def noisy_copies(image: Tensor, channel: Channel, copies: int, seed: int, index: int) -> Tensor:
    """Independent noisy versions of one image, not clipped.

    Args:
        image: [C, H, W].
        channel: what adds the noise; its settings (`repr`) name the stream.
        copies: how many, at least 1.
        seed: of the analysis.
        index: the image's number.

    Returns:
        [copies, C, H, W].

    Raises:
        ValueError: copies is below 1.
    """
    if copies < 1:
        raise ValueError(f"there must be at least 1 noisy copy, got {copies}")
    with torch.inference_mode(False), drawing_from(Stream.named(seed, "noisy copies", repr(channel), index=index)):
        noisy: Tensor = channel(image.clone().repeat(copies, 1, 1, 1))
    return noisy
