"""Band-limited convolution against torch's own, against sums of waves, and inside other modules."""

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from defenses import GaussianNoise, PNIWeights, RobustNet, Stream, drawing_from, is_random
from defenses.bandlimited import BandLimited, BandLimitedConv2d, low_passed
from models import ResNet18, ResNet20, folded_batchnorm, load_weights

SETTINGS: list[dict[str, Any]] = [
    {},
    {"padding": 1, "bias": False},
    {"padding": 1, "stride": 2},
    {"padding": (2, 0), "stride": (1, 3)},
    {"padding": "same", "groups": 2},
    {"padding": 1, "groups": 4, "padding_mode": "reflect"},
    {"padding": 1, "padding_mode": "circular"},
]


def conv(**settings: Any) -> nn.Conv2d:
    return nn.Conv2d(4, 8, 3, **settings).double()


def images(*shape: int) -> Tensor:
    return torch.rand(*shape, dtype=torch.float64)


def low_pass_correlation(x: Tensor, weight: Tensor, percent: float) -> Tensor:
    """Circular cross-correlation of size n x n of maps with filters, within the band."""
    return F.conv2d(F.pad(low_passed(x, percent), (0, 2, 0, 2), mode="circular"), weight)


def answers(network: nn.Module, x: Tensor) -> list[Tensor]:
    """The output, and the gradients of a loss by image and parameters."""
    x = x.clone().requires_grad_()
    out = network(x)
    return [out, *torch.autograd.grad((out**2).sum(), [x, *network.parameters()])]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("size", [(8, 8), (7, 11)])
def test_at_0_percent_it_is_the_convolution(settings: dict[str, Any], size: tuple[int, int]) -> None:
    plain, x = conv(**settings), images(2, 4, *size)
    limited = BandLimited(copy.deepcopy(plain), 0)
    torch.testing.assert_close(answers(limited, x), answers(plain, x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("percent", [0, 30, 50, 85, 99])
@pytest.mark.parametrize("size", [5, 8])
def test_what_is_kept_are_the_waves_in_two_squares(percent: float, size: int) -> None:
    n = 8
    x, weight = images(size, size), images(3, 3)
    band = max(int(5 * math.sqrt(1 - percent / 100)), 1)
    at = torch.arange(n, dtype=torch.float64)
    expected = torch.zeros(n, n, dtype=torch.float64)
    for row in {*range(band), *range(n - band, n)}:
        for column in range(band):
            # Both coefficients as sums over pixels; a wave between 0 and the highest counts for its mirror image, too.
            wave = torch.exp(-2j * math.pi * (row * at[:, None] + column * at) / n)
            of_x = (wave[:size, :size] * x).sum()
            of_weight = (wave[:3, :3] * weight).sum()
            mirrored = 1 if column in (0, n // 2) else 2
            expected += mirrored * (of_x * of_weight.conj() * wave.conj()).real / n**2
    out = low_pass_correlation(x[None, None], weight[None, None], percent)
    torch.testing.assert_close(out[0, 0], expected)


@pytest.mark.parametrize(
    ("side", "percent", "band"), [(34, 50, 23), (34, 80, 14), (34, 85, 12), (10, 85, 3), (4, 99, 1)]
)
def test_the_side_of_the_squares(side: int, percent: float, band: int) -> None:
    x = torch.zeros(1, 1, side, side, dtype=torch.float64)
    x[..., 0, 0] = 1  # all waves alike
    weight = torch.zeros(1, 1, 3, 3, dtype=torch.float64)
    weight[..., 0, 0] = 1
    out = low_pass_correlation(x, weight, percent)[0, 0]
    assert out.shape[0] in (64, 16, 4)
    columns = torch.fft.rfft2(out).abs().amax(0) > 1e-9
    rows = torch.fft.rfft2(out)[:, 1:].abs().amax(1) > 1e-9
    assert columns.nonzero().flatten().tolist() == list(range(band))
    if band > 1:
        assert rows.nonzero().flatten().tolist() == [*range(band), *range(len(out) - band, len(out))]


def test_gradients_are_exact_and_within_the_band() -> None:
    x, weight = images(1, 1, 8, 8).requires_grad_(), images(1, 1, 3, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda *inputs: low_pass_correlation(*inputs, 70), (x, weight))
    (gradient,) = torch.autograd.grad((low_pass_correlation(x, weight, 70) * images(1, 1, 8, 8)).sum(), x)
    spectrum = torch.fft.rfft2(gradient).abs().amax((0, 1))
    # Squares of 2; row 2 of column 0 mirrors row -2.
    inside = torch.zeros(8, 5, dtype=torch.bool)
    inside[[0, 1, 6, 7], :2] = inside[2, 0] = True
    assert torch.equal(spectrum > 1e-9, inside)


def test_it_is_linear() -> None:
    limited, (a, b) = BandLimited(conv(padding=1, bias=False), 60), images(2, 1, 4, 8, 8)
    torch.testing.assert_close(limited(2 * a - 3 * b), 2 * limited(a) - 3 * limited(b))


def test_high_frequencies_are_not_seen() -> None:
    limited = BandLimited(conv(padding_mode="circular", padding=0, bias=False), 80)
    chessboard = (torch.arange(16)[:, None] + torch.arange(16)) % 2 * 2.0 - 1
    out = limited(chessboard.double().expand(1, 4, 16, 16))
    assert out.abs().max() < 1e-9


def test_only_three_by_three_convolutions_change_and_names_stay() -> None:
    plain = ResNet18()
    limited = BandLimited(copy.deepcopy(plain), 50)
    kinds = [type(part) for part in limited.modules() if isinstance(part, nn.Conv2d)]
    assert (kinds.count(BandLimitedConv2d), kinds.count(nn.Conv2d)) == (17, 3)
    assert list(limited.state_dict()) == [f"network.{name}" for name in plain.state_dict()]
    other = ResNet18()
    load_weights(limited, other.state_dict(), "other")
    assert torch.equal(limited.get_parameter("network.conv1.weight"), other.conv1.weight)
    assert not is_random(limited)
    assert "percent=50" in str(limited.network.conv1)


@pytest.mark.parametrize("percent", [0, 80])
def test_folding_gives_the_same_answers(percent: float) -> None:
    layers = [conv(padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1), nn.BatchNorm2d(4), nn.Flatten()]
    network = BandLimited(nn.Sequential(*layers).double(), percent).eval()
    for part in (layers[1], layers[4]):
        nn.init.normal_(part.get_buffer("running_mean"), std=0.3)
        nn.init.uniform_(part.get_buffer("running_var"), 0.5, 2.0)
    x = images(2, 4, 8, 8)
    expected = answers(network, x)
    with folded_batchnorm(network):
        # The convolution of size 1 is folded, the other one left alone.
        assert ["forward" in vars(part) for part in layers] == [False, False, False, True, True, False]
        torch.testing.assert_close(answers(network, x), expected)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda network: RobustNet(BandLimited(network, 50)),
        lambda network: BandLimited(RobustNet(network), 50),
        lambda network: PNIWeights(BandLimited(network, 50)),
    ],
    ids=["noise-around", "noise-inside", "noise-on-weights"],
)
def test_it_goes_with_noise_and_copies(wrap: Callable[[nn.Module], nn.Module]) -> None:
    network = wrap(ResNet20()).eval()
    copied = copy.deepcopy(network)
    x = torch.rand(2, 3, 8, 8)
    with drawing_from(Stream(0)):
        expected = network(x)
    for parameter in network.parameters():
        nn.init.zeros_(parameter)
    with drawing_from(Stream(0)):
        assert torch.equal(copied(x), expected)
    assert not torch.equal(copied(x), expected)


def test_noise_is_added_before_the_band_is_cut() -> None:
    layer, x = conv(padding=1), images(1, 4, 8, 8)
    limited = BandLimited(copy.deepcopy(layer), 50)
    noisy = RobustNet(BandLimited(layer, 50), GaussianNoise(0.2))
    with drawing_from(Stream(1)):
        out = noisy(x)
    with drawing_from(Stream(1)):
        torch.testing.assert_close(out, limited(GaussianNoise(0.2)(x)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_dtype_and_memory_format_stay(dtype: torch.dtype) -> None:
    layer = conv(padding=1)
    x = images(2, 4, 8, 8).contiguous(memory_format=torch.channels_last)
    expected = BandLimited(copy.deepcopy(layer), 50)(x)
    out = BandLimited(layer.to(dtype), 50)(x.to(dtype))
    assert out.dtype == dtype
    assert out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(out.double(), expected, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("percent", [-1, 100, float("nan")])
def test_impossible_percentages_are_refused(percent: float) -> None:
    with pytest.raises(ValueError, match=rf"^percent must lie in \[0, 100\), got {percent}$"):
        BandLimited(conv(), percent)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (nn.Conv2d(3, 3, 1), "Conv2d has no 3x3 convolution to band-limit"),
        (nn.Conv2d(3, 3, 3, dilation=2), r"dilation must be \(1, 1\) to band-limit a convolution, got \(2, 2\)"),
        (PNIWeights(nn.Conv2d(3, 3, 3)), "cannot band-limit a ParametrizedConv2d; noise on weights goes around .*"),
    ],
    ids=["1x1", "dilated", "parametrized"],
)
def test_networks_that_cannot_be_limited_are_refused(network: nn.Module, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        BandLimited(network, 50)
