"""Images through channels: shares and distances by hand, and the accounts of what is done."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from attacks import FGSM, Linf
from defenses import Brightness, PapersUniform
from papers import Bench, CleanAccuracy, Hybrid, Recovery, Side, Source
from papers.families import channel
from papers.passing import passed
from papers.smoke import split


class Bright(nn.Module):
    """Class 1 where the mean pixel is above 1/2, else class 0."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((1, 2, 3)) - 0.5
        return torch.stack([-mean, mean], 1)


class Images:
    """Eight uniform images, four darker and four brighter than grey, labelled so."""

    def __getitem__(self, places: list[int]) -> tuple[Tensor, Tensor]:
        x = torch.where(torch.arange(8) < 4, 0.4, 0.6).view(8, 1, 1, 1).expand(8, 3, 4, 4)
        return x[places], (torch.arange(8) >= 4).long()[places]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, lambda name: Bright(), lambda data: Images(), say=lambda line: None)


def test_a_channel_that_darkens_costs_the_bright_ones(bench: Bench) -> None:
    network = bench.network("bright")
    found = passed(bench, network, [Brightness(shift=51)], Source("", 8, size=3), 5)
    assert found["right"].tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    assert found["l2"] == pytest.approx([0.2 * 48**0.5] * 8)
    plain = passed(bench, network, [], Source("", 8, size=3), 5)
    assert plain["right"].tolist() == [1] * 8
    assert plain["l2"].tolist() == [0] * 8


def test_channels_follow_each_other_and_the_distance_is_from_the_clean_image(bench: Bench) -> None:
    found = passed(bench, bench.network("bright"), [Brightness(51), Brightness(51)], Source("", 8), 1)
    assert found["l2"] == pytest.approx([0.4 * 48**0.5] * 8)
    attack = FGSM(Linf(0.15))
    attacked = passed(bench, bench.network("bright"), [], Source("", 8), 1, attack)
    assert attacked["right"].tolist() == [0] * 8
    assert attacked["l2"] == pytest.approx([0.15 * 48**0.5] * 8, rel=1e-5)


def test_random_channels_are_passed_as_often_as_asked(bench: Bench) -> None:
    found = passed(bench, bench.network("bright"), [PapersUniform(4.0)], Source("", 8), 7)
    assert (found["right"] * 7).tolist() == pytest.approx((found["right"] * 7).round().tolist())
    assert len(set(found["right"].tolist())) > 1
    assert bench.made == 1
    passed(bench, bench.network("bright"), [PapersUniform(4.0)], Source("", 8), 7)
    assert (bench.made, bench.found) == (1, 1)


def test_two_experiments_share_what_both_need(tmp_path: Path) -> None:
    bench = Bench(tmp_path, lambda name: nn.Sequential(nn.Flatten(), nn.Linear(768, 10)), split, say=lambda line: None)
    side = {"s": Side(attacks={"FGSM": FGSM(Linf(0.1))}, tune_from=8)}
    first = Recovery("a", sides=side, n={"s": {"FGSM": 4}}, parameters={"FC": [10, 50]})
    first.run(bench)
    made = bench.made
    assert made == 2 * (1 + 3)  # for either half: one attack, and the images as they are and behind two channels
    Recovery("b", sides=side, n={"s": {"FGSM": 4}}, parameters={"FC": [50]}, against="none").run(bench)
    assert bench.made == made


def test_the_cost_counts_attacks_and_passes_for_both_halves(bench: Bench) -> None:
    side = {"s": Side(attacks={"FGSM": FGSM(Linf(0.1))}, draws=3, tune_from=4)}
    settings = {"sides": side, "parameters": {"FC": [10], "Gauss": [0.1, 0.2]}}
    both = Recovery("a", n={"s": {"FGSM": 4, "Clean": 2}}, **settings).cost(bench)  # type: ignore[arg-type]
    # Attack and its judge: 2 forward, 1 gradient. Passes: 1 as they are, 1 FC, 2 * 3 Gauss; clean ones pass once.
    assert (both.forward, both.gradient) == (2 * 4 * (2 + 8) + 2 * 4, 2 * 4 * 1)
    fewer = Recovery("a", n={"s": {"FGSM": 4, "Clean": 2}}, tune_on={"s": 1}, **settings).cost(bench)  # type: ignore[arg-type]
    assert (fewer.forward, fewer.gradient) == ((4 + 1) * (2 + 8) + 2 * 4, (4 + 1) * 1)


def test_names_that_nothing_stands_behind_are_refused() -> None:
    with pytest.raises(ValueError, match="n names PGD for s, which has Clean"):
        CleanAccuracy("a", sides={"s": Side()}, n={"s": {"PGD": 1}})
    with pytest.raises(ValueError, match="no rule is called best; known: recovers"):
        Recovery("a", rules=["best"])
    with pytest.raises(ValueError, match="tune_on takes counts above 0 for s, got s: 0"):
        Recovery("a", sides={"s": Side()}, tune_on={"s": 0})


def test_parameters_are_chosen_on_as_many_images_as_asked_for(bench: Bench) -> None:
    side = {"s": Side(attacks={"FGSM": FGSM(Linf(0.1))}, tune_from=4)}
    recovery = Recovery("a", sides=side, n={"s": {"FGSM": 4}}, parameters={"FC": [10]}, tune_on={"s": 3})
    tuned = recovery.curves(bench, "s", "FGSM", tuning=True)["FC"][0]
    others = passed(bench, bench.network("bright"), [channel("FC", 10)], Source("", 3, 4), 1, FGSM(Linf(0.1)))
    assert tuned.right.tolist() == others["right"].tolist()
    assert len(recovery.curves(bench, "s", "FGSM")["FC"][0].right) == 4
    assert "(s, FGSM: 3)" in recovery.run(bench).tables[0].caption


def test_a_pair_of_channels_is_compared_with_the_better_of_its_parts(bench: Bench) -> None:
    hybrid = Hybrid(
        "h",
        sides={"s": Side(attacks={"FGSM": FGSM(Linf(0.15))}, tune_from=4)},
        n={"s": 4},
        parameters={"s": {"CD": 1, "FC": 10}},
        pairs=[["CD", "FC"]],
    )
    findings = hybrid.run(bench)
    assert [row[1] for row in findings.tables[0].rows] == ["Iden", "CD", "FC", "CD+FC"]
    assert findings.verdicts[0].outcome in {"confirmed", "undecided"}  # nothing is gained here
    assert "CD+FC - CD: +0.0 [" in findings.verdicts[0].reason
