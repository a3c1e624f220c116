"""Input channels that leave something out: frequencies, singular values, colours, brightness (EEPD section 3)."""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from defenses.channels import Channel
from defenses.frequencies import MaskName, checked_mask, weights
from defenses.singular_values import truncated


class FFTCompression(Channel):
    """FC: each colour of an image without its high frequencies; a linear map, so its gradient is exact.

    Args:
        percent: how much is left out, 0 to 100.
        mask: which coefficients are kept: "disk", the lowest frequencies, `percent` of them dropped exactly (see
            `frequencies.disk`), or "corner_disks", the papers' rule, which drops more or less than it says (see
            `frequencies.corner_disks`). Only "disk" is idempotent at every percentage: where "corner_disks" keeps one
            of two conjugates, that wave is halved at every pass.
    """

    def __init__(self, percent: float, mask: MaskName = "disk") -> None:
        super().__init__()
        self.percent, self.mask = _checked_percent(percent), checked_mask(mask)

    def transform(self, x: Tensor) -> Tensor:
        """See `Channel`."""
        wide = _wide(x)
        spectrum = torch.fft.rfft2(wide)
        spectrum *= self.weights(wide)
        return _like(torch.fft.irfft2(spectrum, s=x.shape[-2:]), x)

    def weights(self, x: Tensor) -> Tensor:
        """The share of each coefficient of images like `x` that passes, [H, W // 2 + 1]."""
        return weights(self.mask, self.percent, *x.shape[-2:], x.dtype, x.device)

    def extra_repr(self) -> str:
        """The setting, for `print(model)`."""
        return f"percent={self.percent}, mask={self.mask}"


class InverseFFTCompression(FFTCompression):
    """Keeps what `FFTCompression` of the same arguments drops."""

    def weights(self, x: Tensor) -> Tensor:
        """See `FFTCompression`."""
        return 1 - super().weights(x)


class SVDCompression(Channel):
    """SVD: each colour of an image as the nearest matrix of rank int((1 - percent / 100) * min(H, W)).

    Its derivative carries factors s_k^2 / (s_k^2 - s_{k+1}^2) of the last singular value kept and the first one dropped
    (Feppon & Lermusiaux 2018, https://arxiv.org/abs/1705.08521). Where the two are nearly equal it holds for tiny
    steps only; in most images they are not, and it is the stronger attack, the more so the fewer values are kept. The
    papers' attacks pass straight through: `attacks.StraightThrough(everywhere=True)`.

    Args:
        percent: how many singular values are left out, 0 to 100; at least one must be left, or images are refused.
        differentiable: False lets adaptive attacks pass straight through (BPDA) unasked.
    """

    def __init__(self, percent: float, differentiable: bool = True) -> None:
        super().__init__()
        self.percent, self.differentiable = _checked_percent(percent), differentiable

    def transform(self, x: Tensor) -> Tensor:
        """See `Channel`.

        Raises:
            ValueError: no singular value is left of images of this size.
        """
        height, width = x.shape[-2:]
        rank = int((100 - self.percent) * min(height, width) / 100)  # in this order, as 1 - 0.9 < 0.1
        if rank == 0:
            raise ValueError(f"percent={self.percent} leaves no singular value of images of {height} x {width} pixels")
        return _like(truncated(_wide(x), rank), x)

    def extra_repr(self) -> str:
        """The setting, for `print(model)`."""
        return f"percent={self.percent}"


class ColourDepth(Channel):
    """CD: every pixel rounded to one of V values, 0 and 1 among them.

    Args:
        bits: V = 2^bits, 1 to 8. Either this or `values`.
        values: V itself, 2 to 256.
    """

    differentiable = False

    def __init__(self, bits: int | None = None, values: int | None = None) -> None:
        super().__init__()
        if (bits is None) == (values is None):
            raise ValueError(f"bits or values must be given, and not both, got bits={bits} and values={values}")
        if bits is not None and bits not in range(1, 9):
            raise ValueError(f"bits must be a whole number from 1 to 8, got {bits}")
        if values is not None and values not in range(2, 257):
            raise ValueError(f"values must be a whole number from 2 to 256, got {values}")
        self._setting = f"values={values}" if bits is None else f"bits={bits}"
        self.values: int = 2 ** (bits or 0) if values is None else values

    def transform(self, x: Tensor) -> Tensor:
        """See `Channel`."""
        steps = self.values - 1
        return (x * steps).round() / steps

    def extra_repr(self) -> str:
        """The setting, for `print(model)`."""
        return self._setting


class Brightness(Channel):
    """Darker by a constant: (round(255 x) - shift) / 255, without clipping ("sub_rgb" in the papers' code).

    Args:
        shift: in steps of an 8-bit image, 0 to 255.
    """

    differentiable = False

    def __init__(self, shift: float = 43) -> None:
        super().__init__()
        if not 0 <= shift <= 255:
            raise ValueError(f"shift must be a number from 0 to 255, got {shift}")
        self.shift = shift

    def transform(self, x: Tensor) -> Tensor:
        """See `Channel`."""
        return ((x * 255).round() - self.shift) / 255

    def expected_l2(self, shape: Sequence[int]) -> float:
        """`shift` / 255 * sqrt(values per image): exact for images of 8 bits."""
        return self.shift / 255 * prod(shape) ** 0.5

    def extra_repr(self) -> str:
        """The setting, for `print(model)`."""
        return f"shift={self.shift}"


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()  # FFT and LAPACK know no shorter numbers


def _like(y: Tensor, x: Tensor) -> Tensor:
    """`y` in the type and memory format of `x`."""
    channels_last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return y.to(x.dtype, memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def _checked_percent(percent: float) -> float:
    if not 0 <= percent <= 100:
        raise ValueError(f"percent must be a number from 0 to 100, got {percent}")
    return percent
