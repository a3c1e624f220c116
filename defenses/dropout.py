"""Dropout that stays on at test time: of pixels, and of features in the network."""

import torch
from torch import Tensor, nn

from defenses.channels import Channel
from defenses.noise import Noise
from defenses.noisy import Noisy, add_input_noise
from defenses.randomness import drawn_for, is_silenced, uniform_like


class InputDropout(Channel):
    """Each pixel is black with a probability of `rate`, all colours of it; nothing is scaled up.

    Drawn for each image and pixel. The derivative is exact.

    Args:
        rate: in [0, 1).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = _rate(rate)
        self.random = rate > 0

    def transform(self, x: Tensor) -> Tensor:
        """See `Channel`."""
        return x * _kept(drawn_for(x)[:, :1], self.rate) if self.random and not is_silenced() else x

    def extra_repr(self) -> str:
        """The setting, for `print(model)`."""
        return f"rate={self.rate}"


class DropoutNoise(Noise):
    """Each element is 0 with a probability of `rate`, the others are divided by 1 - rate; drawn for each image.

    Unlike `nn.Dropout` it is on in evaluation, too. Before every inner convolution: `RobustNet(network,
    init=DropoutNoise(0), inner=DropoutNoise(0.1))`. Stochastic activation pruning (Dhillon et al. 2018,
    https://arxiv.org/abs/1803.01442) is its kin, which rather drops the small activations.

    Args:
        rate: in [0, 1).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = _rate(rate)
        self.random = rate > 0

    def perturb(self, x: Tensor) -> Tensor:
        """`x` with a fresh draw."""
        return x * _kept(drawn_for(x), self.rate) / (1 - self.rate)

    def level(self, x: Tensor) -> float:
        """See `Noise`; over all elements."""
        return float((self.rate / (1 - self.rate) * x.detach().square().mean()).sqrt())

    def extra_repr(self) -> str:
        """The level, for `print(model)`."""
        return f"rate={self.rate}"


class DropoutNet(Noisy):
    """`DropoutNoise` before the last linear layer in order of definition, in training and at test time.

    Args:
        network: any network with a linear layer; it is changed in place.
        rate: see `DropoutNoise`.

    Raises:
        ValueError: the network has no linear layer.
    """

    def __init__(self, network: nn.Module, rate: float) -> None:
        super().__init__(network)
        layers = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
        if not layers:
            raise ValueError(f"{type(network).__name__} has no Linear layer to put dropout before")
        add_input_noise(layers[-1], DropoutNoise(rate))


def _rate(rate: float) -> float:
    if not 0 <= rate < 1:
        raise ValueError(f"rate must lie in [0, 1), got {rate}")
    return rate


def _kept(like: Tensor, rate: float) -> Tensor:
    """True with a probability of 1 - rate, independent per element of `like`."""
    # Drawn in float32: in half precision a draw has few values.
    return uniform_like(torch.empty_like(like, dtype=torch.float32)) >= rate
