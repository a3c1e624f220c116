"""The guide's numbers against tensors that are known, and the network as it was before."""

import copy

import pytest
import torch
from torch import nn

from analysis.noise_guide import Row, noise_guide, table
from defenses import Defended, Gauss, GaussianNoise, ParamNet, PNIActivations, PNIWeights, RobustNet
from defenses.learned_noise import LearnedNoise, RunningScaledNoise
from models import ResNet20


def linear_layers() -> nn.Sequential:
    """Two convolutions that multiply by 2 and by 3."""
    first, second = nn.Conv2d(3, 3, 1, bias=False), nn.Conv2d(3, 3, 1, bias=False)
    nn.init.dirac_(first.weight)
    nn.init.dirac_(second.weight)
    first.weight.data *= 2
    second.weight.data *= 3
    return nn.Sequential(first, second, nn.Flatten(), nn.Linear(48, 2))


def test_rows_have_the_deviation_of_the_input_and_the_level_of_its_noise() -> None:
    x = torch.rand(8, 3, 4, 4)
    std = float(x.std())
    assert noise_guide(linear_layers(), x) == [("0", pytest.approx(std), None), ("1", pytest.approx(2 * std), None)]
    noisy = RobustNet(linear_layers(), GaussianNoise(0.2), LearnedNoise(0.3))
    rows = [("network.0", pytest.approx(std), 0.2), ("network.1", pytest.approx(2 * std), pytest.approx(0.3))]
    assert noise_guide(noisy, x) == rows


def test_relative_noise_is_told_in_the_units_of_the_tensor() -> None:
    x = torch.rand(8, 3, 4, 4)
    rows = noise_guide(PNIActivations(linear_layers(), 0.5), x)
    assert [row.layer for row in rows] == ["network.0", "network.1", "network.3"]
    assert [row.level for row in rows] == pytest.approx([0.5 * row.std for row in rows])
    running = RobustNet(linear_layers(), RunningScaledNoise(0.5), GaussianNoise(0))
    running(10 * x)
    assert [row.level for row in noise_guide(running, x)] == [pytest.approx(5 * float(x.std())), None]


def test_noisy_parameters_have_rows() -> None:
    network = PNIWeights(linear_layers(), 0.5)
    rows = noise_guide(network, torch.rand(8, 3, 4, 4))
    assert [row.layer for row in rows[:3]] == [f"network.{layer}.weight" for layer in (0, 1, 3)]
    std = float(network.get_parameter("network.3.parametrizations.weight.original").detach().std())
    assert rows[2] == (rows[2].layer, pytest.approx(std), pytest.approx(0.5 * std))
    assert len(noise_guide(ParamNet(linear_layers(), 0.01), torch.rand(8, 3, 4, 4))) == 4 + 2


def test_no_trace_is_left_and_nothing_is_drawn() -> None:
    network = Defended(RobustNet(ResNet20(), inner=RunningScaledNoise(0.1)), [Gauss(0.1)]).train()
    x = torch.rand(4, 3, 8, 8)
    before, state = copy.deepcopy(network), torch.get_rng_state()
    rows = noise_guide(network, x)
    assert noise_guide(network, x) == rows
    assert len(rows) == 19
    assert torch.equal(torch.get_rng_state(), state)
    assert all(part.training for part in network.modules())
    for part, old in zip(network.modules(), before.modules(), strict=True):
        assert len(part._forward_pre_hooks) == len(old._forward_pre_hooks)
    for value, old_value in zip(network.state_dict().values(), before.state_dict().values(), strict=True):
        assert torch.equal(value, old_value)


def test_the_table_is_aligned() -> None:
    assert table([Row("conv1", 0.25, 0.2), Row("layer1.0.conv1", 0.5, None)]).splitlines() == [
        "tensor             std   noise  noise / std %",
        "--------------  ------  ------  -------------",
        "conv1           0.2500  0.2000           80.0",
        "layer1.0.conv1  0.5000       -              -",
    ]
