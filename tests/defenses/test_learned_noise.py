"""Noise that finds its own level: its distribution, its gradients, its running scale. Bounds as in test_noise.py."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from defenses import Noise, RobustNet, Stream, drawing_from, frozen, is_random, silenced
from defenses.learned_noise import LearnedNoise, RunningScaledNoise
from defenses.randomness import normal_like
from lightning_modules import parameter_groups
from models import ResNet20

BOTH = [LearnedNoise(0.25), RunningScaledNoise(0.25)]
both = pytest.mark.parametrize("noise", BOTH, ids=lambda noise: type(noise).__name__)
both_modes = pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])


def batches(count: int) -> Tensor:
    """Each of another mean and deviation."""
    sizes = torch.linspace(0.5, 4, count, dtype=torch.float64).view(-1, 1, 1, 1, 1)
    return 3 + sizes * torch.rand(count, 4, 2, 8, 8, dtype=torch.float64)


@both
@both_modes
def test_noise_is_the_level_times_a_normal_draw_in_both_modes(noise: Noise, training: bool) -> None:
    noise = copy.deepcopy(noise).double().train(training)
    x = batches(1)[0]
    with drawing_from(Stream(0)):
        out = noise(x)
    with drawing_from(Stream(0)):
        torch.testing.assert_close(out, x + noise.level(x) * normal_like(x))


@both
def test_noise_is_fresh_for_every_image_and_pass_and_gone_in_silence(noise: Noise) -> None:
    noise = copy.deepcopy(noise).eval()
    x = torch.zeros(2, 10_000)
    with drawing_from(Stream(0)):
        first, second = noise(x).detach(), noise(x).detach()
    for draw in (*first, *second):
        assert abs(draw.std() / 0.25 - 1) < 5 / 20_000**0.5  # five standard errors: error probability 6e-7
    pairs = torch.corrcoef(torch.stack([*first, *second])).fill_diagonal_(0)
    assert pairs.abs().max() < 5 / 100
    with silenced():
        assert noise(x) is x
    with frozen(Stream(0)):
        assert torch.equal(*noise(x))
    assert (noise.random, noise.shared) == (True, False)


@both
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_dtype_and_memory_format_stay(noise: Noise, dtype: torch.dtype) -> None:
    x = torch.rand(2, 3, 4, 5, dtype=dtype).contiguous(memory_format=torch.channels_last)
    out = copy.deepcopy(noise).train()(x)
    assert out.dtype == dtype
    assert out.is_contiguous(memory_format=torch.channels_last)


def test_the_gradient_to_the_scale_is_the_sum_of_gradient_times_draw() -> None:
    noise = LearnedNoise(0.25).double()
    x, weight = torch.rand(2, 3, 50, dtype=torch.float64)
    x.requires_grad_()
    with drawing_from(Stream(4)):
        loss = (noise(x) * weight).sum()
    with drawing_from(Stream(4)):
        n = normal_like(x)
    by_x, by_scale = torch.autograd.grad(loss, [x, noise.scale])
    assert torch.equal(by_x, weight)
    torch.testing.assert_close(by_scale, (weight * n).sum())


def test_a_loss_that_noise_spoils_shrinks_the_scale() -> None:
    noise, target = LearnedNoise(0.25), torch.zeros(64, 32)
    optimiser = torch.optim.SGD(noise.parameters(), lr=0.1)
    with drawing_from(Stream(0)):
        for _ in range(50):
            optimiser.zero_grad()
            nn.functional.mse_loss(noise(target), target).backward()
            optimiser.step()
    # Expected: 0.25 (1 - 2 * 0.1)^50, that is 4e-6.
    assert noise.level(target) < 0.0025


def test_learned_scales_are_one_a_layer_and_do_not_decay() -> None:
    network = RobustNet(ResNet20(), LearnedNoise(0.2), LearnedNoise(0.1))
    _, free = parameter_groups(network, 3e-4)
    assert [float(parameter.detach()) for parameter in free["params"]] == pytest.approx([0.2] + [0.1] * 18)
    assert free["weight_decay"] == 0
    assert is_random(network)
    assert network.noise_levels == {"init": None, "inner": None}


@pytest.mark.parametrize("momentum", [0.1, 0.5, 1.0])
def test_the_running_scale_is_that_of_the_batches_shown(momentum: float) -> None:
    noise, shown = RunningScaledNoise(0.5, momentum).double(), batches(6)
    for batch in shown:
        noise(batch)
    variances = [np.var(batch.numpy(), ddof=1) for batch in shown]
    weights = [(1 - momentum) ** 5, *(momentum * (1 - momentum) ** (5 - k) for k in range(1, 6))]
    assert sum(weights) == pytest.approx(1)
    assert noise.level(shown[0]) == pytest.approx(0.5 * np.dot(weights, variances) ** 0.5, rel=1e-12)


def test_the_running_scale_is_frozen_in_eval_mode_and_counted_in_silence() -> None:
    noise, (first, second) = RunningScaledNoise(0.5).double(), batches(2)
    assert noise.eval().level(first) == 0.5
    noise(first)
    assert noise.level(first) == 0.5
    with silenced():
        assert noise.train()(first) is first
    level = noise.level(first)
    assert level == pytest.approx(0.5 * float(first.std()))
    noise.eval()(second)
    assert noise.level(second) == level


def test_gradients_do_not_pass_to_the_running_scale() -> None:
    noise = RunningScaledNoise(0.5).double()
    x = batches(1)[0].requires_grad_()
    weight = torch.rand_like(x)
    (gradient,) = torch.autograd.grad((noise(x) * weight).sum(), x)
    assert torch.equal(gradient, weight)
    assert not list(noise.parameters())


def test_the_running_scale_is_saved_and_copied() -> None:
    noise, batch = RunningScaledNoise(0.5), batches(1)[0].float()
    noise(batch)
    loaded = RunningScaledNoise(0.5)
    loaded.load_state_dict(noise.state_dict())
    copied = copy.deepcopy(noise)
    assert loaded.level(batch) == copied.level(batch) == noise.level(batch)
    noise(10 * batch)
    assert loaded.level(batch) == copied.level(batch) != noise.level(batch)
    loaded(10 * batch)  # the second batch of a run that goes on, not a first one
    assert loaded.level(batch) == noise.level(batch)


def test_level_0_draws_nothing_but_is_learned_where_it_is_learned() -> None:
    x = torch.rand(5, 5)
    before = torch.get_rng_state()
    assert RunningScaledNoise(0)(x) is x
    assert torch.equal(torch.get_rng_state(), before)
    assert [LearnedNoise(0).random, RunningScaledNoise(0).random] == [True, False]


def test_the_level_is_printed() -> None:
    assert [str(noise) for noise in BOTH] == [
        "LearnedNoise(scale=0.25)",
        "RunningScaledNoise(ratio=0.25, momentum=0.1)",
    ]


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (LearnedNoise, {"std": -0.1}, "std must be a finite number >= 0, got -0.1"),
        (RunningScaledNoise, {"ratio": float("nan")}, "ratio must be a finite number >= 0, got nan"),
        (RunningScaledNoise, {"momentum": 0.0}, r"momentum must lie in \(0, 1\], got 0.0"),
        (RunningScaledNoise, {"momentum": 1.1}, r"momentum must lie in \(0, 1\], got 1.1"),
    ],
)
def test_impossible_settings_are_refused(kind: type[Noise], arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        kind(**arguments)
