"""`--checks full` from the first check to the last: silent on an honest model, not on a masked one."""

from functools import partial
from pathlib import Path

import pytest

from attacks import PGD, Linf
from evaluation.checks import format_checks
from evaluation.checks.binarization import binarization
from tests.evaluation.checks_toys import EPS, FEW, Shattered, evaluated, names, plain

PGD12 = PGD(Linf(EPS), step_size=EPS / 4, steps=12)


@pytest.fixture(autouse=True)
def _fewer_points(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the binarization test: 200 inside the ball are enough for a network of 256 features."""
    monkeypatch.setattr("evaluation.checks.run.binarization", partial(binarization, inner=200))


def test_an_honest_model_is_not_doubted(tmp_path: Path) -> None:
    checks = evaluated(plain(), {"pgd": PGD12}, tmp_path, n=FEW).checks(level="full")
    assert not names(checks, "doubt"), format_checks(list(checks.values()))
    asked_for = {
        "more steps",
        "more restarts",
        "larger radius",
        "unbounded",
        "black box",
        "random points",
        "binarization",
    }
    assert asked_for <= names(checks, "pass"), format_checks(list(checks.values()))
    assert "10000" in checks["random points"].text.replace(",", "")
    assert checks["binarization"].figures["n"] + checks["binarization"].figures["failed_setup"] == FEW


def test_a_masked_model_is_doubted(tmp_path: Path) -> None:
    checks = evaluated(Shattered(plain()), {"pgd": PGD12}, tmp_path, n=FEW).checks(level="full")
    assert {"unbounded", "black box", "binarization"} <= names(checks, "doubt"), format_checks(list(checks.values()))
