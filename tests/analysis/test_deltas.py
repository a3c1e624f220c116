"""Distributions of what channels add, where they are known."""

import numpy as np
import pytest
import torch
from scipy.stats import norm, uniform
from torch import Tensor, nn

from analysis.deltas import channel_deltas
from defenses import ColourDepth, Gauss, Identity, Stream, SVDCompression, Uniform, drawing_from


class Lift(nn.Module):
    """x + 0.25 in eval mode, nothing else in training mode."""

    def forward(self, x: Tensor) -> Tensor:
        return x if self.training else x + 0.25


def test_a_constant_shift_lies_in_one_bin() -> None:
    x = torch.rand(3, 2, 4, 4, dtype=torch.float64)
    channel = Lift().train()
    found = channel_deltas(channel, x, bins=10, limit=0.5)
    assert found.counts.tolist() == [0, 0, 0, 0, 0, 0, 0, 96, 0, 0]
    assert found.mean == pytest.approx(0.25)
    assert found.std == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(found.l2, 0.25 * 32**0.5)
    assert channel.training


@pytest.mark.parametrize(
    ("channel", "law"),
    [(Gauss(0.1), norm(scale=0.1)), (Uniform(0.1), uniform(-(0.03**0.5), 2 * 0.03**0.5))],
    ids=["Gauss", "Uniform"],
)
def test_noise_has_the_density_of_its_law(channel: nn.Module, law: norm) -> None:
    x = torch.rand(20, 3, 32, 32)
    with drawing_from(Stream(0)):
        found = channel_deltas(channel, x, bins=21, limit=0.4)
    expected = np.diff(law.cdf(found.edges)) * x.numel()
    assert (np.abs(found.counts - expected) < 4 * np.sqrt(expected) + 1).all()
    assert found.mean == pytest.approx(0, abs=4 * 0.1 / x.numel() ** 0.5)
    assert found.std == pytest.approx(0.1, rel=0.01)
    np.testing.assert_allclose(found.l2, 0.1 * 3072**0.5, rtol=0.05)
    width = float(np.diff(found.edges)[0])
    assert found.density.sum() * width == pytest.approx(1 - found.outside / x.numel())


def test_colour_depth_moves_values_by_half_a_step_at_most() -> None:
    x = torch.rand(10, 3, 16, 16)
    found = channel_deltas(ColourDepth(bits=2), x)
    assert found.edges[-1] == pytest.approx(1 / 6, rel=0.01)
    assert found.outside == 0
    assert found.counts.sum() == x.numel()


def test_the_reference_is_what_is_subtracted() -> None:
    x, x_adv = torch.rand(2, 4, 3, 8, 8, dtype=torch.float64)
    found = channel_deltas(Identity(), x_adv, x)
    delta = (x_adv - x).numpy()
    assert found.mean == pytest.approx(delta.mean())
    assert found.std == pytest.approx(delta.std())
    np.testing.assert_allclose(found.l2, np.sqrt((delta**2).sum((1, 2, 3))))
    outside = channel_deltas(Identity(), x_adv, x, limit=0.1)
    assert outside.outside == (np.abs(delta) > 0.1).sum()


def test_chunks_do_not_matter_and_nothing_is_no_error() -> None:
    x = torch.rand(7, 3, 8, 8)
    whole, parts = (channel_deltas(SVDCompression(50), x, chunk=chunk) for chunk in (500, 3))
    assert np.abs(whole.counts - parts.counts).sum() <= 4  # rounding at the edges
    np.testing.assert_allclose(parts.l2, whole.l2, rtol=1e-4)
    nothing = channel_deltas(Identity(), x, bins=3)
    assert nothing.counts.tolist() == [0, x.numel(), 0]
    assert nothing.std == 0


class Smaller(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[..., 1:]


class Undefined(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / 0


def test_bad_input_is_named() -> None:
    x = torch.rand(2, 3, 8, 8)
    with pytest.raises(ValueError, match="as many references"):
        channel_deltas(Identity(), x, x[:1])
    with pytest.raises(ValueError, match=r"got 0 and None"):
        channel_deltas(Identity(), x, bins=0)
    with pytest.raises(ValueError, match=r"got 101 and -1"):
        channel_deltas(Identity(), x, limit=-1)
    with pytest.raises(ValueError, match="Smaller made"):
        channel_deltas(Smaller(), x)
    with pytest.raises(FloatingPointError, match="Undefined made NaN"):
        channel_deltas(Undefined(), x)
