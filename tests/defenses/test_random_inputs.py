"""What is drawn for each image: every outcome is possible and as likely as stated.

Statistical tests run with fixed seeds; each comparison has an error probability of 1e-6 with another seed.
"""

import copy
import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor

from defenses import RobustNet, is_random, silenced
from defenses.dropout import DropoutNet, DropoutNoise, InputDropout
from defenses.random_inputs import PixelDeflection, RandomDiscretisation, ResizePad
from models import ResNet20
from tests.defenses.toys import drawn, images


def likely(observed: list[int], shares: list[float]) -> bool:
    return float(stats.chisquare(observed, np.array(shares) * sum(observed)).pvalue) > 1e-6


@pytest.mark.parametrize("shape", [(8, 8), (6, 4)])
def test_resizing_and_padding_are_those_of_pytorch_equally_likely(shape: tuple[int, int]) -> None:
    height, width = shape
    x = (1 + torch.arange(height * width, dtype=torch.float64)).view(1, 1, height, width)
    outcomes, shares = [], []
    sizes = [(rows, round(rows * width / height)) for rows in range(height - 2, height + 1)]
    for rows, columns in sizes:
        places = list(itertools.product(range(height - rows + 1), range(width - columns + 1)))
        small = F.interpolate(x, (rows, columns), mode="nearest-exact")
        for top, left in places:
            outcomes.append(F.pad(small, (left, width - columns - left, top, height - rows - top)))
            shares.append(1 / len(sizes) / len(places))
    y = drawn(ResizePad((height - 2) / height), x.expand(5000, -1, -1, -1))
    which = (y[:, None] == torch.stack(outcomes, 1)).flatten(2).all(-1)
    assert which.any(1).all()
    assert likely(which.sum(0).tolist(), shares)


def test_deflected_pixels_come_from_their_window_and_all_of_it() -> None:
    x = torch.arange(25.0).view(1, 1, 5, 5).expand(5000, 2, 5, 5)
    y = drawn(PixelDeflection(25, 1), x)
    assert torch.equal(y[:, 0], y[:, 1])
    for pixel in (0, 7, 12, 20):
        distance = (torch.cartesian_prod(*[torch.arange(5)] * 2) - torch.tensor(divmod(pixel, 5))).abs().amax(1)
        near = (distance <= 1).nonzero().flatten().tolist()
        counts = torch.bincount(y[:, 0].flatten(1)[:, pixel].long(), minlength=25)
        assert counts[near].sum() == len(y)
        assert likely(counts[near].tolist(), [1 / len(near)] * len(near))


def test_as_many_pixels_are_deflected_as_stated_each_as_likely() -> None:
    x = torch.rand(1, 1, 5, 5).expand(5000, 1, 5, 5)
    moved = (drawn(PixelDeflection(6, 100), x) != x).flatten(1)  # in a window of all 25, itself included
    assert moved.sum(1).max() == 6
    for pixel in range(25):
        assert stats.binomtest(int(moved[:, pixel].sum()), 5000, 6 / 25 * 24 / 25).pvalue > 1e-6


def test_random_discretisation_leaves_the_nearest_of_some_colours() -> None:
    x = images(8, torch.float64)
    y = drawn(RandomDiscretisation(5, 0.0), x)
    for before, after in zip(x.flatten(2).mT, y.flatten(2).mT, strict=True):
        colours = after.unique(dim=0)
        assert len(colours) == 5
        assert all((before == colour).all(1).any() for colour in colours)
        nearest = ((before[:, None] - colours) ** 2).sum(-1).argmin(1)
        assert torch.equal(after, colours[nearest])


def test_random_discretisation_draws_its_colours_equally_likely_from_the_noisy_image() -> None:
    x = torch.arange(16.0).view(1, 1, 4, 4).expand(5000, 1, 4, 4)
    y = drawn(RandomDiscretisation(1, 0.0), x)
    assert torch.equal(y, y[..., :1, :1].expand_as(y))
    assert likely(torch.bincount(y[:, 0, 0, 0].long(), minlength=16).tolist(), [1 / 16] * 16)
    # With as many colours as pixels only the noise is left.
    x = images(4, torch.float64, (3, 16, 16))
    noise = (drawn(RandomDiscretisation(256, 0.1), x) - x).flatten().numpy()
    assert stats.kstest(noise, "norm", args=(0, 0.1)).pvalue > 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_dropout_blackens_whole_pixels_at_its_rate(dtype: torch.dtype) -> None:
    x = torch.full((4, 3, 100, 100), 0.5, dtype=dtype)
    y = drawn(InputDropout(0.301), x)
    assert torch.equal(y, y[:, :1].expand_as(y))
    assert y.unique().tolist() == [0, 0.5]
    for image in y[:, 0]:
        assert stats.binomtest(int((image == 0).sum()), image.numel(), 0.301).pvalue > 1e-6


def test_dropout_in_the_network_drops_at_its_rate_and_scales_the_rest_up() -> None:
    x = torch.full((4, 3, 100, 100), 0.5).contiguous(memory_format=torch.channels_last)
    y = drawn(DropoutNoise(0.2).eval(), x)
    assert y.stride() == x.stride()
    assert y.unique().tolist() == pytest.approx([0, 0.625])
    for image in y:
        assert stats.binomtest(int((image == 0).sum()), image.numel(), 0.2).pvalue > 1e-6
    values = torch.rand(4, 3, 100, 100, dtype=torch.float64)
    noise = drawn(DropoutNoise(0.2), values) - values
    # 120,000 squares, whose deviation is 2.2 times their mean: five standard errors of the root are 1.6 %.
    assert float(noise.square().mean().sqrt()) == pytest.approx(DropoutNoise(0.2).level(values), rel=0.016)


def test_dropout_net_has_it_before_the_classifier_and_nowhere_else() -> None:
    plain = ResNet20().eval()
    model, x = DropoutNet(copy.deepcopy(plain), 0.5).eval(), images()
    with silenced():
        assert torch.equal(model(x), plain(x))
    features: list[Tensor] = []
    plain.linear.register_forward_pre_hook(lambda layer, inputs: features.append(inputs[0]))
    plain(x)
    expected = plain.linear(drawn(DropoutNoise(0.5), features[0]))
    torch.testing.assert_close(drawn(model, x), expected)
    assert is_random(model)
    assert torch.equal(DropoutNet(copy.deepcopy(plain), 0.0)(x), plain(x))
    everywhere = RobustNet(copy.deepcopy(plain), init=DropoutNoise(0), inner=DropoutNoise(0.1))
    assert not torch.equal(everywhere(x), everywhere(x))
