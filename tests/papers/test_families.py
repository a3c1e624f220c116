"""Channels by the papers' names, in the papers' units."""

import math

import pytest

from defenses import ColourDepth, FFTCompression, PapersLaplace, SVDCompression
from papers.families import axis_of, channel, compression


def test_the_parameters_are_the_papers() -> None:
    fc, svd, cd = channel("FC", 30), channel("SVD", 50), channel("CD", 4)
    assert isinstance(fc, FFTCompression)
    assert (fc.percent, fc.mask) == (30, "corner_disks")
    assert isinstance(svd, SVDCompression)
    assert svd.percent == 50
    assert isinstance(cd, ColourDepth)
    assert cd.values == 16


@pytest.mark.parametrize(("family", "factor"), [("Gauss", 1), ("Uniform", 1), ("Laplace", math.sqrt(2))])
def test_noise_has_the_standard_deviation_of_the_papers_convention(family: str, factor: float) -> None:
    expected = factor * 0.03 * 1.105 / math.sqrt(3) * math.sqrt(3 * 32 * 32)
    assert channel(family, 0.03).expected_l2((3, 32, 32)) == pytest.approx(expected)
    assert channel(family, 0.03, 2.21).expected_l2((3, 32, 32)) == pytest.approx(2 * expected)


def test_laplace_is_sampled_as_it_is_named() -> None:
    assert isinstance(channel("Laplace", 0.03), PapersLaplace)


def test_bits_count_as_the_share_of_eight_that_is_left_out() -> None:
    assert [compression("CD", bits) for bits in (8, 4, 2)] == [0, 50, 75]
    assert compression("FC", 30) == 30
    assert axis_of("Uniform") != axis_of("CD") == axis_of("SVD")


def test_an_unknown_family_is_named() -> None:
    with pytest.raises(ValueError, match="no family of channels is called FFT; known: FC, SVD, CD, Gauss"):
        channel("FFT", 1)
