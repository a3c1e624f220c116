"""What a channel adds to images, as a distribution over pixels.

EEPD section D.2 with figure 8, ICLR draft section C.5 with figure 10.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from analysis.derivatives import starts
from attacks import evaluating


@dataclass(frozen=True, eq=False)
class Deltas:
    """The distribution of channel(x) - reference over all values of all images.

    Attributes:
        edges: [bins + 1] of the histogram, in pixels of [0, 1], ascending and even.
        counts: [bins].
        outside: how many values lie below the first or above the last edge.
        mean: over all values.
        std: over all values, divided by their number.
        l2: [B], L2 norm of each image's delta.
    """

    edges: NDArray[np.float64]
    counts: NDArray[np.int64]
    outside: int
    mean: float
    std: float
    l2: NDArray[np.float64]

    @property
    def density(self) -> NDArray[np.float64]:
        """[bins], share of all values per unit of a pixel; integrates to 1 minus the share outside."""
        return self.counts / (self.counts.sum() + self.outside) / np.diff(self.edges)


@torch.no_grad()
def channel_deltas(
    channel: nn.Module,
    x: Tensor,
    reference: Tensor | None = None,
    *,
    bins: int = 101,
    limit: float | None = None,
    chunk: int = 500,
) -> Deltas:
    """Histogram, mean, standard deviation and L2 norms of what a channel adds.

    A random channel is drawn once per image, from the stream around the call.

    Args:
        channel: images -> images; in eval mode meanwhile.
        x: images [B, C, H, W] in [0, 1].
        reference: what is subtracted, like x; None for x. The papers passed adversarial images through the channel and
            subtracted the originals.
        bins: of the histogram; an odd number has a bin around 0.
        limit: the histogram goes from -limit to limit, in pixels; None for the largest delta.
        chunk: images that pass through the channel at a time.

    Raises:
        ValueError: there is no image, shapes differ, limit is not above 0, or a number is below 1.
    """
    reference = x if reference is None else reference
    if x.dim() != 4 or not len(x) or x.shape != reference.shape:
        raise ValueError(f"need images [B, C, H, W] and as many references, got {_shape(x)} and {_shape(reference)}")
    if bins < 1 or (limit is not None and not 0 < limit < float("inf")):
        raise ValueError(f"need bins >= 1 and a finite limit > 0, got {bins} and {limit}")
    with evaluating(channel):
        moved = torch.cat([channel(x[start : start + chunk]) for start in starts(len(x), chunk)])
    if moved.shape != x.shape:
        raise ValueError(f"{type(channel).__name__} made {_shape(moved)} of images {_shape(x)}: nothing to subtract")
    delta = np.asarray((moved.double() - reference.double()).cpu())
    if not np.isfinite(delta).all():
        raise FloatingPointError(f"{type(channel).__name__} made NaN or infinity of the images")
    half = limit or float(np.abs(delta).max()) or 1.0  # any limit does if nothing is added
    counts, edges = np.histogram(delta, bins, (-half, half))
    l2 = np.linalg.norm(delta.reshape(len(delta), -1), axis=1)
    return Deltas(edges, counts, int(delta.size - counts.sum()), float(delta.mean()), float(delta.std()), l2)


def _shape(x: Tensor) -> list[int]:
    return list(x.shape)
