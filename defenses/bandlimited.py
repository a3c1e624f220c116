"""Band-limited convolution: 3x3 filters that neither see nor make high frequencies."""

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
    """A 3x3 convolution by FFT that multiplies the low frequencies only. Made by `BandLimited`, out of a Conv2d.

    The padded map and the filter are padded with zeros to n x n, n the smallest power of two that holds the map. Of
    their one-sided spectra, n rows by n / 2 + 1 columns, two squares stay, the first m rows and the last m rows of the
    first m columns, m = floor((n / 2 + 1) sqrt(1 - percent / 100)), at least 1. So an L is cut off the positive row
    frequencies and one off the negative ones, and the percentage is nominal: rounded, and of one quadrant with its
    borders. A stride takes every so many pixels of the result.

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
        height, width = (side - 2 for side in x.shape[-2:])
        out = low_pass_correlation(x, weight.to(full), self.percent, self.groups)[..., :height, :width]
        out = out[..., :: self.stride[0], :: self.stride[1]]
        if bias is not None:
            out = out + bias.to(full)[:, None, None]
        last = input.is_contiguous(memory_format=torch.channels_last)
        return out.to(input.dtype).contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)

    def extra_repr(self) -> str:
        """The setting, for `print(model)`."""
        settings: str = super().extra_repr()  # type: ignore[no-untyped-call]
        return f"{settings}, percent={self.percent}"


def low_pass_correlation(x: Tensor, weight: Tensor, percent: float, groups: int = 1) -> Tensor:
    """Circular cross-correlation of size n x n of maps with filters, within the band of `BandLimitedConv2d`.

    Args:
        x: maps [B, C, H, W].
        weight: filters [O, C / groups, 3, 3].
        percent: compression, 0 to below 100.
        groups: of channels, as in `nn.Conv2d`.

    Returns:
        [B, O, n, n], whose first H - 2 rows and W - 2 columns are the "valid" ones.
    """
    size = 1 << (max(x.shape[-2:]) - 1).bit_length()
    band = max(int((size // 2 + 1) * (1 - percent / 100) ** 0.5), 1)
    maps, filters = _low(x, size, band), _low(weight, size, band).conj()
    by_group = maps.reshape(len(x), groups, -1, *maps.shape[2:]), filters.reshape(groups, -1, *filters.shape[1:])
    return _from_low(torch.einsum("bgihw,goihw->bgohw", *by_group).flatten(1, 2), size)


def _low(x: Tensor, size: int, band: int) -> Tensor:
    """The kept part of the spectrum, [..., rows, band]: at first the columns, so that less is left to transform."""
    columns = torch.fft.rfft(x, size, dim=-1)[..., :band]
    return torch.fft.fft(columns, size, dim=-2)[..., _rows(size, band, x.device), :]


def _from_low(spectrum: Tensor, size: int) -> Tensor:
    """Back from the kept part to [..., size, size], what was cropped being 0."""
    band = spectrum.shape[-1]
    whole = spectrum.new_zeros(*spectrum.shape[:-2], size, band)
    whole = whole.index_copy(-2, _rows(size, band, spectrum.device), spectrum)
    # One dimension after the other: of the column of frequency 0 the imaginary part is then left out by definition;
    # row -band has no positive partner there, and what a two-dimensional transform makes of that is not specified.
    return torch.fft.irfft(torch.fft.ifft(whole, dim=-2), size, dim=-1)


def _rows(size: int, band: int, device: torch.device) -> Tensor:
    """Numbers of the first and of the last `band` of `size` rows, each of them once."""
    last = torch.arange(max(size - band, band), size, device=device)
    return torch.cat([torch.arange(band, device=device), last])


def _check(layer: nn.Conv2d) -> None:
    if type(layer) is not nn.Conv2d:
        raise ValueError(f"cannot band-limit a {type(layer).__name__}; noise on weights goes around BandLimited")
    if layer.dilation != (1, 1):
        raise ValueError(f"dilation must be (1, 1) to band-limit a convolution, got {layer.dilation}")
