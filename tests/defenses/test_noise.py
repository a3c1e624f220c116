"""Noise layers against their formulas, in training and in evaluation.

Statistical tests run with fixed seeds; bounds are five standard errors, so that a single comparison has an error
probability of 6e-7 with another seed.
"""

import pytest
import torch
from torch import Tensor

from defenses import (
    GaussianNoise,
    Noise,
    ScaledNoise,
    SharedGaussianNoise,
    SharedScaledNoise,
    Stream,
    drawing_from,
    silenced,
)
from defenses.randomness import normal_like

IMAGES, SIZE = 4, 10_000


def correlation(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]).double())[0, 1])


def noise_of(noise: Noise, x: Tensor, seed: int = 0) -> Tensor:
    with drawing_from(Stream(seed)):
        return (noise(x) - x).detach()


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("kind", [GaussianNoise, SharedGaussianNoise])
@pytest.mark.parametrize("std", [0.01, 0.2])
def test_gaussian_noise_has_the_stated_level_in_both_modes(
    kind: type[GaussianNoise], std: float, training: bool
) -> None:
    delta = noise_of(kind(std).train(training), torch.rand(IMAGES, SIZE, dtype=torch.float64))
    for part in delta:  # four images, two comparisons each
        assert abs(part.mean()) < 5 * std / SIZE**0.5
        assert abs(part.std() / std - 1) < 5 / (2 * SIZE) ** 0.5


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


def test_the_gradient_passes_gaussian_noise_unchanged() -> None:
    x = torch.rand(3, 4, requires_grad=True)
    weight = torch.rand(3, 4)
    (gradient,) = torch.autograd.grad((GaussianNoise(0.3)(x) * weight).sum(), x)
    assert torch.equal(gradient, weight)


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


@pytest.mark.parametrize("noise", [GaussianNoise(0.1), ScaledNoise(), SharedGaussianNoise(0.1), SharedScaledNoise()])
def test_silence_is_exact_and_ends_with_its_block(noise: Noise) -> None:
    x = torch.rand(5, 5)
    with silenced():
        assert noise(x) is x
        with silenced():
            pass
        assert noise(x) is x
    assert not torch.equal(noise(x), x)


@pytest.mark.parametrize("kind", [GaussianNoise, SharedGaussianNoise])
def test_level_0_draws_nothing(kind: type[GaussianNoise]) -> None:
    x = torch.rand(5, 5)
    before = torch.get_rng_state()
    assert kind(0)(x) is x
    assert torch.equal(torch.get_rng_state(), before)


def test_noise_says_what_it_is() -> None:
    assert [GaussianNoise(0.1).random, GaussianNoise(0).random, ScaledNoise(0).random] == [True, False, True]
    assert [GaussianNoise(0.1).shared, ScaledNoise().shared] == [False, False]
    assert [SharedGaussianNoise(0.1).shared, SharedScaledNoise().shared] == [True, True]
    assert repr(GaussianNoise(0.1)) == "GaussianNoise(std=0.1)"


@pytest.mark.parametrize("kind", [GaussianNoise, ScaledNoise])
@pytest.mark.parametrize("level", [-0.1, float("nan"), float("inf")])
def test_impossible_levels_are_refused(kind: type[Noise], level: float) -> None:
    with pytest.raises(ValueError, match=r"^(std|alpha) must be a finite number >= 0, got .*$"):
        kind(level)
