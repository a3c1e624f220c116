"""What docs/evaluation.md says that the suites cost, against what they do on networks that cost nothing."""

import dataclasses
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import nn

from attacks import PGD, Adversary, Attack, CrossEntropy, FixedCarliniWagner, Linf, Margin, Square
from callbacks.suites import SUITES, read_suite
from defenses import GaussianNoise, RobustNet
from evaluation import per_image

TEXT = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text()
NUMBERS = r"(?P<about>about |some )?(?P<plain>[\d,]+)(?: / (?P<random>[\d,]+))?"
ROW = re.compile(rf"^\| `(?P<suite>\w+)` \| .* \| {NUMBERS} \|$", re.M)
TABLE = {row["suite"]: row for row in ROW.finditer(TEXT.split("## The suites")[1].split("\n## ")[0])}
IMAGE = torch.zeros(3, 32, 32)
LONG = ("adaptive_8x", "autoattack", "full", "papers")  # up to minutes
# What no number of gradients depends on, set to what is soon counted or the same for all.
_SAME = {"queries": 10, "c": 1.0, "step_size": 0.01, "loss": CrossEntropy()}


def network(random: bool) -> nn.Module:
    plain = nn.Sequential(nn.Conv2d(3, 2, 3, stride=8), nn.Flatten(), nn.Linear(32, 10))
    return RobustNet(plain, init=GaussianNoise(0.1)) if random else plain


def simplified(attack: Attack) -> Attack:
    """One that takes as many gradients, fewer queries, and equals others that do."""
    own = {field.name: getattr(attack, field.name) for field in dataclasses.fields(attack)}  # type: ignore[arg-type]
    inner = {name: simplified(part) for name, part in own.items() if isinstance(part, Attack)}
    changed: Attack = dataclasses.replace(
        attack,  # type: ignore[type-var]
        **inner,
        **{name: value for name, value in _SAME.items() if name in own},
    )
    return changed


@cache
def gradients(attack: Attack, random: bool) -> int:
    return per_image(network(random), {"it": attack}, IMAGE, 10)["it"].gradient


def cost(attacks: Iterable[Attack], random: bool) -> int:
    return sum(gradients(simplified(attack), random) for attack in attacks)


@pytest.mark.parametrize(
    "suite",
    [
        pytest.param(path.stem, marks=[pytest.mark.slow, pytest.mark.timeout(900)] if path.stem in LONG else [])
        for path in sorted(SUITES.glob("*.yaml"))
    ],
)
def test_a_suite_costs_what_the_table_says(suite: str) -> None:
    row, attacks = TABLE[suite], read_suite(suite)
    for random, said in ((False, row["plain"]), (True, row["random"] or row["plain"])):
        off = 0.1 if row["about"] else 0
        assert cost(attacks.values(), random) == pytest.approx(int(said.replace(",", "")), rel=off)


def test_the_table_has_all_suites_and_no_other() -> None:
    assert set(TABLE) == {path.stem for path in SUITES.glob("*.yaml")}


def test_what_is_to_be_reported_costs_at_most_1000_gradients() -> None:
    assert cost(read_suite("adaptive").values(), random=True) <= 1000


def test_simpler_attacks_take_as_many_gradients() -> None:
    attacks: dict[str, Attack] = {
        "margin": Adversary(PGD(Linf(0.1), step_size=0.3, steps=4, restarts=2, loss=Margin()), draws=3),
        "c": FixedCarliniWagner(c=7.0, steps=6),
        "queries": Square(Linf(0.1), queries=40),
    }
    for random in (False, True):
        costs = per_image(network(random), attacks, IMAGE, 10)
        for name, attack in attacks.items():
            assert simplified(attack) != attack
            assert gradients(simplified(attack), random) == costs[name].gradient
