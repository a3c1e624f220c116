"""Intervals against closed forms, against resampling by hand, and against the truth that they should cover."""

import math

import numpy as np
import pytest

from evaluation.intervals import Interval, bootstrap, bootstraps, resampled_means, wilson
from tests.evaluation.made import batches_of, drawn

Z95 = 1.959963984540054


def test_wilson_by_hand() -> None:
    # p = .8, n = 10, z² = 3.8415:
    # centre (.8 + .19207) / 1.38415 = .71675, half width 1.96 sqrt(.016 + .0096037) / 1.38415 = .22658.
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=5e-5)


@pytest.mark.parametrize(("correct", "n"), [(0, 1), (0, 1000), (1, 3), (500, 1000), (9999, 10000), (7, 7)])
def test_wilson_is_the_closed_formula(correct: int, n: int) -> None:
    p = correct / n
    centre = p + Z95**2 / (2 * n)
    half = Z95 * math.sqrt(p * (1 - p) / n + Z95**2 / (4 * n * n))
    expected = (centre - half) / (1 + Z95**2 / n), (centre + half) / (1 + Z95**2 / n)
    assert wilson(correct, n) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("correct", "n", "level"), [(0, 0, 0.95), (-1, 5, 0.95), (6, 5, 0.95), (1, 5, 1.0)])
def test_wilson_refuses_what_is_no_proportion(correct: int, n: int, level: float) -> None:
    with pytest.raises(ValueError, match="need 0 <= correct <= n"):
        wilson(correct, n, level)


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_bootstrap_is_close_to_the_normal_approximation(level: float) -> None:
    n, draws = 4000, 10
    rng = np.random.default_rng(1)
    shares = rng.binomial(draws, rng.beta(0.5, 0.5, size=n)) / draws
    sigma = shares.std() / math.sqrt(n)
    z = {0.8: 1.2815515655446004, 0.95: Z95}[level]
    low, high = bootstrap(shares, level=level)
    # An end is an order statistic of 2000 resamples: its own deviation is at most 0.06 sigma, so 0.3 sigma is
    # missed with a probability below 1e-6 per end over the choice of the seed.
    assert low == pytest.approx(shares.mean() - z * sigma, abs=0.3 * sigma)
    assert high == pytest.approx(shares.mean() + z * sigma, abs=0.3 * sigma)


def test_bootstrap_is_that_of_resampled_images() -> None:
    n, draws, resamples = 200, 20, 20000
    rng = np.random.default_rng(2)
    shares = rng.integers(draws + 1, size=n) / draws
    means = shares[rng.integers(n, size=(resamples, n))].mean(axis=1)
    # The mean has a deviation of 0.021, each end one of 0.019 times that, their difference one of 0.0006:
    # 0.004 is missed with a probability below 1e-8, the step of 1 / (n draws) = 0.00025 included.
    expected = np.quantile(means, [0.025, 0.975])
    assert bootstrap(shares, resamples=resamples) == pytest.approx(expected, abs=0.004)


def test_passes_of_independent_images_stay_with_their_image() -> None:
    right = drawn(np.random.default_rng(3), 300, 8, 3, shared=False)
    assert bootstrap(right) == bootstrap(right.mean(axis=1))
    assert bootstrap(right[:, :1], batches_of(300, 3)) == bootstrap(right[:, 0])  # one pass says nothing about others


def test_bootstrap_covers_the_truth_where_passes_are_not_independent() -> None:
    n, draws, tables = 200, 10, 200
    rng = np.random.default_rng(3)
    inside = 0
    for _ in range(tables):
        low, high = bootstrap(rng.binomial(draws, rng.beta(0.2, 0.2, size=n)) / draws, resamples=400)
        inside += low <= 0.5 <= high
    # A true coverage of 0.94 falls below 172 of 200 with a probability of 1e-5 (binomial). Taking the passes
    # for n * draws independent images would cover about half.
    assert inside >= 172


@pytest.mark.parametrize("passes", [2, 5, 20])
def test_the_variance_over_images_and_passes_is_the_closed_form(passes: int) -> None:
    # Values a_i + s_bj with sum_j s_bj = 0: the mean is sum w_i a_i / n + sum_b w_b / n * (mean of s over the picked
    # passes). w_b is binomial(n, n_b / n); a mean of picked passes varies with s² / passes, s² over passes - 1.
    rng = np.random.default_rng(4)
    batch = np.repeat([0, 1, 2], [60, 30, 10])
    n = len(batch)
    image, luck = rng.normal(size=n), rng.normal(size=(3, passes))
    luck -= luck.mean(axis=1, keepdims=True)
    means = resampled_means((image[:, None] + luck[batch])[:, :, None], batch, resamples=8000)
    share = np.bincount(batch) / n
    expected = image.var() / n + ((share**2 + share * (1 - share) / n) * luck.var(axis=1, ddof=1) / passes).sum()
    # 8000 resamples know a variance to sqrt(2 / 8000) = 1.6 %; 8 % are five deviations.
    assert means.var() == pytest.approx(expected, rel=0.08)
    assert means.mean() == pytest.approx(image.mean(), abs=5 * math.sqrt(expected / 8000))


def test_shared_draws_are_covered_by_resampling_passes_and_not_by_images_alone() -> None:
    n, passes, batches, tables = 200, 10, 4, 300
    rng, batch = np.random.default_rng(5), batches_of(200, 4)
    with_passes = images_only = 0
    for seed in range(tables):
        right = drawn(rng, n, passes, batches, shared=True)
        low, high = bootstrap(right, batch, seed=seed, resamples=500)
        with_passes += low <= 0.5 <= high
        low, high = bootstrap(right, seed=seed, resamples=500)
        images_only += low <= 0.5 <= high
    # Binomial(300, 0.95) has a deviation of 3.8: outside 268..299 lies less than 1e-4. A few batches and percentiles
    # of 500 resamples cost about a point of coverage, which the lower end leaves room for.
    assert 268 <= with_passes <= 299
    # The interval over images alone is too narrow by a factor of 2.4 here and covers 61 % (of 1000 tables): above 225
    # of 300 lie less than 1e-6.
    assert images_only <= 225


def test_quantities_of_one_call_are_those_of_several() -> None:
    right, batch = drawn(np.random.default_rng(6), 100, 6, 2, shared=True), batches_of(100, 2)
    both = bootstraps(np.stack([right, ~right], axis=-1).astype(float), batch)
    assert both == [bootstrap(right, batch), bootstrap(~right, batch)]
    assert both[0].low == pytest.approx(1 - both[1].high, abs=1e-8)


def test_bootstrap_repeats_with_its_seed() -> None:
    shares = np.random.default_rng(4).integers(8, size=300) / 7
    assert bootstrap(shares, seed=1) == bootstrap(shares, seed=1)
    assert bootstrap(shares, seed=1) != bootstrap(shares, seed=2)


@pytest.mark.parametrize(("share", "hits"), [(0.0, 0), (0.5, 50), (1.0, 100)])
def test_bootstrap_of_equal_images_does_not_pretend_certainty(share: float, hits: int) -> None:
    assert bootstrap(np.full(100, share)) == pytest.approx(wilson(hits, 100), abs=1e-9)


def test_few_errors_are_not_enough_for_percentiles() -> None:
    shares = np.array([0.5, 0.5] + [1.0] * 98)
    low, high = bootstrap(shares)
    assert low < wilson(99, 100).low + 1e-9  # as many errors as one image has
    assert high == 1
    many = np.array([0.0] * 20 + [1.0] * 80)
    assert bootstrap(many) == pytest.approx(wilson(80, 100), abs=0.03)
    assert bootstrap(many) != wilson(80, 100)


@pytest.mark.parametrize("values", [[], [1.5], [-0.1], [math.nan]])
def test_bootstrap_refuses_what_is_no_share(values: list[float]) -> None:
    with pytest.raises(ValueError, match=r"values in \[0, 1\]"):
        bootstrap(np.array(values))


def test_an_interval_has_plain_ends() -> None:
    found = bootstrap(np.array([0.0, 1.0] * 20))
    assert isinstance(found, Interval)
    assert [type(end) for end in found] == [float, float]
