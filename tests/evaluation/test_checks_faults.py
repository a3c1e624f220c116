"""What goes wrong in one check, or takes too long, costs this check only."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from attacks import PGD, Linf, Margin
from evaluation.checks import comparisons, extra
from tests.evaluation.checks_toys import EPS, Evaluated, Scaled, evaluated, names, noisy, plain

PGD2 = PGD(Linf(EPS), EPS / 2, 2)


@pytest.fixture
def run(tmp_path: Path) -> Evaluated:
    return evaluated(plain(), {"pgd2": PGD2}, tmp_path / "evaluation", n=8, batch=4)


def test_other_checks_lie_side_by_side(run: Evaluated, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a surrogate, without, and of other weights."""
    first, surrogate = run.checks(), run.checks(surrogate=noisy())
    run.model = Scaled(plain(), 1.0)
    run.checks(until=0.0)
    assert len(list((run.folder / "checks").iterdir())) == 3
    assert first["transfer"].verdict == "not run"
    assert "surrogate" in surrogate["transfer"].text
    run.model = plain()
    monkeypatch.setattr(extra, "examine", None)  # all rows are there
    assert run.checks() == first
    assert run.checks(surrogate=noisy()) == surrogate


def fails_at(monkeypatch: pytest.MonkeyPatch, name: str, error: BaseException) -> None:
    original = extra.examine

    def examine(model: Any, images: Any, first: int, adversary: str, *others: Any) -> Any:
        if adversary == f"checks/{name}":
            raise error
        return original(model, images, first, adversary, *others)

    monkeypatch.setattr(extra, "examine", examine)


@pytest.mark.parametrize(
    ("adversary", "check"),
    [
        ("single_step", "single step"),
        ("double_steps", "more steps"),
        ("unbounded", "unbounded"),
        ("square", "black box"),
        ("random_points", "random points"),
    ],
)
def test_an_adversary_that_fails_costs_its_check(
    adversary: str, check: str, run: Evaluated, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    with monkeypatch.context() as patch:
        fails_at(patch, adversary, RuntimeError(f"out of memory\n  tried {'much ' * 100}"))
        checks = run.checks(progress=said.append)
    found = checks.pop(check)
    assert found.verdict == "not run"
    assert found.text.startswith(f"{adversary}: RuntimeError: out of memory tried much")
    assert len(found.text) < 300
    assert said[1].startswith("checks: given up (RuntimeError: out of memory")
    assert said[1].endswith(f": {adversary}")
    whole = run.checks()  # tried again
    assert whole.pop(check).verdict != "not run"
    assert whole == checks


def test_a_question_that_fails_costs_its_answer(run: Evaluated, monkeypatch: pytest.MonkeyPatch) -> None:
    def radii(tables: Any) -> None:
        raise IndexError("nothing\nthere")

    expected = run.checks()
    monkeypatch.setattr(comparisons, "radii", radii)
    checks = run.checks()
    assert (checks["larger radius"].verdict, checks["larger radius"].text) == ("not run", "IndexError: nothing there")
    assert {**checks, "larger radius": None} == {**expected, "larger radius": None}


def test_without_the_attack_that_is_varied_little_is_asked(run: Evaluated, monkeypatch: pytest.MonkeyPatch) -> None:
    """A suite without PGD: checks have one of their own, on which most of them rest."""
    run.attacks, run.rows = {"points": extra.RandomPoints(ball=Linf(EPS), trials=2)}, {"clean": run.rows["clean"]}
    fails_at(monkeypatch, "reference", FloatingPointError("NaN"))
    checks = run.checks()
    assert {"gradients", "loss rises", "black box", "random points", "more steps"} <= names(checks, "not run")
    assert checks["loss rises"].text == "FloatingPointError: NaN"
    assert len(checks) == 24


def test_who_interrupts_is_obeyed(run: Evaluated, monkeypatch: pytest.MonkeyPatch) -> None:
    fails_at(monkeypatch, "square", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        run.checks()


def test_out_of_time_nothing_long_is_begun(run: Evaluated, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(extra, "examine", None)
        checks = run.checks(until=time.monotonic() - 1, progress=said.append)
    late = {name for name, check in checks.items() if check.text.endswith("no time left (--budget)")}
    assert {"gradients", "unstable answers", "single step", "more steps", "black box", "unbounded"} <= late
    assert names(checks, "pass") | names(checks, "doubt") <= {
        "labels and pixels", "logits", "clean accuracy", "loss rises", "silent success",
    }  # fmt: skip
    assert len([line for line in said if "no time left" in line]) == 1
    assert names(run.checks(until=time.monotonic() + 3600), "not run") < late | names(checks, "not run")


def test_a_late_batch_is_left_for_another_time(run: Evaluated, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done by then is kept."""
    batches = iter([0.0, 0.0, 0.0])
    monkeypatch.setattr("evaluation.checks.subject.time.monotonic", lambda: next(batches, 2.0))
    checks = run.checks(until=1.0)
    assert checks["single step"].verdict != "not run"
    (folder,) = (run.folder / "checks").iterdir()
    assert len(list(folder.rglob("*.parquet"))) == 3


def test_the_attack_of_the_evaluation_is_part_of_the_folder(run: Evaluated) -> None:
    run.checks(until=0.0)
    run.attacks = {"pgd2": replace(PGD2, loss=Margin())}
    run.checks(until=0.0)
    assert len(list((run.folder / "checks").iterdir())) == 2
