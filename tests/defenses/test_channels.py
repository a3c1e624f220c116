"""Channels: what they do to pixels, what their gradients are, how they stand in a model."""

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from defenses import (
    Channel,
    ColourDepth,
    Defended,
    Gauss,
    Identity,
    Laplace,
    Stream,
    Uniform,
    drawing_from,
    is_random,
    silenced,
    standing_in,
)

NOISE: dict[type[Channel], tuple[str, tuple[float, ...]]] = {
    # With standard deviation 0.1: scipy's name and its parameters.
    Gauss: ("norm", (0, 0.1)),
    Uniform: ("uniform", (-0.1 * 3**0.5, 0.2 * 3**0.5)),
    Laplace: ("laplace", (0, 0.1 / 2**0.5)),
}


@pytest.mark.parametrize("bits", range(1, 9))
def test_colour_depth_has_as_many_values_as_its_bits_say(bits: int) -> None:
    x = torch.linspace(0, 1, 100_001, dtype=torch.float64).view(1, 1, 1, -1)
    y = ColourDepth(bits)(x)
    assert len(y.unique()) == 2**bits
    assert (y.min(), y.max()) == (0, 1)
    assert (y - x).abs().max() <= 0.5 / (2**bits - 1) + 1e-12
    assert torch.equal(ColourDepth(bits)(y), y)


def test_eight_bits_are_those_of_a_file() -> None:
    x = torch.arange(256, dtype=torch.float64).view(1, 1, 16, 16) / 255
    torch.testing.assert_close(ColourDepth(8)(x), x)


@pytest.mark.parametrize("kind", NOISE)
def test_noise_is_of_its_distribution(kind: type[Channel]) -> None:
    x = torch.full((4, 1, 100, 100), 0.5, dtype=torch.float64)
    with drawing_from(Stream(0)):
        noise = (kind(0.1)(x) - x).flatten()
    name, parameters = NOISE[kind]
    # Error probability 1e-6.
    assert stats.kstest(noise.numpy(), name, args=parameters).pvalue > 1e-6
    # Five standard errors; the largest fourth moment is that of Laplace, 6 std^4.
    assert abs(float(noise.std()) / 0.1 - 1) < 5 * (5 / 4 / len(noise)) ** 0.5


@pytest.mark.parametrize("kind", NOISE)
def test_noise_is_fresh_unless_silenced_and_absent_at_level_0(kind: type[Channel]) -> None:
    x = torch.rand(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    channel = kind(0.1).eval()
    with drawing_from(Stream(0)):
        first, second = channel(x), channel(x)
    assert not torch.equal(first, second)
    assert (first.shape, first.dtype) == (x.shape, x.dtype)
    assert is_random(channel)
    assert not is_random(kind(0.0))
    assert torch.equal(kind(0.0)(x), x)
    with silenced():
        assert torch.equal(channel(x), x)


@pytest.mark.parametrize("channel", [Identity(), Gauss(0.1), Uniform(0.1), Laplace(0.1)], ids=str)
def test_the_exact_gradient_of_additive_noise_is_the_identity(channel: Channel) -> None:
    x = torch.rand(2, 1, 3, 3, requires_grad=True)
    weight = torch.rand_like(x)
    (gradient,) = torch.autograd.grad((channel(x) * weight).sum(), x)
    assert torch.equal(gradient, weight)


def test_rounding_has_no_gradient_but_straight_through() -> None:
    x = torch.rand(2, 1, 3, 3, requires_grad=True)
    weight, channel = torch.rand_like(x), ColourDepth(3)
    (gradient,) = torch.autograd.grad((channel(x) * weight).sum(), x)
    assert not gradient.any()
    through = channel.straight_through(x)
    assert torch.equal(through, channel(x))
    # Of a nonlinear function, the gradient is taken behind the channel.
    (gradient,) = torch.autograd.grad((through**3 * weight).sum(), x)
    torch.testing.assert_close(gradient, 3 * channel(x).detach() ** 2 * weight)


def test_channels_are_passed_in_order_and_can_be_stood_in_for() -> None:
    class Times(Channel):
        def __init__(self, factor: float) -> None:
            super().__init__()
            self.factor = factor

        def transform(self, x: Tensor) -> Tensor:
            return x * self.factor

    model = Defended(nn.Flatten(), [ColourDepth(1), Times(0.25)])
    x = torch.full((1, 1, 1, 1), 0.7)
    assert model(x).item() == 0.25
    with standing_in(lambda channel, images: images + 1):
        assert model(x).item() == pytest.approx(2.7)
    assert model(x).item() == 0.25
    assert model.network is model.get_submodule("network")


@pytest.mark.parametrize("bits", [0, 9, 1.5, -1])
def test_impossible_bits_are_refused(bits: int) -> None:
    with pytest.raises(ValueError, match=f"^bits must be a whole number from 1 to 8, got {bits}$"):
        ColourDepth(bits)


@pytest.mark.parametrize("kind", NOISE)
@pytest.mark.parametrize("std", [-0.1, float("nan"), float("inf")])
def test_impossible_levels_are_refused(kind: type[Channel], std: float) -> None:
    with pytest.raises(ValueError, match=f"^std must be a finite number >= 0, got {std}$"):
        kind(std)
