"""The choice of a parameter, and what is said about distortions, on points made by hand."""

import numpy as np
import pytest

from papers.passing import Point
from papers.recovery_claims import bounded_by_clean, peak, recovers, same_distortion, similar, smaller_on
from papers.tuning import Recovered, best, spread


def point(parameter: float, right: float, l2: float = 1.0, n: int = 200) -> Point:
    """A channel that is right on the first `right` of n images."""
    return Point(parameter, (np.arange(n) < right * n).astype(float), np.full(n, l2))


def recovered(side: str = "a", **families: list[Point]) -> Recovered:
    curves = {"Iden": [point(0, 0.0)], **families}
    return Recovered(side, "C&W", curves, {name: best([points]) for name, points in families.items()})


def test_the_largest_accuracy_wins_and_of_equals_the_first() -> None:
    points = [point(10, 0.2), point(20, 0.8), point(30, 0.8), point(40, 0.3)]
    chosen = best([points])
    assert (chosen.place, chosen.parameter) == (1, 20)
    assert chosen.candidates == [1, 2]  # the same images are right at 20 and at 30: nobody can tell
    assert chosen.interval() == (20, 30)


def test_one_parameter_for_two_attacks_is_that_of_their_mean() -> None:
    first = [point(1, 0.9), point(2, 0.7), point(3, 0.1)]
    second = [point(1, 0.0, n=50), point(2, 0.6, n=50), point(3, 0.9, n=50)]
    assert best([first]).parameter == 1
    assert best([second]).parameter == 3
    assert best([first, second]).parameter == 2


def test_what_few_images_say_excludes_no_parameter() -> None:
    assert best([[point(8, 0.75, n=20), point(4, 1.0, n=20)]]).interval() == (4, 8)
    assert best([[point(8, 0.70, n=20), point(4, 1.0, n=20)]]).interval() == (4, 4)


def test_a_parameter_is_excluded_by_mistake_as_rarely_as_its_interval_says() -> None:
    """Of two equally good parameters the other is a candidate in about 95 % of samples and more."""
    rng = np.random.default_rng(0)
    kept = 0
    for _ in range(200):
        shared = rng.random(100)
        points = [Point(p, (0.5 * (shared + rng.random(100)) < 0.6).astype(float), np.ones(100)) for p in (1.0, 2.0)]
        kept += len(best([points]).candidates) == 2
    assert kept >= 183  # at 95 % fewer have a chance of 1.5 %


def test_noise_of_equal_strength_does_not_distort_differently() -> None:
    """Two families that are one, on few images: whatever is chosen, nothing is refuted."""
    rng = np.random.default_rng(1)
    for _ in range(20):
        families = {
            name: [Point(p, (rng.random(20) < 0.6).astype(float), np.full(20, p)) for p in (0.1, 0.5, 1.0, 5.0, 10.0)]
            for name in ("Gauss", "Uniform")
        }
        assert same_distortion([recovered(**families)])[0].outcome == "undecided"


def test_the_spread_of_distortions_is_their_ratio_at_the_chosen_parameters() -> None:
    found = recovered(FC=[point(1, 0.1, 9.0), point(2, 0.9, 1.5)], CD=[point(8, 0.9, 1.0), point(7, 0.1, 20.0)])
    ratio, interval = spread(found)
    assert ratio == pytest.approx(1.5)
    assert interval == pytest.approx((1.5, 1.5))
    assert same_distortion([found])[0].outcome == "confirmed"
    wide = recovered(FC=[point(2, 0.9, 5.0)], CD=[point(8, 0.9, 1.0)])
    assert same_distortion([wide])[0].outcome == "refuted"


def test_the_spread_lies_between_the_least_and_the_most_that_candidates_allow() -> None:
    """FC may be at 1 or 4 (both are right on the same images), CD is at 3 for sure."""
    found = recovered(FC=[point(1, 0.9, 1.0), point(2, 0.9, 4.0)], CD=[point(8, 0.9, 3.0), point(7, 0.1, 20.0)])
    assert spread(found) == (pytest.approx(3.0), pytest.approx((1.0, 3.0)))
    assert same_distortion([found])[0].outcome == "undecided"


def test_a_channel_that_leaves_the_image_alone_is_far_from_all_others() -> None:
    """Rounding to 8 bits is such a channel for images in 8 bits."""
    found = recovered(FC=[point(1, 0.9, 2.0)], CD=[point(8, 0.9, 0.0)])
    assert spread(found) == (np.inf, (np.inf, np.inf))
    assert same_distortion([found])[0].outcome == "refuted"
    assert spread(recovered(FC=[point(1, 0.9, 0.0)], CD=[point(8, 0.9, 0.0)])) == (1.0, (1.0, 1.0))


def test_where_an_end_was_chosen_its_neighbour_should_have_been_better() -> None:
    falling = recovered(CD=[point(8, 0.9), point(7, 0.8), point(6, 0.1)])
    assert peak([falling])[0].outcome == "refuted"
    rising = recovered(CD=[point(8, 0.1), point(7, 0.8), point(6, 0.9)])
    assert peak([rising])[0].outcome == "refuted"
    flat = recovered(CD=[point(8, 0.9), point(7, 0.9), point(6, 0.1)])
    assert peak([flat])[0].outcome == "undecided"


def test_claims_on_recovery() -> None:
    found = recovered(
        FC=[point(1, 0.1), point(2, 0.8), point(3, 0.2)], CD=[point(8, 0.2), point(4, 0.8), point(2, 0.1)]
    )
    assert recovers([found])[0].outcome == "confirmed"
    assert similar([found])[0].outcome == "confirmed"
    assert peak([found])[0].outcome == "confirmed"
    other = recovered(FC=[point(1, 0.8)], CD=[point(8, 0.4)])
    assert similar([other])[0].outcome == "refuted"
    assert peak([other])[0].outcome == "undecided"  # the only parameter is its own mildest and strongest
    clean = {"a": {"FC": [point(1, 0.9), point(2, 0.9), point(3, 0.9)], "CD": [point(8, 0.9)] * 3}}
    assert bounded_by_clean([found], clean)[0].outcome == "confirmed"
    low = {"a": {"FC": [point(1, 0.5)] * 3, "CD": [point(8, 0.9)] * 3}}
    assert bounded_by_clean([found], low)[0].outcome == "refuted"


def test_milder_channels_on_the_first_side() -> None:
    small = recovered(FC=[point(1, 0.9), point(5, 0.1)])
    large = recovered("b", FC=[point(1, 0.1), point(5, 0.9)])
    assert smaller_on([small, large])[0].outcome == "confirmed"
    assert smaller_on([large, small])[0].outcome == "refuted"
    assert smaller_on([small, recovered("b", FC=[point(1, 0.9), point(5, 0.1)])])[0].outcome == "undecided"
    assert smaller_on([small]) == []
