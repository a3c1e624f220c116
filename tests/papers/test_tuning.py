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
    assert set(chosen.places.tolist()) == {1}  # the same images are right at 20 and at 30


def test_one_parameter_for_two_attacks_is_that_of_their_mean() -> None:
    first = [point(1, 0.9), point(2, 0.7), point(3, 0.1)]
    second = [point(1, 0.0, n=50), point(2, 0.6, n=50), point(3, 0.9, n=50)]
    assert best([first]).parameter == 1
    assert best([second]).parameter == 3
    assert best([first, second]).parameter == 2


def test_a_choice_between_equals_is_unsure() -> None:
    rng = np.random.default_rng(0)
    points = [Point(p, (rng.random(100) < 0.7).astype(float), np.ones(100)) for p in (1.0, 2.0)]
    assert best([points]).interval() == (1.0, 2.0)


def test_the_spread_of_distortions_is_their_ratio_at_the_chosen_parameters() -> None:
    found = recovered(FC=[point(1, 0.1, 9.0), point(2, 0.9, 1.5)], CD=[point(8, 0.9, 1.0), point(7, 0.1, 20.0)])
    ratio, interval = spread(found)
    assert ratio == pytest.approx(1.5)
    assert interval == pytest.approx((1.5, 1.5))
    assert same_distortion([found])[0].outcome == "confirmed"
    wide = recovered(FC=[point(2, 0.9, 5.0)], CD=[point(8, 0.9, 1.0)])
    assert same_distortion([wide])[0].outcome == "refuted"


def test_a_channel_that_leaves_the_image_alone_is_far_from_all_others() -> None:
    """Rounding to 8 bits is such a channel for images in 8 bits."""
    found = recovered(FC=[point(1, 0.9, 2.0)], CD=[point(8, 0.9, 0.0)])
    ratio, interval = spread(found)
    assert min(ratio, *interval) > 1e8
    assert same_distortion([found])[0].outcome == "refuted"
    assert spread(recovered(FC=[point(1, 0.9, 0.0)], CD=[point(8, 0.9, 0.0)]))[0] == 1.0


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
