"""Which Fourier coefficients of an image a compression keeps."""

from functools import lru_cache
from math import isqrt, pi
from typing import Literal, get_args

import torch
from torch import Tensor

MaskName = Literal["disk", "corner_disks"]


def checked_mask(name: MaskName) -> MaskName:
    """`name` if there is such a mask.

    Raises:
        ValueError: there is none.
    """
    if name not in get_args(MaskName):
        raise ValueError(f"mask must be one of {', '.join(get_args(MaskName))}, got {name}")
    return name


def disk(percent: float, height: int, width: int) -> Tensor:
    """The lowest frequencies: exactly the share that is asked for.

    Of the H * W coefficients of the two-sided spectrum, the k = round((1 - percent / 100) * H * W) nearest to frequency
    0, by signed frequencies in cycles per pixel; among equals those of the least vertical frequency. As a coefficient
    and its complex conjugate are one wave, they stay together: k - 1 where k would tear a pair. The compression is
    therefore an orthogonal projection of the image to k dimensions (or k - 1).

    Returns:
        Bool [H, W // 2 + 1], the layout of `torch.fft.rfft2`.
    """
    order = _by_distance(height, width)
    ranked = order.flatten().sort().values
    count = round((100 - percent) * height * width / 100)
    # Of the first rank that is out; both of a torn pair have it.
    limit = ranked[count] if count < len(ranked) else ranked[-1] + 1
    return (order < limit)[:, : width // 2 + 1]


def corner_disks(percent: float, height: int, width: int) -> Tensor:
    """The rule of the papers' code (adam-dziedzic/bandlimited-cnns): a union of disks at the corners of the array.

    Kept is what lies closer than r = floor(sqrt(2 * (1 - percent / 100) * H * (W // 2 + 1) / pi)) to one of the corners
    (0, 0), (0, W - 1), (H - 1, 0), (H - 1, W - 1), in indices. Row H - 1 is frequency -1: negative vertical frequencies
    reach one further than positive ones. 0 % does not keep everything, and 10 % drops 13.6 % of 32 x 32.

    Returns:
        Bool [H, W // 2 + 1], the layout of `torch.fft.rfft2`.
    """
    columns = width // 2 + 1
    y, x = torch.arange(height)[:, None], torch.arange(columns)
    from_row, from_column = torch.minimum(y, height - 1 - y), torch.minimum(x, width - 1 - x)
    # floor(sqrt(t)) = isqrt(floor(t))
    radius = isqrt(int(2 * (1 - percent / 100) * height * columns / pi))
    return from_row**2 + from_column**2 < radius**2


@lru_cache(maxsize=64)
def weights(
    mask: MaskName, percent: float, height: int, width: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """What to multiply `rfft2` of images with, [H, W // 2 + 1]; kept for the next call.

    1 for kept coefficients, 0 for others, 1/2 where a mask keeps one of two conjugates that are both in the array (in
    the first column and, for even W, in the last). `irfft2` of PyTorch's CPU does so by itself; other libraries leave
    it open.
    """
    with torch.inference_mode(False):  # a tensor made inside could not be part of a graph later
        kept = (disk if mask == "disk" else corner_disks)(percent, height, width).double()
        conjugate = kept[-torch.arange(height) % height]
        both = [0, width // 2] if width % 2 == 0 else [0]
        kept[:, both] = (kept[:, both] + conjugate[:, both]) / 2
        return kept.to(device, dtype)


def _by_distance(height: int, width: int) -> Tensor:
    """[H, W] of integers: larger ones are further out; a pair of conjugates, and nothing else, shares its number."""
    y, x = _frequencies(height)[:, None], _frequencies(width)
    squared = (y * width) ** 2 + (x * height) ** 2  # of the frequencies y / H and x / W, times (H W)^2
    # The highest frequency of an even size is its own negative.
    falling = (y * x < 0) & (2 * y.abs() != height) & (2 * x.abs() != width)
    return squared * (height + 2) + 2 * y.abs() + falling


def _frequencies(size: int) -> Tensor:
    index = torch.arange(size)
    return torch.where(2 * index >= size, index - size, index)
