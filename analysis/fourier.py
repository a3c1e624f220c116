"""Magnitudes of images' Fourier coefficients in decibels (ICLR draft section C.6 with figure 12)."""

import torch
from torch import Tensor

from analysis.derivatives import starts


def log_magnitude(x: Tensor, *, shifted: bool = True, floor: float = -120.0) -> Tensor:
    """20 log10 of the magnitude of the two-dimensional Fourier transform of each channel.

    The transform is orthonormal, so the squared magnitudes of a channel sum to those of its pixels. The papers do not
    say which they took; another one adds the same constant to all decibels.

    Args:
        x: images [..., H, W] in [0, 1], or differences of images.
        shifted: frequency 0 in the middle, at (H // 2, W // 2); else at (0, 0), the corner, as in the papers' figure.
        floor: what is shown of smaller magnitudes, 0 included, in decibels; float32 rounds at about -120.

    Returns:
        [..., H, W] in decibels, in the dtype of x.

    Raises:
        ValueError: x has fewer than 2 dimensions or is not floating point.
    """
    if x.dim() < 2 or not x.is_floating_point():
        raise ValueError(f"need images [..., H, W] of floating point, got {tuple(x.shape)} of {x.dtype}")
    magnitude = torch.fft.fft2(x, norm="ortho").abs()
    decibels = 20 * magnitude.clamp_min(10 ** (floor / 20)).log10()
    return torch.fft.fftshift(decibels, (-2, -1)) if shifted else decibels


def mean_log_magnitude(x: Tensor, *, shifted: bool = True, floor: float = -120.0, chunk: int = 500) -> Tensor:
    """Mean of `log_magnitude` over images: what kind of image it is on average.

    Args:
        x: images [B, C, H, W], at least one.
        shifted: see `log_magnitude`.
        floor: see `log_magnitude`.
        chunk: images at a time.

    Returns:
        [C, H, W] in decibels, float64.

    Raises:
        ValueError: x are no images, or chunk is below 1.
    """
    if x.dim() != 4 or not len(x):
        raise ValueError(f"need images [B, C, H, W], B >= 1, got {tuple(x.shape)}")
    total = torch.zeros(x.shape[1:], dtype=torch.float64, device=x.device)
    for start in starts(len(x), chunk):
        total += log_magnitude(x[start : start + chunk], shifted=shifted, floor=floor).sum(0, dtype=torch.float64)
    return total / len(x)


def log_magnitude_difference(
    x: Tensor, other: Tensor, *, shifted: bool = True, floor: float = -120.0, chunk: int = 500
) -> Tensor:
    """Decibels by which a frequency is stronger in `other` than in `x`, on the mean over images.

    Args:
        x: images [B, C, H, W], such as the originals.
        other: images [B', C, H, W], such as their adversarial or compressed versions.
        shifted: see `log_magnitude`.
        floor: see `log_magnitude`.
        chunk: images at a time.

    Returns:
        [C, H, W] in decibels, float64; negative where `other` is weaker.

    Raises:
        ValueError: images of the two differ in shape, and see `mean_log_magnitude`.
    """
    if x.shape[1:] != other.shape[1:]:
        raise ValueError(f"need images of one shape, got {tuple(x.shape[1:])} and {tuple(other.shape[1:])}")
    after, before = (mean_log_magnitude(images, shifted=shifted, floor=floor, chunk=chunk) for images in (other, x))
    return after - before
