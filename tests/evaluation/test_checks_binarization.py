"""The binarization test: sound attacks pass, blinded ones do not, on networks whose features are known."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from attacks import DLR, PGD, Adversary, Attack, Linf, StraightThrough
from defenses import ColourDepth, Defended, PNIActivations, PNIWeights, RobustNet
from evaluation.checks.binarization import Binarized, LastLinear, _verdict, binarization
from evaluation.checks.check import Check
from evaluation.checks.diagnostics import Reference, as_adversary
from models import ResNet20
from tests.evaluation.checks_toys import (
    EPS,
    FEATURES,
    PGD24,
    Scaled,
    Shattered,
    digits,
    network,
    noisy,
    plain,
    rows_with,
)


def result(model: nn.Module, attack: Attack, folder: Path, n: int = 16, inner: int = 200) -> Check:
    x, y = digits("test", n)
    batches = list(zip(x.split(8), y.split(8), strict=True))
    return binarization(
        model, batches, folder, Reference(as_adversary(attack), "attack"), seed=0, draws=15, inner=inner
    )


def test_a_sound_attack_breaks_what_can_be_broken(tmp_path: Path) -> None:
    check = result(plain(), PGD24, tmp_path)
    assert check.verdict == "pass"
    assert check.figures["broken"] == check.figures["n"] == 16
    assert check.figures["random"] <= 1


def test_a_random_network_is_tested_by_majorities(tmp_path: Path) -> None:
    check = result(noisy(), Adversary(PGD24, draws=2), tmp_path)
    assert check.verdict == "pass"
    assert check.figures["n"] >= 4
    assert check.figures["n"] + check.figures["failed_setup"] == 16


@pytest.mark.parametrize("mask", ["rounding", "shattered", "no steps"])
def test_a_blinded_attack_is_doubted(mask: str, tmp_path: Path) -> None:
    model = {"rounding": lambda: Defended(plain(), [ColourDepth(3)]), "shattered": lambda: Shattered(plain())}
    attack = PGD(Linf(EPS), step_size=0.0, steps=3) if mask == "no steps" else PGD24
    check = result(model.get(mask, plain)(), attack, tmp_path)
    assert check.verdict == "doubt"
    assert check.figures["broken"] < 0.8 * check.figures["n"]


def test_straight_through_sees_through_rounding(tmp_path: Path) -> None:
    check = result(Defended(plain(), [ColourDepth(3)]), Adversary(PGD24, StraightThrough()), tmp_path)
    assert check.figures["broken"] >= 0.75 * check.figures["n"]


def test_a_scale_of_the_logits_is_no_matter(tmp_path: Path) -> None:
    assert result(Scaled(plain()), PGD24, tmp_path / "a") == result(plain(), PGD24, tmp_path / "b")


def test_it_goes_on_where_it_stopped(tmp_path: Path) -> None:
    expected = result(plain(), PGD24, tmp_path)
    next(tmp_path.rglob("attacked/000001.parquet")).unlink()
    assert result(plain(), PGD24, tmp_path) == expected


def test_what_cannot_be_tested_says_why(tmp_path: Path) -> None:
    check = result(plain(), replace(PGD24, loss=DLR()), tmp_path)
    assert check.verdict == "not run"
    assert "more than two classes" in check.text
    convolutions = nn.Sequential(nn.Conv2d(1, 10, 8), nn.Flatten())
    assert "no nn.Linear" in result(convolutions, PGD24, tmp_path / "b").text


def test_features_are_the_last_layers_input() -> None:
    model, (x, _) = plain(), digits("test", 4)
    torch.testing.assert_close(LastLinear(model)(x), model[:-1](x))
    assert not any(part._forward_pre_hooks for part in model.modules())


@pytest.mark.parametrize(
    "build",
    [
        ResNet20,
        lambda: RobustNet(ResNet20()),
        lambda: PNIWeights(ResNet20()),
        lambda: PNIActivations(ResNet20()),
    ],
)
def test_features_of_every_kind_of_network_are_found(build: type[nn.Module]) -> None:
    assert LastLinear(build().eval())(torch.rand(2, 3, 32, 32)).shape == (2, 64)


def test_copies_of_a_batch_meet_their_own_classifiers() -> None:
    model, (x, _) = network().eval(), digits("test", 3)
    weight, bias = torch.randn(3, FEATURES), torch.randn(3)
    logits = Binarized(model, weight, bias)(torch.cat([x, x]))
    score = (model[:-1](x) * weight).sum(1) + bias
    torch.testing.assert_close(logits[:, 1] - logits[:, 0], torch.cat([score, score]))


@pytest.mark.parametrize(
    ("attacked", "lucky", "verdict"),
    [(40, 0, "pass"), (40, 40, "not run"), (40, 38, "not run"), (40, 30, "pass"), (20, 0, "doubt"), (20, 40, "doubt")],
)
def test_success_counts_only_beyond_luck(attacked: int, lucky: int, verdict: str) -> None:
    """Of 40 images; the random points break the same ones first."""
    broken = {"original": 0, "border": 0, "attacked": attacked, "random": lucky}
    rows = {part: rows_with(np.arange(40)[:, None] >= count, part) for part, count in broken.items()}
    check = _verdict(rows, 24)
    assert check.verdict == verdict
    assert f"broke {attacked} of 40 images" in check.text
    assert ("too easy" in check.text) == (verdict == "not run")
