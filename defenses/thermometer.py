"""Thermometer encoding: pixels as rows of zeros and ones, through which no gradient comes."""

import torch
from torch import Tensor, nn

from defenses.channels import Channel, Defended


class ThermometerCode(Channel):
    """Values [B, C, H, W] -> bits [B, C * levels, H, W]: bit k of 1 to `levels` of a value v is 1 where v > k / levels.

    Buckman et al. 2018 (https://openreview.net/forum?id=S18Su--CW), with zeros and ones exchanged as in Athalye et
    al. 2018 (https://arxiv.org/abs/1802.00420): 0.66 at 10 levels is 1111110000. This channel alone changes the
    shape, so the network behind it reads nothing else. Where an attacker leaves it out or takes another channel for
    it, what comes out instead is therefore encoded, straight through.

    Args:
        levels: bits per value, >= 2; the last one is 0 for every value in [0, 1], as published.
    """

    differentiable = False

    def __init__(self, levels: int) -> None:
        super().__init__()
        if levels < 2 or levels != int(levels):
            raise ValueError(f"levels must be a whole number >= 2, got {levels}")
        self.levels = int(levels)

    def forward(self, x: Tensor) -> Tensor:
        """See `Channel`; images that are not encoded yet are."""
        answer = super().forward(x)
        return answer if answer.shape[1] == self.levels * x.shape[1] else self.straight_through(answer)

    def transform(self, x: Tensor) -> Tensor:
        """See the class."""
        return _in_rows((self._above(x) > 0).to(x.dtype), x)

    def straight_through(self, x: Tensor) -> Tensor:
        """The bits, with the derivative of min(max(v - k / levels, 0), 1), of which they are the ceiling (Athalye)."""
        soft = _in_rows(self._above(x).clamp(0, 1), x)
        return self.transform(x.detach()) + (soft - soft.detach())

    def _above(self, x: Tensor) -> Tensor:
        bits = torch.arange(1, self.levels + 1, dtype=x.dtype, device=x.device)
        return x.unsqueeze(2) - (bits / self.levels).view(-1, 1, 1)

    def extra_repr(self) -> str:
        """The setting, for `print(model)`."""
        return f"levels={self.levels}"


class Thermometer(Defended):
    """A network behind `ThermometerCode`, its first convolution widened to `levels` times as many channels.

    The widened kernel spreads each weight evenly over the bits of its colour: at first the network answers as it did
    to pixels rounded down to multiples of 1 / levels, and training sets the bits apart. Codes cannot be normalised,
    so wrap the network itself and not a `Normalized` one.

    Args:
        network: images [B, C, H, W] -> logits; its first convolution in order of definition is changed in place.
        levels: see `ThermometerCode`.

    Raises:
        ValueError: the network has no convolution, or its first one is grouped.
    """

    def __init__(self, network: nn.Module, levels: int) -> None:
        code = ThermometerCode(levels)
        _widen(network, code.levels)
        super().__init__(network, [code])


def _widen(network: nn.Module, times: int) -> None:
    first = next((layer for layer in network.modules() if isinstance(layer, nn.Conv2d)), None)
    if first is None or first.groups != 1:
        raise ValueError(f"{type(network).__name__} must begin with a convolution of one group to read codes")
    first.in_channels *= times
    first.weight = nn.Parameter(first.weight.detach().repeat_interleave(times, 1) / times)


def _in_rows(codes: Tensor, x: Tensor) -> Tensor:
    """[B, C, levels, H, W] -> [B, C * levels, H, W], in the memory format of `x` [B, C, H, W]."""
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return codes.flatten(1, 2).contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
