"""The end of an evaluation: numbers first, then checks; whatever happens to these, the numbers stay."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from cli.checks import refuse_stranger
from cli.names import UsageError
from tests.cli.conftest import Outcome
from tests.cli.test_evaluation import FEW, SUITE, folder_in, of

Evaluate = Callable[..., Outcome]


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    (tmp_path / "small.yaml").write_text(SUITE)
    return tmp_path / "small.yaml"


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is too late for any check that has to be in time."""
    monkeypatch.setattr("evaluation.checks.subject.time", SimpleNamespace(monotonic=lambda: float("inf")))


def raising(error: BaseException) -> Callable[..., Any]:
    def fails(*arguments: Any, **options: Any) -> None:
        raise error

    return fails


def test_checks_that_end_everything_leave_the_numbers(
    evaluate: Evaluate, trained: Path, suite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cli.checks.run_checks", raising(KeyboardInterrupt()))
    outcome = evaluate(trained, "--suite", suite, *FEW)
    assert (outcome.code, outcome.err) == (130, "interrupted\n")
    results = of(folder_in(trained))
    assert [summary["adversary"] for summary in results["summaries"]] == ["clean", "pgd2", "ddn3"]
    assert results["checks"] == []
    assert "pgd2" in (folder_in(trained) / "report.html").read_text()
    assert "worst case" in outcome.out


@pytest.mark.usefixtures("late")
def test_a_budget_keeps_time_for_checks_and_ends_them(evaluate: Evaluate, trained: Path, suite: Path) -> None:
    words = [trained, "--suite", suite, *FEW, "--keep", "0"]
    outcome = evaluate(*words, "--budget", "10h")
    assert (outcome.code, outcome.err) == (0, "")
    lines = outcome.out.splitlines()
    (announced,) = [line for line in lines if line.startswith("checks (quick): about ")]
    assert "of them with a gradient; about " in announced
    (budget,) = [line for line in lines if line.startswith("budget ")]
    assert budget.startswith("budget 10 h 0 min, ")
    assert budget.endswith(" of it kept for the checks: about 12 images")
    results = of(folder_in(trained))
    checks = {check["name"]: check for check in results["checks"]}
    assert checks["larger radius"]["verdict"] == "not run"
    assert checks["larger radius"]["text"].endswith("no time left (--budget)")
    assert lines.index(budget) < outcome.out[: outcome.out.index("worst case")].count("\n")
    assert outcome.out.index("worst case") < outcome.out.index("checks: given up")
    page = (folder_in(trained) / "report.html").read_text()
    assert "no time left (--budget)" in page
    (manifest,) = folder_in(trained).glob("checks/quick_12_*/manifest.json")
    assert json.loads(manifest.read_text())["batches"] == [4, 4, 4]


def test_at_most_a_third_of_a_budget_is_kept(
    evaluate: Evaluate, trained: Path, suite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cli.evaluation.timed", lambda network, x: (10.0, 20.0))
    outcome = evaluate(trained, "--suite", suite, *FEW, "--budget", "6m")
    assert (outcome.code, len(outcome.err.splitlines())) == (2, 1)
    assert "--budget 360s, 2 min of it kept for the checks: one batch of 4 images takes about " in outcome.err


def test_a_surrogate_for_another_task_is_refused_before_anything(
    evaluate: Evaluate, trained: Path, suite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger = SimpleNamespace(network=nn.Sequential(nn.Flatten(), nn.Linear(64, 7)))
    monkeypatch.setattr("cli.evaluate.target_at", lambda place, words: stranger)
    outcome = evaluate(trained, "--suite", suite, *FEW, "--surrogate", "other")
    message = "error: --surrogate other: this network knows 7 classes, the evaluated one 10\n"
    assert (outcome.code, outcome.out, outcome.err) == (2, "", message)
    assert not (trained / "evaluations").exists()


def test_a_surrogate_is_asked_about_an_image() -> None:
    image = torch.zeros(1, 8, 8, dtype=torch.uint8)
    ours = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(72, 10))
    same = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    refuse_stranger(same, ours, image, "--surrogate a")
    assert ours[1].num_batches_tracked == 0
    with pytest.raises(UsageError, match=r"^--surrogate b: this network does not take images of 1 x 8 x 8 \(.*\)$"):
        refuse_stranger(nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten()), ours, image, "--surrogate b")


@pytest.mark.timeout(150)
def test_wandb_gets_the_report(
    evaluate: Evaluate, trained: Path, suite: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import wandb

    from tests.callbacks.test_wandb_run import artifacts_in, records_of

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    shutil.rmtree(trained / "wandb", ignore_errors=True)
    outcome = evaluate(trained, "--suite", suite, *FEW, "--checks", "none", "--wandb", "true")
    wandb.finish()
    assert (outcome.code, outcome.err) == (0, "")
    files = artifacts_in(records_of(folder_in(trained)))["evaluation"]
    assert {"manifest.json", "per_image.parquet", "report.html", "results.json"} <= set(files)
