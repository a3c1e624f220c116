"""Where each defense puts its noise, what it does there, and that silence gives the plain network back."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from defenses import (
    GaussianNoise,
    Noise,
    Noisy,
    ParamNet,
    PNIActivations,
    PNIWeights,
    RobustNet,
    ScaledNoise,
    Stream,
    add_input_noise,
    drawing_from,
    has_shared_draws,
    is_random,
    silenced,
)
from defenses.depth import Depth
from defenses.noise import AbsoluteNoise, UniformNoise
from defenses.randomness import normal_like
from models import VGG16, Normalized, ResNet18, ResNet20, ResNet50

DEFENSES: dict[str, Callable[[nn.Module], Noisy]] = {
    "RobustNet": RobustNet,
    "PNIWeights": PNIWeights,
    "PNIActivations": PNIActivations,
    "ParamNet": ParamNet,
}
ON_WEIGHTS = ("PNIWeights", "ParamNet")

every_defense = pytest.mark.parametrize("name", DEFENSES)
both_modes = pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])


def images(batch: int = 4) -> Tensor:
    return torch.rand(batch, 3, 8, 8)


def noisy_layers(network: nn.Module) -> list[str]:
    return [name.removesuffix(".input_noise") for name, part in network.named_modules() if isinstance(part, Noise)]


@every_defense
@both_modes
def test_silence_gives_the_plain_network_and_only_silence_does(name: str, training: bool) -> None:
    plain = ResNet20().train(training)
    noisy = DEFENSES[name](copy.deepcopy(plain)).train(training)
    x = images()
    expected = plain(x)
    with silenced():
        assert torch.equal(noisy(x), expected)
    assert (is_random(noisy), has_shared_draws(noisy)) == (True, name in ON_WEIGHTS)
    first, second = noisy(x), noisy(x)
    assert not torch.allclose(first, expected)
    assert not torch.allclose(first, second)


@every_defense
def test_a_stream_fixes_the_logits(name: str) -> None:
    noisy = DEFENSES[name](ResNet20()).eval()
    x = images()
    with drawing_from(Stream(1)):
        first = noisy(x)
    with drawing_from(Stream(1)):
        assert torch.equal(noisy(x), first)


@every_defense
def test_copies_of_an_image_share_a_draw_only_of_the_weights(name: str) -> None:
    noisy = DEFENSES[name](ResNet20()).eval()
    logits = noisy(images(1).expand(4, -1, -1, -1))
    same = [torch.allclose(logits[0], other, rtol=1e-4, atol=1e-4) for other in logits[1:]]
    assert same == [name in ON_WEIGHTS] * 3


@every_defense
def test_running_statistics_are_not_noisy(name: str) -> None:
    noisy = DEFENSES[name](ResNet20()).eval()
    before = {key: value.clone() for key, value in noisy.state_dict().items()}
    noisy(images())
    after = noisy.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in before)


@every_defense
def test_a_copy_has_noise_of_its_own(name: str) -> None:
    original = DEFENSES[name](ResNet20()).eval()
    copied = copy.deepcopy(original)
    levels = [part for part in copied.modules() if isinstance(part, Noise)]
    assert levels
    assert not {id(part) for part in levels} & {id(part) for part in original.modules()}
    for part in levels:
        part.random = False
    x = images()
    with silenced():
        expected = original(x)
    assert torch.equal(copied(x), expected)
    assert not torch.allclose(original(x), expected)


def test_init_noise_is_on_the_image_itself() -> None:
    conv = nn.Conv2d(3, 3, 1, bias=False)
    nn.init.dirac_(conv.weight)
    x = images()
    with drawing_from(Stream(1)):
        out = RobustNet(conv, init=GaussianNoise(0.2))(x)
    with drawing_from(Stream(1)):
        expected = x + 0.2 * normal_like(x)
    torch.testing.assert_close(out, expected)


def test_init_noise_inside_a_normalised_network_is_in_its_units() -> None:
    conv = nn.Conv2d(3, 3, 1, bias=False)
    nn.init.dirac_(conv.weight)
    network = Normalized(conv, [0.5] * 3, [0.25] * 3)
    x = images()
    with drawing_from(Stream(1)):
        out = RobustNet(network, init=GaussianNoise(0.2))(x)
    with drawing_from(Stream(1)):
        expected = (x - 0.5) / 0.25 + 0.2 * normal_like(x)
    torch.testing.assert_close(out, expected)


@pytest.mark.parametrize(
    ("build", "convolutions", "first"),
    [
        (ResNet20, 19, "conv1"),
        (ResNet18, 17, "conv1"),  # 20 with the three on skip paths
        (ResNet50, 49, "conv1"),  # 53 with four
        (VGG16, 13, "features.0"),
        (lambda: Normalized(ResNet20(), [0.5] * 3, [0.25] * 3), 19, "network.conv1"),
    ],
    ids=["resnet20", "resnet18", "resnet50", "vgg16", "normalized"],
)
def test_robustnet_puts_noise_before_every_convolution_but_those_on_skip_paths(
    build: Callable[[], nn.Module], convolutions: int, first: str
) -> None:
    network = build()
    expected = [
        name for name, part in network.named_modules() if isinstance(part, nn.Conv2d) and "downsample" not in name
    ]
    RobustNet(network, GaussianNoise(0.2), GaussianNoise(0.1))
    assert len(expected) == convolutions
    assert noisy_layers(network) == expected
    assert expected[0] == first
    parts = [network.get_submodule(f"{name}.input_noise") for name in expected]
    assert [part.std for part in parts] == [0.2] + [0.1] * (convolutions - 1)
    assert len({id(part) for part in parts}) == convolutions


def test_skip_paths_can_be_made_noisy() -> None:
    network = ResNet18()
    RobustNet(network, skip_paths=())
    assert len(noisy_layers(network)) == 20


def test_inner_level_0_is_noise_on_the_image_and_nowhere_else() -> None:
    plain = ResNet20().eval()
    noisy = RobustNet(copy.deepcopy(plain), GaussianNoise(0.2), GaussianNoise(0.0)).eval()
    x = images()
    with drawing_from(Stream(1)):
        out = noisy(x)
    with drawing_from(Stream(1)):
        assert torch.equal(out, plain(x + normal_like(x, 0.2)))


def test_robustnet_says_its_levels() -> None:
    assert RobustNet(ResNet20()).noise_levels == {"init": 0.2, "inner": 0.1}
    assert RobustNet(ResNet20(), inner=ScaledNoise()).noise_levels == {"init": 0.2, "inner": None}


def levels(network: nn.Module, **settings: Any) -> list[float]:
    """Noise levels in order of definition, to four digits."""
    noisy = RobustNet(network, **settings)
    return [round(part.std, 4) for part in noisy.modules() if isinstance(part, AbsoluteNoise)]


def four() -> nn.Sequential:
    return nn.Sequential(*(nn.Conv2d(3, 3, 1) for _ in range(4)))


@pytest.mark.parametrize(
    ("depth", "last", "expected"),
    [
        ("constant", None, [0.5, 0.1, 0.1, 0.1]),
        ("linear", 0.2, [0.5, 0.1, 0.15, 0.2]),
        ("linear", 0.0, [0.5, 0.1, 0.05, 0.0]),
        ("geometric", 0.4, [0.5, 0.1, 0.2, 0.4]),
        ("geometric", 0.025, [0.5, 0.1, 0.05, 0.025]),
    ],
)
@pytest.mark.parametrize("kind", [GaussianNoise, UniformNoise])
def test_levels_over_depth(depth: Depth, last: float | None, expected: list[float], kind: type[AbsoluteNoise]) -> None:
    network, settings = four(), {"depth": depth, "last": last}
    assert levels(network, init=GaussianNoise(0.5), inner=kind(0.1), **settings) == expected
    assert [type(network[k].input_noise) for k in (1, 3)] == [kind] * 2
    with drawing_from(Stream(0)):
        out = network[3].input_noise(torch.zeros(1, 1000))
    assert out.any() == (expected[-1] > 0)


def test_a_schedule_is_printed_and_is_no_single_level() -> None:
    noisy = RobustNet(four(), depth="linear", last=0.2)
    assert "depth=linear, last=0.2, placement=first" in repr(noisy)
    assert noisy.noise_levels == {"init": 0.2, "inner": None}
    assert levels(nn.Sequential(*four()[:2]), depth="linear", last=0.3) == [0.2, 0.1]


def test_the_papers_vgg_has_its_init_noise_before_the_second_convolution() -> None:
    init, inner = GaussianNoise(0.2), GaussianNoise(0.1)
    assert levels(VGG16(), init=init, inner=inner, placement="papers_vgg") == [0.1, 0.2] + [0.1] * 11
    settings = {"placement": "papers_vgg", "depth": "linear", "last": 0.2}
    assert levels(four(), init=GaussianNoise(0.5), inner=inner, **settings) == [0.1, 0.5, 0.15, 0.2]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"depth": "cubic"}, "depth must be one of constant, linear, geometric, got cubic"),
        ({"depth": "linear"}, "last must be a finite number >= 0 where depth is linear, got None"),
        ({"depth": "linear", "last": -0.1}, "last must be a finite number >= 0, got -0.1"),
        ({"last": 0.1}, "last must be None where depth is constant, got 0.1"),
        ({"depth": "geometric", "last": 0.0}, "last must be > 0, .* geometric, got 0.1 to 0.0"),
        (
            {"depth": "linear", "last": 0.1, "inner": ScaledNoise()},
            "depth must be constant for noise without a std, got linear for ScaledNoise",
        ),
        ({"placement": "second"}, "placement must be one of first, papers_vgg, got second"),
    ],
    ids=str,
)
def test_impossible_schedules_are_refused_and_leave_the_network_alone(settings: dict[str, Any], message: str) -> None:
    network = four()
    with pytest.raises(ValueError, match=f"^{message}$"):
        RobustNet(network, **settings)
    assert not noisy_layers(network)


def test_one_convolution_has_no_second_one() -> None:
    with pytest.raises(ValueError, match=r"^placement papers_vgg needs two convolutions, got a network with one$"):
        RobustNet(nn.Conv2d(3, 3, 1), placement="papers_vgg")


def test_pni_has_one_alpha_for_each_convolution_and_the_classifier() -> None:
    noisy = PNIWeights(ResNet20())
    layers = [name for name, part in noisy.named_modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    alphas = [name for name, _ in noisy.named_parameters() if name.endswith("alpha")]
    assert len(layers) == 20
    assert alphas == [f"{name}.parametrizations.weight.0.alpha" for name in layers]
    plain = {f"network.{name}" for name, _ in ResNet20().named_parameters()}
    assert {name.replace(".parametrizations.weight.original", ".weight") for name, _ in noisy.named_parameters()} == (
        plain | set(alphas)
    )


@pytest.mark.parametrize("layer", ["layer3.2.conv2", "layer1.0.conv1", "linear"])
@both_modes
def test_pni_noise_is_alpha_times_the_deviation_of_the_weight(layer: str, training: bool) -> None:
    plain = ResNet20()
    weight = plain.get_parameter(f"{layer}.weight").detach().clone()
    noisy = PNIWeights(plain, alpha=0.3).train(training).network.get_submodule(layer)
    delta = (noisy.weight - weight).detach()
    # Five standard errors: error probability 6e-7.
    assert delta.std().item() == pytest.approx(0.3 * weight.std().item(), rel=5 / (2 * weight.numel()) ** 0.5)
    assert not torch.equal(noisy.weight - weight, delta)


def test_gradients_of_pni_are_those_of_the_paper() -> None:
    linear = nn.Linear(5, 3, bias=False).double()
    weight = linear.weight.detach().clone()
    noisy = PNIWeights(linear, alpha=0.25).double()
    x, g = torch.rand(4, 5, dtype=torch.float64), torch.rand(4, 3, dtype=torch.float64)
    with drawing_from(Stream(1)):
        loss = (noisy(x) * g).sum()
    with drawing_from(Stream(1)):
        n = normal_like(weight)
    by_weight, by_alpha = torch.autograd.grad(
        loss,
        [noisy.get_parameter(f"network.parametrizations.weight.{name}") for name in ("original", "0.alpha")],
    )
    by_noisy_weight = g.T @ x
    torch.testing.assert_close(by_weight, by_noisy_weight)
    torch.testing.assert_close(by_alpha, (by_noisy_weight * weight.std() * n).sum())


@both_modes
def test_paramnet_disturbs_every_parameter_by_one_absolute_level(training: bool) -> None:
    plain = ResNet20()
    originals = {name: value.detach().clone() for name, value in plain.named_parameters()}
    ParamNet(plain, std=0.07).train(training)
    total = 0.0
    for name, original in originals.items():
        path, _, key = name.rpartition(".")
        delta = getattr(plain.get_submodule(path), key).detach() - original
        assert (delta != 0).all(), name
        total += float(delta.square().sum())
    count = sum(value.numel() for value in originals.values())
    # Five standard errors: error probability 6e-7.
    assert (total / count) ** 0.5 == pytest.approx(0.07, rel=5 / (2 * count) ** 0.5)


def test_paramnet_adds_no_parameter() -> None:
    assert sum(p.numel() for p in ParamNet(ResNet20()).parameters()) == 269_722


def test_input_noise_leaves_further_inputs_alone() -> None:
    layer = nn.Bilinear(2, 3, 4)
    add_input_noise(layer, GaussianNoise(0.5))
    a, b = torch.rand(5, 2), torch.rand(5, 3)
    with drawing_from(Stream(1)):
        out = layer(a, b)
    with drawing_from(Stream(1)):
        noisy = a + 0.5 * normal_like(a)
    torch.testing.assert_close(out, nn.functional.bilinear(noisy, b, layer.weight, layer.bias))


def test_a_network_without_the_layers_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^ReLU has no Conv2d layer to put noise on$"):
        RobustNet(nn.ReLU())
    with pytest.raises(ValueError, match=r"^ReLU has no Conv2d or Linear layer to put noise on$"):
        PNIWeights(nn.ReLU())
