"""Noise layers against their formulas, in training and in evaluation.

Statistical tests run with fixed seeds; bounds are five standard errors, so that a single comparison has an error
probability of 6e-7 with another seed.
"""

import math

import pytest
import torch
from scipy import stats
from torch import Tensor

from defenses import Stream, drawing_from, frozen, silenced
from defenses.noise import (
    AbsoluteNoise,
    GaussianNoise,
    LaplaceNoise,
    Noise,
    ScaledNoise,
    SharedGaussianNoise,
    SharedScaledNoise,
    UniformNoise,
)
from defenses.randomness import normal_like

IMAGES, SIZE = 4, 10_000
# Of standard deviation 1: scipy's name and parameters, the kurtosis, and n times the variance of an estimate of it
# (delta method: E x^8 - 4 k E x^6 + 4 k^3 - k^2).
DISTRIBUTIONS: dict[type[AbsoluteNoise], tuple[str, tuple[float, ...], float, float]] = {
    GaussianNoise: ("norm", (0, 1), 3, 24),
    UniformNoise: ("uniform", (-(3**0.5), 2 * 3**0.5), 1.8, 9 - 7.2 * 27 / 7 + 4 * 1.8**3 - 1.8**2),
    LaplaceNoise: ("laplace", (0, 0.5**0.5), 6, 2520 - 24 * 90 + 4 * 6**3 - 36),
}
ABSOLUTE = [GaussianNoise, UniformNoise, LaplaceNoise, SharedGaussianNoise]


def correlation(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]).double())[0, 1])


def noise_of(noise: Noise, x: Tensor, seed: int = 0) -> Tensor:
    with drawing_from(Stream(seed)):
        return (noise(x) - x).detach()


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("kind", ABSOLUTE)
@pytest.mark.parametrize("std", [0.01, 0.2])
def test_noise_has_the_stated_level_in_both_modes(kind: type[AbsoluteNoise], std: float, training: bool) -> None:
    noise = kind(std).train(training)
    delta = noise_of(noise, torch.rand(IMAGES, SIZE, dtype=torch.float64))
    kurtosis = DISTRIBUTIONS.get(kind, DISTRIBUTIONS[GaussianNoise])[2]
    for part in delta:  # four images, two comparisons each
        assert abs(part.mean()) < 5 * std / SIZE**0.5
        assert abs(part.std() / std - 1) < 5 * ((kurtosis - 1) / 4 / SIZE) ** 0.5
    assert noise.level(delta) == std


@pytest.mark.parametrize("kind", DISTRIBUTIONS)
def test_noise_is_of_its_distribution(kind: type[AbsoluteNoise]) -> None:
    name, parameters, kurtosis, variance = DISTRIBUTIONS[kind]
    for dtype in (torch.float32, torch.float64):
        draws = noise_of(kind(0.5), torch.zeros(20, SIZE, dtype=dtype)).flatten().double().numpy() / 0.5
        assert stats.kstest(draws, name, args=parameters).pvalue > 1e-6  # which is its error probability
        assert abs(stats.kurtosis(draws, fisher=False) - kurtosis) < 5 * (variance / len(draws)) ** 0.5


@pytest.mark.parametrize("kind", DISTRIBUTIONS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bits_do_not_move_the_mean(kind: type[AbsoluteNoise], dtype: torch.dtype) -> None:
    draws = noise_of(kind(1.0), torch.zeros(20, SIZE, dtype=dtype))
    assert draws.dtype == dtype
    # Drawn in 8 bits, uniform noise would have a mean of -0.007.
    assert abs(draws.float().mean()) < 5 / draws.numel() ** 0.5


def test_no_laplace_draw_is_absurd() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            torch.Tensor,
            "uniform_",
            lambda draws, low, high, generator=None: draws.fill_(0.5).mul_(high - low).add_(low),
        )
        draw = LaplaceNoise(1.0).draw(torch.zeros(1))
    # What would be 0 is half a step of float32 away from it: log(2^24) / sqrt(2).
    assert draw.item() == pytest.approx(24 * math.log(2) / 2**0.5)


@pytest.mark.parametrize("kind", DISTRIBUTIONS)
def test_noise_keeps_the_memory_format_and_the_gradient(kind: type[AbsoluteNoise]) -> None:
    x = torch.rand(2, 3, 4, 5).contiguous(memory_format=torch.channels_last).requires_grad_()
    out = kind(0.1)(x)
    assert out.is_contiguous(memory_format=torch.channels_last)
    weight = torch.rand_like(x)
    (gradient,) = torch.autograd.grad((out * weight).sum(), x)
    assert torch.equal(gradient, weight)


@pytest.mark.parametrize("kind", DISTRIBUTIONS)
def test_images_share_a_draw_only_where_it_is_frozen(kind: type[AbsoluteNoise]) -> None:
    x = torch.zeros(2, 100)
    assert not torch.equal(*kind(0.1)(x))
    with frozen(Stream(0)):
        assert torch.equal(*kind(0.1)(x))


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("kind", [ScaledNoise, SharedScaledNoise])
def test_scaled_noise_is_alpha_times_the_deviation_of_its_input(kind: type[ScaledNoise], training: bool) -> None:
    x = 3 + 2 * torch.rand(IMAGES, SIZE, dtype=torch.float64)
    noise = kind(0.25).train(training)
    expected = 0.25 * float(x.std())
    for part in noise_of(noise, x):
        assert abs(part.mean()) < 5 * expected / SIZE**0.5
        assert abs(part.std() / expected - 1) < 5 / (2 * SIZE) ** 0.5
    with drawing_from(Stream(1)):
        sample = normal_like(x)
    torch.testing.assert_close(noise_of(noise, x, seed=1), expected * sample)
    assert noise.level(x) == pytest.approx(expected)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_elements_images_and_passes_are_independent(training: bool) -> None:
    noise = GaussianNoise(0.1).train(training)
    x = torch.zeros(IMAGES, SIZE)
    with drawing_from(Stream(0)):
        first, second = noise(x), noise(x)
    # 11 comparisons, together an error probability of 7e-6.
    assert abs(correlation(first, second)) < 5 / first.numel() ** 0.5
    for image, other in torch.combinations(torch.arange(IMAGES)).tolist():
        assert abs(correlation(first[image], first[other])) < 5 / SIZE**0.5
    for image in first:
        assert abs(correlation(image[:-1], image[1:])) < 5 / SIZE**0.5


def test_gradients_of_scaled_noise_take_the_deviation_as_a_constant() -> None:
    noise = ScaledNoise(0.25).double()
    x, weight = torch.rand(2, 50, dtype=torch.float64)
    x.requires_grad_()
    with drawing_from(Stream(4)):
        loss = (noise(x) * weight).sum()
    with drawing_from(Stream(4)):
        n = normal_like(x)
    by_x, by_alpha = torch.autograd.grad(loss, [x, noise.alpha])
    assert torch.equal(by_x, weight)
    torch.testing.assert_close(by_alpha, (weight * n * x.std()).sum().detach())


@pytest.mark.parametrize("noise", [*(kind(0.1) for kind in ABSOLUTE), ScaledNoise(), SharedScaledNoise()], ids=str)
def test_silence_is_exact_and_ends_with_its_block(noise: Noise) -> None:
    x = torch.rand(5, 5)
    with silenced():
        assert noise(x) is x
        with silenced():
            pass
        assert noise(x) is x
    assert not torch.equal(noise(x), x)


@pytest.mark.parametrize("kind", ABSOLUTE)
def test_level_0_draws_nothing(kind: type[AbsoluteNoise]) -> None:
    x = torch.rand(5, 5)
    before = torch.get_rng_state()
    assert kind(0)(x) is x
    assert torch.equal(torch.get_rng_state(), before)


def test_noise_says_what_it_is() -> None:
    assert [GaussianNoise(0.1).random, GaussianNoise(0).random, ScaledNoise(0).random] == [True, False, True]
    assert [GaussianNoise(0.1).shared, ScaledNoise().shared] == [False, False]
    assert [SharedGaussianNoise(0.1).shared, SharedScaledNoise().shared] == [True, True]
    assert [str(kind(0.1)) for kind in DISTRIBUTIONS] == [f"{kind.__name__}(std=0.1)" for kind in DISTRIBUTIONS]


@pytest.mark.parametrize("kind", [GaussianNoise, UniformNoise, LaplaceNoise, ScaledNoise])
@pytest.mark.parametrize("level", [-0.1, float("nan"), float("inf")])
def test_impossible_levels_are_refused(kind: type[Noise], level: float) -> None:
    with pytest.raises(ValueError, match=r"^(std|alpha) must be a finite number >= 0, got .*$"):
        kind(level)
