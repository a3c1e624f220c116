"""Noise channels: their distributions, the papers' scale, when they are silent.

Statistical tests run with fixed seeds; the probability stated with each is that of failing with another seed.
"""

import pytest
import torch
from scipy import stats
from torch import Tensor

from defenses import (
    Channel,
    Gauss,
    Laplace,
    PapersGauss,
    PapersLaplace,
    PapersUniform,
    Stream,
    Uniform,
    drawing_from,
    is_random,
    silenced,
)
from defenses.randomness import frozen

NOISE: dict[type[Channel], tuple[str, tuple[float, ...], float]] = {
    # With standard deviation 0.1: scipy's name and its parameters; the fourth moment in std^4.
    Gauss: ("norm", (0, 0.1), 3),
    Uniform: ("uniform", (-0.1 * 3**0.5, 0.2 * 3**0.5), 9 / 5),
    Laplace: ("laplace", (0, 0.1 / 2**0.5), 6),
}
CIFAR10 = (3, 32, 32)
# The papers' table: channel, declared range in pixels, its standard deviation and expected L2 there, as printed.
PAPERS = [
    (PapersGauss, 0.03, 1.0, 0.01732, 0.96),
    (PapersUniform, 0.04, 1.0, 0.02309, 1.28),
    (PapersUniform, 0.03, 1.0, 0.01732, 0.96),
    (PapersLaplace, 0.03, 1.0, 0.02449, 1.36),
    (PapersGauss, 0.03, 5.5 * 0.2009, 0.0191, 1.06),
    (PapersUniform, 0.04, 5.5 * 0.2009, 0.0255, 1.41),
    (PapersUniform, 0.03, 5.5 * 0.2009, 0.0191, 1.06),
    (PapersLaplace, 0.03, 5.5 * 0.2009, 0.0271, 1.50),
]

every_noise = pytest.mark.parametrize("kind", NOISE)


def noise_of(channel: Channel, *shape: int) -> Tensor:
    x = torch.full(shape, 0.5, dtype=torch.float64)
    with drawing_from(Stream(0)):
        return channel(x) - x


@every_noise
def test_noise_is_of_its_distribution(kind: type[Channel]) -> None:
    noise = noise_of(kind(0.1), 4, 1, 100, 100).flatten()
    name, parameters, _ = NOISE[kind]
    # Error probability 1e-6.
    assert stats.kstest(noise.numpy(), name, args=parameters).pvalue > 1e-6


@every_noise
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_mean_deviation_and_distance_are_what_the_name_says(kind: type[Channel], dtype: torch.dtype) -> None:
    images, std = 100, 0.1
    x = torch.full((images, *CIFAR10), 0.5, dtype=dtype)
    with drawing_from(Stream(1)):
        noise = (kind(std)(x) - x).double()
    # Five standard errors each: error probability 6e-7 (the fourth moment of float32 noise is that of the law).
    of_mean, of_variance = (1 / noise.numel()) ** 0.5, ((NOISE[kind][2] - 1) / noise.numel()) ** 0.5
    assert abs(float(noise.mean())) / std < 5 * of_mean
    assert abs(float(noise.square().mean()) / std**2 - 1) < 5 * of_variance
    squares = noise.flatten(1).square().sum(dim=1)
    expected = kind(std).expected_l2(CIFAR10)
    assert expected == pytest.approx(std * 3072**0.5)
    assert float(squares.mean()) == pytest.approx(expected**2, rel=5 * of_variance)


@every_noise
def test_pixels_and_images_have_noise_of_their_own(kind: type[Channel]) -> None:
    noise = noise_of(kind(0.1), 2, 2, 100, 100).flatten(2) / 0.1
    rows = noise.flatten(0, 1)
    products = [rows[0] * rows[2], rows[0] * rows[1], rows[0, 1:] * rows[0, :-1]]
    # Images, colours, neighbours at five standard errors: error probability 2e-6.
    assert all(abs(float(product.mean())) < 5 / 9999**0.5 for product in products)


@pytest.mark.parametrize(("kind", "sigma", "bounds_range", "std", "l2"), PAPERS)
def test_the_papers_scale_gives_the_papers_table(
    kind: type[Channel], sigma: float, bounds_range: float, std: float, l2: float
) -> None:
    channel = kind(sigma, bounds_range=bounds_range)
    assert channel.std == pytest.approx(std, abs=5e-5)
    assert channel.expected_l2(CIFAR10) == pytest.approx(l2, abs=5e-3)
    measured = noise_of(channel, 50, *CIFAR10).flatten(1).square().sum(dim=1).mean()
    # Five standard errors of the widest law: error probability 6e-7.
    assert float(measured) ** 0.5 == pytest.approx(channel.expected_l2(CIFAR10), rel=2.5 * (5 / 50 / 3072) ** 0.5)


def test_the_papers_uniform_noise_has_the_half_width_of_its_name() -> None:
    noise = noise_of(PapersUniform(0.04, bounds_range=2), 10, *CIFAR10)
    # The largest of 30,720 draws lies within 0.05 % of the edge, but with probability 2e-7.
    assert 0.9995 * 0.08 < float(noise.abs().max()) <= 0.08 + 1e-12


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_coarse_types_get_the_laplace_draws_of_float32_rounded(dtype: torch.dtype) -> None:
    with drawing_from(Stream(0)):
        coarse = Laplace(1.0)(torch.zeros(1, 1, 500, 500, dtype=dtype))
    with drawing_from(Stream(0)):
        fine = Laplace(1.0)(torch.zeros(1, 1, 500, 500))
    assert coarse.isfinite().all()
    assert torch.equal(coarse, fine.to(dtype))


@every_noise
def test_noise_is_fresh_unless_silenced_and_absent_at_level_0(kind: type[Channel]) -> None:
    x = torch.rand(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    before, channel = x.clone(), kind(0.1).eval()
    with drawing_from(Stream(0)):
        first, second = channel(x), channel(x)
    assert not torch.equal(first, second)
    assert (first.shape, first.dtype, first.stride()) == (x.shape, x.dtype, x.stride())
    assert is_random(channel)
    assert not is_random(kind(0.0))
    assert torch.equal(kind(0.0)(x), x)
    with silenced():
        assert torch.equal(channel(x), x)
    assert torch.equal(x, before)


@every_noise
def test_a_frozen_draw_is_the_same_for_all_images(kind: type[Channel]) -> None:
    x = torch.rand(3, 3, 4, 4, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    with frozen(Stream(0)):
        y = kind(0.1)(x)
    torch.testing.assert_close((y - x)[1:], (y - x)[:1].expand(2, -1, -1, -1))
    assert y.stride() == x.stride()


@every_noise
def test_the_exact_gradient_is_the_identity(kind: type[Channel]) -> None:
    x = torch.rand(2, 1, 3, 3, requires_grad=True)
    weight = torch.rand_like(x)
    (gradient,) = torch.autograd.grad((kind(0.1)(x) * weight).sum(), x)
    assert torch.equal(gradient, weight)


@every_noise
@pytest.mark.parametrize("std", [-0.1, float("nan"), float("inf")])
def test_impossible_levels_are_refused(kind: type[Channel], std: float) -> None:
    with pytest.raises(ValueError, match=f"^std must be a finite number >= 0, got {std}$"):
        kind(std)


@pytest.mark.parametrize("kind", [PapersGauss, PapersUniform, PapersLaplace])
@pytest.mark.parametrize(
    ("sigma", "bounds_range", "message"),
    [
        (-0.1, 1.0, "sigma must be a finite number >= 0, got -0.1"),
        (float("nan"), 1.0, "sigma must be a finite number >= 0, got nan"),
        (0.1, 0.0, "bounds_range must be a finite number > 0, got 0.0"),
        (0.1, float("inf"), "bounds_range must be a finite number > 0, got inf"),
    ],
)
def test_impossible_scales_are_refused(kind: type[Channel], sigma: float, bounds_range: float, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        kind(sigma, bounds_range=bounds_range)
