"""Claims about cells of a transfer matrix are paired over images."""

import numpy as np
import pytest

from papers.transfer import CellClaim

RIGHT = np.ones(50)
HALF = np.tile([0.0, 1.0], 25)
SHARES = {("FC", "CD"): RIGHT, ("CD", "FC"): HALF, ("CD", "CD"): 1 - HALF}


@pytest.mark.parametrize(
    ("pairs", "outcome"),
    [
        ([("FC>CD", "CD>FC")], "confirmed"),
        ([("CD>FC", "FC>CD")], "refuted"),
        ([("CD>FC", "CD>CD")], "undecided"),  # the same accuracy on other images
        ([("FC>CD", "CD>FC"), ("CD>FC", "FC>CD")], "refuted"),
    ],
)
def test_a_claim_holds_where_all_its_pairs_do(pairs: list[tuple[str, str]], outcome: str) -> None:
    assert CellClaim("one keeps more than the other", pairs).verdict(SHARES).outcome == outcome


@pytest.mark.parametrize(
    ("limits", "outcome"),
    [
        ({"by": 20.0}, "confirmed"),
        ({"by": 80.0}, "refuted"),
        ({"by": 50.0}, "undecided"),
        ({"by_at_most": 80.0}, "confirmed"),
        ({"by_at_most": 20.0}, "refuted"),
        ({"by_at_most": 50.0}, "undecided"),
    ],
)
def test_a_claim_may_say_by_how_much(limits: dict[str, float], outcome: str) -> None:
    """The difference is 50 points, its interval some 15 to either side."""
    claim = CellClaim("FC keeps more", [("FC>CD", "CD>FC")], **limits)  # type: ignore[arg-type]
    assert claim.verdict(SHARES).outcome == outcome


@pytest.mark.parametrize(("limit", "most", "least"), [(80.0, "confirmed", "refuted"), (20.0, "refuted", "confirmed")])
def test_a_claim_may_limit_a_cell(limit: float, most: str, least: str) -> None:
    assert CellClaim("half", at_most={"CD>FC": limit}).verdict(SHARES).outcome == most
    assert CellClaim("half", at_least={"CD>FC": limit}).verdict(SHARES).outcome == least
    assert CellClaim("half", at_most={"CD>FC": 50.0}).verdict(SHARES).outcome == "undecided"


def test_the_reason_names_the_cells_and_their_difference() -> None:
    verdict = CellClaim("FC keeps more", [("FC>CD", "CD>FC")]).verdict(SHARES)
    assert verdict.reason.startswith("FC>CD over CD>FC: +50.0 [")


def test_unknown_cells_are_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown cell FC>SVD; cells: FC>CD, CD>FC, CD>CD"):
        CellClaim("text", [("FC>CD", "FC>SVD")]).verdict(SHARES)
