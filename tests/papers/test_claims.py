"""Verdicts on claims: what confirms, what refutes, what is left open."""

import numpy as np
import pytest

from papers import AttackCurve, Claim, Ordering
from papers.claims import verdict_on
from papers.curve import Axis

AXES: dict[str, Axis] = {"p": "strength"}


def defense(share: float, l2: float = 1.0) -> AttackCurve:
    """Keeps the first share of 100 images under the one attack there is, of strength 0.4."""
    right = np.array([np.ones(100, dtype=bool), np.arange(100) < 100 * share])[:, :, None]
    norms = np.repeat([[0.0], [l2]], 100, axis=1)
    return AttackCurve(np.array([0.0, 0.4]), right, norms, norms)


CURVES = {("p", "high"): defense(0.8, 0.6), ("p", "mid"): defense(0.5), ("p", "like mid"): defense(0.52)}


@pytest.mark.parametrize(
    ("pairs", "outcome"),
    [
        ([("high", "mid")], "confirmed"),
        ([("mid", "high")], "refuted"),
        ([("like mid", "mid")], "undecided"),
        ([("high", "mid"), ("like mid", "mid")], "undecided"),
        ([("high", "mid"), ("high", "like mid")], "confirmed"),
        ([("high", "mid"), ("mid", "high"), ("like mid", "mid")], "refuted"),
    ],
)
def test_a_claim_stands_if_all_of_its_orderings_do(pairs: list[tuple[str, str]], outcome: str) -> None:
    claim = Claim("a claim", [Ordering("p", *pair) for pair in pairs])
    found = verdict_on(claim, CURVES, AXES, {})
    assert (found.claim, found.outcome) == ("a claim", outcome)
    assert all(f"{higher} - {lower}: " in found.reason for higher, lower in pairs)


def test_an_interval_that_is_told_holds_0_where_few_images_differ() -> None:
    """The first of 100 images: 50 and 52 are right. Wilson's bounds of 2 and 0 of 100 lie at 7.0 and 3.7 points."""
    found = verdict_on(Claim("a claim", [Ordering("p", "like mid", "mid")]), CURVES, AXES, {})
    assert found.reason == "p, 0.4: like mid - mid: +2 points [-3.15, +7]"


def test_a_claim_about_distances_is_not_one_about_accuracy() -> None:
    claim = Claim("longer", [Ordering("p", "mid", "high", (0.4, 0.4), "l2")])
    found = verdict_on(claim, CURVES, AXES, {})
    assert found.outcome == "confirmed"
    assert "+0.4 L2" in found.reason


def test_what_is_not_there_is_not_tested() -> None:
    claim = Claim("a claim", [Ordering("p", "high", "gone")])
    found = verdict_on(claim, CURVES, AXES, {"gone": "train it"})
    assert (found.outcome, found.reason) == ("not testable here", "gone: train it")
    found = verdict_on(Claim("another", why_not="no data"), CURVES, AXES, {})
    assert (found.outcome, found.reason) == ("not testable here", "no data")


def test_a_range_without_points_leaves_it_open() -> None:
    found = verdict_on(Claim("a claim", [Ordering("p", "high", "mid", (1.0, 2.0))]), CURVES, AXES, {})
    assert found.outcome == "undecided"
    assert "no common range" in found.reason
