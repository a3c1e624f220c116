"""Claims about cells of a transfer matrix are paired over images."""

from pathlib import Path

import numpy as np
import pytest

from attacks import Adversary, Attack, CarliniWagner, StraightThrough
from defenses import Channel, ColourDepth, FFTCompression
from papers import Bench, smoke
from papers.experiment import Value
from papers.transfer import CellClaim, Transfer

RIGHT = np.ones(50)
HALF = np.tile([0.0, 1.0], 25)
SHARES = {("FC", "CD"): RIGHT, ("CD", "FC"): HALF, ("CD", "CD"): 1 - HALF}
BROKEN = {"FC": 1.0, "CD": 0.6}


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
    assert CellClaim("one keeps more than the other", pairs).verdict(SHARES, BROKEN).outcome == outcome


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
    assert claim.verdict(SHARES, BROKEN).outcome == outcome


@pytest.mark.parametrize(("limit", "most", "least"), [(80.0, "confirmed", "refuted"), (20.0, "refuted", "confirmed")])
def test_a_claim_may_limit_a_cell(limit: float, most: str, least: str) -> None:
    assert CellClaim("half", at_most={"CD>FC": limit}).verdict(SHARES, BROKEN).outcome == most
    assert CellClaim("half", at_least={"CD>FC": limit}).verdict(SHARES, BROKEN).outcome == least
    assert CellClaim("half", at_most={"CD>FC": 50.0}).verdict(SHARES, BROKEN).outcome == "undecided"


def test_the_reason_names_the_cells_and_their_difference() -> None:
    verdict = CellClaim("FC keeps more", [("FC>CD", "CD>FC")]).verdict(SHARES, BROKEN)
    assert verdict.reason.startswith("FC>CD over CD>FC: +50.0 [")


def test_unknown_cells_are_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown cell FC>SVD; cells: FC>CD, CD>FC, CD>CD"):
        CellClaim("text", [("FC>CD", "FC>SVD")]).verdict(SHARES, BROKEN)


@pytest.mark.parametrize("claim", [CellClaim("text", [("CD>FC", "FC>CD")]), CellClaim("text", at_most={"FC>CD": 20.0})])
def test_an_attack_that_failed_refutes_nothing(claim: CellClaim) -> None:
    assert claim.verdict(SHARES, BROKEN).outcome == "refuted"
    weak = claim.verdict(SHARES, {**BROKEN, "FC": 0.3})
    assert (weak.outcome, weak.reason) == ("undecided", "attacks broke too few images on their own channel: FC 30 %")


def test_images_that_come_back_unmoved_were_not_broken(tmp_path: Path) -> None:
    """An attack of no steps finds nothing; one that is strong enough moves what was right."""
    bench = Bench(tmp_path, smoke.network, smoke.split, say=lambda line: None)

    def broken(attack: Attack) -> float:
        found = Transfer("test", n=20, channels={"CD": ColourDepth(4)}, attack=attack, draws=1).run(bench)
        (table,) = (table for table in found.tables if table.name == "attacks")
        (value,) = (row[2] for row in table.rows if row[1] == "broken (%)")
        assert isinstance(value, Value)
        return value.value

    assert broken(CarliniWagner(steps=0)) == 0
    assert broken(Adversary(CarliniWagner(steps=20, search_steps=4), StraightThrough())) == 100


def test_rows_that_were_not_printed_stay_blank_beside_ours(tmp_path: Path) -> None:
    bench = Bench(tmp_path, smoke.network, smoke.split, say=lambda line: None)
    channels: dict[str, Channel] = {"CD": ColourDepth(4), "FC": FFTCompression(50)}
    printed = {"FC": {"CD": 70.0, "FC": 0.1}}
    experiment = Transfer("test", n=4, channels=channels, attack=CarliniWagner(steps=0), draws=1, printed=printed)
    ours, theirs = experiment.run(bench).figures["matrix"].axes
    rows = [[label.get_text() for label in axes.get_yticklabels()] for axes in (ours, theirs)]
    assert rows == [["Empty", "CD", "FC"]] * 2
    assert sorted(text.get_text() for text in theirs.texts) == ["0.1", "70.0"]
    assert [text.get_position()[1] for text in theirs.texts] == [2, 2]
