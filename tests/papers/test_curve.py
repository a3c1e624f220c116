"""Curves of accuracy over an attack's strength: points, intervals and paired differences, beside numbers by hand."""

import numpy as np
import pytest
from scipy.stats import binomtest

from evaluation import bootstrap, wilson
from papers.curve import AttackCurve, Axis, Compared
from papers.verdicts import above, difference


def curve(right: list[list[list[int]]], l2: list[list[float]], **settings: object) -> AttackCurve:
    """Of lists: right [S][n][passes], l2 [S][n]; strengths 0, 1, 2, ..."""
    made = np.array(l2)
    return AttackCurve(np.arange(len(right), dtype=float), np.array(right, dtype=bool), made, made / 10, **settings)  # type: ignore[arg-type]


def steps(shares: list[float], n: int = 100, reach: float = 1.0) -> AttackCurve:
    """A deterministic defense that keeps the first share of n images; all images lie equally far away."""
    right = np.array([np.arange(n) < round(share * n) for share in shares])[:, :, None]
    at = np.arange(len(shares), dtype=float)
    l2 = np.repeat(reach * at[:, None], n, axis=1)
    return AttackCurve(at, right, l2, l2 / 10)


def said(found: Compared | None) -> str:
    """Whether the first curve lies higher."""
    assert found is not None
    return above(found.difference)


def test_axes_are_the_two_ways_of_averaging() -> None:
    found = curve([[[1], [1]], [[0], [1]]], [[0, 0], [3, 4]])
    assert found.axis("l2") == pytest.approx([0, np.sqrt(12.5)])
    assert found.axis("mean_l2") == pytest.approx([0, 3.5])
    assert found.axis("linf") == pytest.approx([0, 0.35])
    assert found.axis("strength") == pytest.approx([0, 1])


def test_accuracy_has_wilsons_interval_without_and_the_bootstraps_with_randomness() -> None:
    certain = steps([0.9, 0.4])
    low, high = wilson(40, 100)
    assert certain.accuracy()[1] == pytest.approx((40, 100 * low, 100 * high))
    right = np.random.default_rng(0).random((2, 60, 5)) < 0.5
    zero = np.zeros((2, 60))
    random = AttackCurve(np.arange(2.0), right, zero, zero, random=True)
    low, high = bootstrap(right[0])
    assert random.accuracy()[0] == pytest.approx((100 * right[0].mean(), 100 * low, 100 * high))


def test_accuracy_between_two_points_of_a_distortion_is_linear() -> None:
    found = steps([1.0, 0.5], reach=0.8).accuracy_at("l2", 0.2)
    assert found is not None
    assert found.value == pytest.approx(87.5)
    assert found.low is not None
    assert found.high is not None
    assert found.low < 87.5 < found.high
    assert steps([1.0, 0.5], reach=0.8).accuracy_at("l2", 0.9) is None


def test_accuracy_at_a_strength_is_that_points() -> None:
    found = steps([0.9, 0.4])
    assert found.accuracy_at("strength", 1.0) == found.accuracy()[1]


def test_distortion_has_the_interval_of_a_mean() -> None:
    """Squares of L2 that are 0 or 1: their mean is a share p, of which the root is taken."""
    far = (np.arange(400) % 4 == 0).astype(float)
    found = AttackCurve(np.array([0.4]), np.ones((1, 400, 1), dtype=bool), far[None], far[None]).distortion("l2", 0.4)
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    assert found.value == pytest.approx(0.5)
    error = np.sqrt(0.25 * 0.75 / 400)
    assert found.low**2 == pytest.approx(0.25 - 1.96 * error, abs=0.008)
    assert found.high**2 == pytest.approx(0.25 + 1.96 * error, abs=0.008)
    assert steps([1.0, 0.5]).distortion("l2", 7.0) is None


def test_a_difference_over_strengths_leaves_nobodys_attack_out() -> None:
    found = steps([1.0, 0.8, 0.6]).minus(steps([0.5, 0.7, 0.1]), "strength")
    assert found is not None
    assert found.difference.value == pytest.approx((0.1 + 0.5) / 2)
    assert (found.start, found.stop, said(found)) == (1.0, 2.0, "confirmed")


def test_a_difference_may_be_asked_for_in_a_part_of_the_axis() -> None:
    found = steps([1.0, 0.8, 0.6]).minus(steps([1.0, 0.9, 0.1]), "strength", (1.0, 1.0))
    assert found is not None
    assert (found.difference.value, said(found)) == (pytest.approx(-0.1), "refuted")
    assert steps([1.0, 0.8]).minus(steps([1.0, 0.8]), "strength", (5.0, 6.0)) is None


def test_a_difference_at_equal_distortion_interpolates_both() -> None:
    """A falls from 1 to 0 over L2 of 2, B over 1: where both are, [0, 1], A lies x / 2 above, on average 1 / 4."""
    found = steps([1.0, 0.0], reach=2.0).minus(steps([1.0, 0.0], reach=1.0), "l2")
    assert found is not None
    assert found.difference.value == pytest.approx(0.25)
    assert (found.start, found.stop) == (0.0, 1.0)
    assert said(found) == "undecided"  # no image is answered differently


def test_differences_are_paired() -> None:
    """Both are right on the same half, but on 10 of 200 images: the interval is far narrower than either's."""
    one = steps([1.0, 0.50], n=200)
    found = one.minus(steps([1.0, 0.45], n=200), "strength")
    assert found is not None
    value, low, high = found.difference
    assert value == pytest.approx(0.05)
    error = np.sqrt(0.05 * 0.95 / 200)
    assert low == pytest.approx(0.05 - 1.96 * error, abs=0.008)
    assert high == pytest.approx(0.05 + 1.96 * error, abs=0.008)
    assert said(found) == "confirmed"


AT_STRENGTH_2 = [
    ("strength", (2.0, 2.0)),
    ("l2", (1.9, 2.1)),  # read from the points at 1, 2 and 3
    ("mean_l2", (1.3, 1.7)),  # between those at 1 and 2
    ("linf", (0.23, 0.27)),  # between those at 2 and 3
]


@pytest.mark.parametrize(("axis", "between"), AT_STRENGTH_2)
@pytest.mark.parametrize("lost", [0, 4, 5, 6, 20])
def test_images_count_at_the_compared_strengths_alone(axis: Axis, between: tuple[float, float], lost: int) -> None:
    """Of 60 images, B loses some at strength 2 and half at 0 and 4: an exact sign test of those at 2 decides."""
    one = steps([1.0] * 5, n=60)
    found = one.minus(steps([0.5, 1.0, 1 - lost / 60, 1.0, 0.5], n=60), axis, between)
    assert found is not None
    significant = lost > 0 and binomtest(lost, lost).pvalue < 0.05
    assert said(found) == ("confirmed" if significant else "undecided")
    assert significant or found.difference.low <= 0 <= found.difference.high
    assert found.difference.low <= found.difference.value <= found.difference.high


@pytest.mark.parametrize("shares", [(1.0, 1.0), (1.0, 0.0), (0.5, 0.45), (0.5, 0.44), (0.2, 0.9)])
def test_at_one_strength_the_interval_is_that_of_a_paired_difference(shares: tuple[float, float]) -> None:
    one, other = (steps([0.7, share]) for share in shares)
    found = one.minus(other, "strength")
    assert found is not None
    assert found.difference == pytest.approx(difference(*(c.right[1, :, 0].astype(float) for c in (one, other))))


def test_an_image_that_gains_as_much_as_it_loses_does_not_differ() -> None:
    """Mean over two strengths: 5 images are gained, and 10 gain at one what they lose at the other."""
    right = np.zeros((3, 100, 1), dtype=bool)
    other = right.copy()
    right[1, :15], other[2, :10] = True, True
    zero = np.zeros((3, 100))
    one, two = (AttackCurve(np.arange(3.0), each, zero, zero) for each in (right, other))
    found = one.minus(two, "strength")
    assert found is not None
    assert found.difference.value == pytest.approx(0.025)
    assert said(found) == "undecided"
    assert said(one.minus(two, "strength", (1.0, 1.0))) == "confirmed"


def test_no_difference_is_no_sign() -> None:
    found = steps([1.0, 0.5]).minus(steps([1.0, 0.5]), "l2")
    assert found is not None
    assert (found.difference.value, said(found)) == (0.0, "undecided")
    # Nobody of 100 was seen to differ, so hardly more than z^2 / (n + z^2) do.
    assert found.difference[1:] == pytest.approx((-0.037, 0.037), abs=1e-3)


def test_curves_of_other_strengths_or_images_are_refused() -> None:
    one = steps([1.0, 0.5])
    for compare in (lambda other: one.minus(other, "l2"), lambda other: one.longer(other, 1.0)):
        with pytest.raises(ValueError, match=r"different strengths: \[0.0, 1.0\], \[0.0, 1.0, 2.0\]"):
            compare(steps([1.0, 0.5, 0.2]))
        with pytest.raises(ValueError, match="different images: 100 and 50"):
            compare(steps([1.0, 0.5], n=50))


def test_how_much_longer_an_attack_is() -> None:
    found = steps([1.0, 0.5], reach=0.63).longer(steps([1.0, 0.4], reach=0.57), 1.0)
    assert found is not None
    assert found.difference == pytest.approx((0.06, 0.06, 0.06))
    assert said(found) == "confirmed"
    assert steps([1.0, 0.5]).longer(steps([1.0, 0.5]), 3.0) is None


@pytest.mark.parametrize(("longer", "outcome"), [(5, "undecided"), (6, "confirmed")])
def test_few_longer_attacks_say_nothing(longer: int, outcome: str) -> None:
    near = np.ones((1, 60))
    far = near + (np.arange(60) < longer)
    right = np.ones((1, 60, 1), dtype=bool)
    one, other = (AttackCurve(np.array([1.0]), right, l2, l2) for l2 in (far, near))
    assert said(one.longer(other, 1.0)) == outcome


def test_shared_draws_widen_an_interval() -> None:
    """Whole batches that are right or wrong by the pass: with shared draws passes count, without only images."""
    passes = np.random.default_rng(0).random((1, 4, 1, 20)) < 0.5
    right = np.broadcast_to(passes, (1, 4, 25, 20)).reshape(1, 100, 20)
    zero = np.zeros((1, 100))
    shared, own = (
        AttackCurve(np.array([1.0]), right, zero, zero, batch, random=True) for batch in (np.arange(100) // 25, None)
    )
    widths = [values[0].high - values[0].low for values in (shared.accuracy(), own.accuracy())]  # type: ignore[operator]
    assert widths[0] > 2 * widths[1]
    assert np.ptp(shared.resampled("accuracy")) > 2 * np.ptp(own.resampled("accuracy"))
