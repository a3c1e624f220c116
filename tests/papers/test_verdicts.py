"""Verdicts against what the numbers of a few images must say."""

import numpy as np
import pytest
from scipy.stats import binomtest

from evaluation import Interval
from papers.verdicts import (
    LEVEL,
    Difference,
    above,
    all_above,
    all_within,
    difference,
    holding_zero,
    mean_of,
    percent,
    together,
    widened,
    within,
)

ONES, ZEROS = np.ones(100), np.zeros(100)


def test_a_paired_difference_is_surer_than_its_parts() -> None:
    rng = np.random.default_rng(0)
    a = (rng.random(400) < 0.5).astype(float)
    b = a.copy()
    b[np.flatnonzero(a)[:40]] = 0  # b loses 40 of 400 images and wins none
    found = difference(a, b)
    assert found.value == pytest.approx(0.1)
    assert 0.06 < found.low < 0.1 < found.high < 0.14
    unpaired = np.hypot(*[(each.high or 0) - (each.low or 0) for each in (percent(a), percent(b))]) / 100
    assert found.high - found.low < unpaired / 2


def test_where_one_has_more_images_the_first_are_compared() -> None:
    assert difference(np.concatenate([ONES, ZEROS]), ONES) == difference(ONES, ONES)


def test_few_images_that_differ_exclude_nothing() -> None:
    for differing, outcome in ((0, "undecided"), (5, "undecided"), (6, "confirmed")):
        b = ONES.copy()
        b[:differing] = 0
        found = difference(ONES, b)
        assert found.value == pytest.approx(differing / 100)
        assert found.low <= found.value <= found.high
        assert above(found) == outcome
    same = difference(ONES, ONES)
    # Nobody of 100 was seen to differ, so hardly more than z^2 / (n + z^2) do.
    assert (same.low, same.high) == pytest.approx((-0.037, 0.037), abs=1e-3)


def test_the_tails_of_a_small_sample_are_wilsons() -> None:
    """All 100 images differ: Wilson's interval of 100 of 100, less that of 0 of 100."""
    share = 1.959964**2 / (100 + 1.959964**2)
    assert difference(ONES, ZEROS) == pytest.approx((1.0, 1 - 2 * share, 1.0), abs=1e-6)
    many = np.repeat([1.0, -1.0, 0.0], [20, 10, 70])
    assert widened(Interval(0.01, 0.2), many) == (0.01, 0.2)


def test_an_interval_holds_0_unless_an_exact_sign_test_excludes_it() -> None:
    for differing in range(1, 10):
        each = (np.arange(30) < differing).astype(float)
        low, _ = holding_zero(Interval(0.1, 0.2), each)
        _, high = holding_zero(Interval(-0.2, -0.1), -each)
        significant = binomtest(differing, differing).pvalue < 1 - LEVEL
        assert (low > 0, high < 0) == (significant, significant)


@pytest.mark.parametrize(
    ("low", "high", "ordered", "alike"),
    [
        (0.01, 0.04, "confirmed", "confirmed"),
        (-0.04, -0.01, "refuted", "confirmed"),
        (-0.02, 0.02, "undecided", "confirmed"),
        (0.06, 0.09, "confirmed", "refuted"),
        (-0.09, -0.06, "refuted", "refuted"),
        (0.02, 0.08, "confirmed", "undecided"),
    ],
)
def test_an_interval_decides(low: float, high: float, ordered: str, alike: str) -> None:
    found = Difference((low + high) / 2, low, high)
    assert (above(found), within(found, 0.05)) == (ordered, alike)


def test_one_refuted_part_refutes_and_an_open_one_leaves_it_open() -> None:
    assert together(["confirmed", "confirmed"]) == "confirmed"
    assert together(["confirmed", "undecided"]) == "undecided"
    assert together(["undecided", "refuted"]) == "refuted"
    assert together([]) == "not testable here"


def test_verdicts_tell_their_numbers() -> None:
    verdict = all_above("a", {"one": (ONES, ZEROS), "two": (ONES, ONES)})
    assert verdict.outcome == "undecided"
    assert verdict.reason.startswith("one: +100.0 [")
    assert all_above("a", {"one": (ONES, ZEROS)}).outcome == "confirmed"
    assert all_within("a", {"two": (ONES, ZEROS)}, 0.05).outcome == "refuted"
    assert all_above("a", {}).outcome == "not testable here"


def test_a_mean_of_lengths_has_an_interval_around_it() -> None:
    values = np.random.default_rng(1).exponential(2.0, 500)
    found = mean_of(values)
    error = values.std() / np.sqrt(len(values))
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx(
        (found.value - 1.96 * error, found.value + 1.96 * error), abs=error / 4
    )
