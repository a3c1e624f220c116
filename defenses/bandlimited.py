"""Band-limited convolution: 3x3 filters that neither see nor make high frequencies."""

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class BandLimited(nn.Module):
    """A network whose 3x3 convolutions are band-limited (Dziedzic et al. 2019, https://arxiv.org/abs/1911.09287).

    EEPD figure 3 uses it as a defense that is not random. Convolutions of other sizes stay as they are; so do weights
    and their names, behind the prefix `network.`: plain weights load, and weights trained here run without it. Noise
    goes around it, `RobustNet(BandLimited(network, 50))`, or inside if it is on activations.

    Args:
        network: any network with 3x3 convolutions; it is changed in place.
        percent: compression, 0 (the plain network, by way of its spectrum) to below 100; nominal, see
            `BandLimitedConv2d`.

    Raises:
        ValueError: no 3x3 convolution, one that is dilated or of a class of its own, or a percentage out of range.
    """

    def __init__(self, network: nn.Module, percent: float) -> None:
        super().__init__()
        if not 0 <= percent < 100:
            raise ValueError(f"percent must lie in [0, 100), got {percent}")
        self.network, self.percent = network, percent
        layers = [part for part in network.modules() if isinstance(part, nn.Conv2d) and part.kernel_size == (3, 3)]
        if not layers:
            raise ValueError(f"{type(network).__name__} has no 3x3 convolution to band-limit")
        for layer in layers:
            _check(layer)
        for layer in layers:
            # In place, as torch's parametrizations do it: hooks, parameters and references from elsewhere stay.
            layer.__class__ = BandLimitedConv2d
            vars(layer)["percent"] = percent

    def forward(self, x: Tensor) -> Tensor:
        """Images [B, C, H, W] in [0, 1] -> logits [B, classes]."""
        logits: Tensor = self.network(x)
        return logits

    def extra_repr(self) -> str:
        """The setting, for `print(model)`."""
        return f"percent={self.percent}"


class BandLimitedConv2d(nn.Conv2d):
    """A 3x3 convolution that multiplies low frequencies only. Made by `BandLimited`, out of a Conv2d.

    As the papers define it, the padded map and the filter are padded with zeros to n x n, n the smallest power of two
    that holds the map. Of their one-sided spectra, n rows by n / 2 + 1 columns, two squares stay and are multiplied,
    the first m rows and the last m rows of the first m columns, m = floor((n / 2 + 1) sqrt(1 - percent / 100)), at
    least 1. So an L is cut off the positive row frequencies and one off the negative ones, and the percentage is
    nominal: rounded, and of one quadrant with its borders. A stride takes every so many pixels of the result.

    Cropping spectra is linear and commutes with convolution, so the same comes out where the map alone is cropped
    (`low_passed`) and then convolved as usual, which is faster than products of spectra.

    Linear in x and in the weight. Gradients are those of this map, nothing is passed straight through: they go back
    through the same squares, so that the spectrum of the output's gradient is cropped as the papers crop it.

    The authors' code (github.com/adam-dziedzic/bandlimited-cnns, as of 01ff8f6) pads further, a map of 32 to 128, not
    to 64, which samples the same band more finely.
    """

    percent: float = 0.0

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        full = input.dtype if input.dtype == torch.float64 else torch.float32  # there is no FFT in 16 bits
        mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
        x = F.pad(input, self._reversed_padding_repeated_twice, mode=mode).to(full)
        low = low_passed(x, self.percent, x.shape[-2:])  # no more of it, so that the filter never wraps around
        if input.is_contiguous(memory_format=torch.channels_last):
            low = low.contiguous(memory_format=torch.channels_last)
        bias = None if bias is None else bias.to(full)
        return F.conv2d(low, weight.to(full), bias, self.stride, groups=self.groups).to(input.dtype)

    def extra_repr(self) -> str:
        """The setting, for `print(model)`."""
        settings: str = super().extra_repr()  # type: ignore[no-untyped-call]
        return f"{settings}, percent={self.percent}"


def low_passed(x: Tensor, percent: float, shape: Sequence[int] | None = None) -> Tensor:
    """Maps within the band of `BandLimitedConv2d`.

    Of a real map, Re(A x B^T), where A crops the rows' spectrum and B the columns' one-sided one; as products of
    matrices this takes less time than transforms of so small maps.

    Args:
        x: maps [B, C, H, W].
        percent: compression, 0 to below 100.
        shape: rows and columns of the result to return; None: all n x n, n the smallest power of two that holds a map.

    Returns:
        [B, C, *shape].
    """
    size = 1 << (max(x.shape[-2:]) - 1).bit_length()
    band = max(int((size // 2 + 1) * (1 - percent / 100) ** 0.5), 1)
    rows, columns = shape or (size, size)
    a, b = _croppings(size, band, x.dtype, x.device)
    a, b = a[:, :rows, : x.shape[-2]], b[:, :columns, : x.shape[-1]]
    return a[0] @ (x @ b[0].T) - a[1] @ (x @ b[1].T)


@cache
def _croppings(size: int, band: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Real and imaginary parts, each [2, n, n], of A and B in `low_passed`.

    A keeps the first and the last `band` frequencies. B keeps the first `band` of the one-sided spectrum, each but 0
    and the highest with its mirror image. What is imaginary in the end comes of row -band, which has no positive
    partner; the inverse of a one-sided transform leaves it out.
    """
    with torch.inference_mode(False), torch.no_grad():  # to be used in any mode later
        at = torch.arange(size, dtype=torch.float64)
        waves = torch.exp(2j * torch.pi * at[:, None] * at / size)  # [n, frequencies]
        of_rows = ((at < band) | (at >= size - band)).double()
        mirrored = torch.where((at == 0) | (at == size // 2), 1.0, 2.0).double()
        of_columns = mirrored * ((at < band) & (at <= size // 2))
        a, b = ((waves * kept) @ waves.mH / size for kept in (of_rows, of_columns))
        return tuple(torch.stack([part.real, part.imag]).to(device, dtype) for part in (a, b))  # type: ignore[return-value]


def _check(layer: nn.Conv2d) -> None:
    if type(layer) is not nn.Conv2d:
        raise ValueError(f"cannot band-limit a {type(layer).__name__}; noise on weights goes around BandLimited")
    if layer.dilation != (1, 1):
        raise ValueError(f"dilation must be (1, 1) to band-limit a convolution, got {layer.dilation}")
