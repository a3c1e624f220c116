"""Masked models are doubted, each by the check that is meant for it; honest ones by none."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from torch import nn

from attacks import DDN, PGD, Adversary, Attack, Frozen, Linf, Margin, Oblivious, StraightThrough
from defenses import ColourDepth, Defended, PNIWeights
from evaluation.checks import format_checks
from tests.evaluation.checks_toys import (
    EPS,
    FEW,
    PGD24,
    Scaled,
    Shattered,
    evaluated,
    names,
    network,
    noisy,
    plain,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "evaluation"


EOT = Adversary(PGD24, draws=4)
Expected = set[str]
MASKED: dict[str, tuple[Callable[[], nn.Module], Attack, Expected]] = {
    "rounding, attacked through its own derivative": (
        lambda: Defended(plain(), [ColourDepth(3)]),
        PGD24,
        {"gradients", "loss rises", "unbounded", "black box", "transfer", "adaptive view"},
    ),
    "logits times 10,000": (
        lambda: Scaled(plain()),
        PGD24,
        {"gradients", "softmax", "loss rises", "unbounded", "black box"},
    ),
    "shattered gradients": (
        lambda: Shattered(plain()),
        PGD24,
        {"unbounded", "black box"},
    ),
    "one draw of another seed": (
        noisy,
        Adversary(PGD24, Frozen(seed=7)),
        {"gradients over draws", "adaptive view", "frozen noise"},
    ),
}
HONEST: dict[str, tuple[Callable[[], nn.Module], dict[str, Attack]]] = {
    "plain": (plain, {"pgd24": PGD24}),
    "noisy": (noisy, {"eot": EOT, "oblivious": Adversary(PGD24, Oblivious())}),
    "noisy, one draw a step": (noisy, {"pgd24": PGD24}),
    "plain behind rounding, straight through": (
        lambda: Defended(plain(), [ColourDepth(3)]),
        {"bpda": Adversary(PGD24, StraightThrough())},
    ),
    "logits times 10,000, a loss without softmax": (
        lambda: Scaled(plain()),
        {"margin": replace(PGD24, loss=Margin())},
    ),
}


@pytest.mark.parametrize("name", MASKED)
def test_a_masked_model_is_doubted(name: str, folder: Path) -> None:
    model, attack, expected = MASKED[name]
    checks = evaluated(model(), {"attack": attack}, folder).checks()
    assert expected <= names(checks, "doubt"), format_checks(list(checks.values()))


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_model_is_not(name: str, folder: Path) -> None:
    model, attacks = HONEST[name]
    other = noisy() if model is plain else plain()
    checks = evaluated(model(), attacks, folder).checks(surrogate=other)
    assert not names(checks, "doubt"), format_checks(list(checks.values()))
    assert {"labels and pixels", "single step", "more steps", "larger radius", "unbounded"} <= names(checks, "pass")
    assert {"black box", "transfer", "random points", "unstable answers", "loss rises"} <= names(checks, "pass")


def test_the_figures_say_what_the_text_says(folder: Path) -> None:
    run = evaluated(plain(), {"pgd24": PGD24}, folder)
    checks = run.checks()
    right = run.rows["pgd24"].right.mean()
    assert f"{100 * right:.1f} % under the direct attack" in checks["black box"].text
    assert checks["clean accuracy"].figures["accuracy"] == pytest.approx(run.rows["clean"].right.mean())
    assert checks["loss rises"].figures["n"] == run.rows["pgd24"].right.sum()
    for check in checks.values():
        assert (check.verdict == "not run") == (not check.figures)
        assert "\n" not in check.text
        assert check.source
        assert all(type(value) is float for value in check.figures.values())
        json.dumps(check.figures, allow_nan=False)


def test_doubts_are_printed_first(folder: Path) -> None:
    checks = evaluated(Scaled(plain()), {"pgd24": PGD24}, folder, n=FEW).checks()
    lines = format_checks(list(checks.values())).splitlines()
    verdicts = [line.split("  ")[0].strip() for line in lines]
    assert len(lines) == len(checks)
    assert verdicts == sorted(verdicts, key=["doubt", "pass", "not run"].index)
    with pytest.raises(ValueError, match="no check was given"):
        format_checks([])


def test_checks_that_were_killed_go_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = evaluated(noisy(), {"pgd24": PGD24}, folder, n=FEW, batch=FEW // 2)
    expected = run.checks()
    parts = sorted((folder / "checks").rglob("*.parquet"))
    assert len(parts) > 20
    for part in parts[::3]:
        part.unlink()
    assert run.checks() == expected
    with monkeypatch.context() as patch:  # nothing is attacked where nothing is missing
        patch.setattr("evaluation.checks.extra.examine", None)
        assert run.checks() == expected


def test_the_model_is_left_as_it_was(folder: Path) -> None:
    run = evaluated(noisy(), {"pgd24": PGD24}, folder, n=FEW)
    run.model.train()
    run.checks(surrogate=plain())
    assert all(part.training for part in run.model.modules())
    assert all(parameter.grad is None or not parameter.grad.isnan().any() for parameter in run.model.parameters())
    assert not any(part._forward_pre_hooks for part in plain().modules())
    run.model.eval()


def test_an_attack_that_is_too_short_is_doubted(folder: Path) -> None:
    """Six steps that cannot reach the border: twice as many do."""
    short = PGD(Linf(EPS), step_size=EPS / 12, steps=6, random_start=False)
    checks = evaluated(plain(), {"short": short}, folder).checks()
    assert {"more steps", "single step"} <= names(checks, "doubt")
    longer = replace(short, steps=48, step_size=EPS / 48)
    unfinished = evaluated(plain(), {"longer": longer}, folder / "longer").checks()["incomplete optimisation"]
    assert unfinished.verdict == "doubt"
    # The last 10 of 24 steps make much of any course.
    few = evaluated(plain(), {"few": replace(longer, steps=24)}, folder / "few").checks()["incomplete optimisation"]
    assert few.verdict == "not run"


def test_few_images_raise_no_doubt_about_differences(folder: Path) -> None:
    run = evaluated(Shattered(plain()), {"pgd24": PGD24}, folder, n=FEW)
    run.batches = [(run.batches[0][0][:3], run.batches[0][1][:3])]
    # Of three images one may not stay unbroken where everything is allowed; that is no matter of chance.
    assert not names(run.checks(), "doubt") & {"single step", "larger radius", "random points", "loss rises"}


def test_without_a_ball_only_the_model_is_asked(folder: Path) -> None:
    checks = evaluated(plain(), {"ddn": DDN(steps=5)}, folder, n=FEW).checks()
    assert names(checks, "pass") == {"labels and pixels", "logits", "clean accuracy"}
    with_ball = evaluated(plain(), {"pgd": PGD(Linf(EPS), EPS, 1)}, folder / "ball", n=4).checks()
    assert list(checks) == list(with_ball)
    assert len(checks) == 24
    assert "has a ball" in checks["black box"].text


def test_rows_of_other_images_are_refused(folder: Path) -> None:
    run = evaluated(plain(), {"pgd24": PGD24}, folder, n=FEW)
    run.batches = run.batches * 2
    with pytest.raises(ValueError, match=r"^checks are made on images 0 to 79; clean holds 40 of them$"):
        run.checks()


def test_weight_noise_is_checked_too(folder: Path) -> None:
    model = PNIWeights(network(), alpha=0.1)
    model.load_state_dict({"network.0.parametrizations.weight.original": plain()[0].weight}, strict=False)
    checks = evaluated(model, {"eot": replace(EOT, draws=2)}, folder, n=FEW).checks()
    assert checks["gradients over draws"].verdict == "pass"
    assert checks["frozen noise"].verdict == "pass"
