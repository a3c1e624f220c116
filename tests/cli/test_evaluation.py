"""evaluate.py from plan to report: cost told before, budgets kept, faults survived, everything there at the end."""

import errno
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest

import cli.evaluator
from evaluation import Records, records
from tests.cli.conftest import Outcome

Evaluate = Callable[..., Outcome]
SUITE = """
pgd2:
  class_path: attacks.PGD
  init_args: {ball: {class_path: attacks.Linf, init_args: {eps: 0.1}}, step_size: 0.05, steps: 2}
ddn3: {class_path: attacks.DDN, init_args: {steps: 3}}
"""
FEW = ("--n", "12", "--draws", "4", "--batch_size", "4", "--trainer.accelerator", "cpu")


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    (tmp_path / "small.yaml").write_text(SUITE)
    return tmp_path / "small.yaml"


def folder_in(run: Path) -> Path:
    (folder,) = run.glob("evaluations/*")
    return folder


def of(folder: Path) -> dict[str, Any]:
    results: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return results


def test_everything_is_there_at_the_end(evaluate: Evaluate, trained: Path, suite: Path) -> None:
    outcome = evaluate(trained, "--suite", suite, *FEW, "--votes", "3", "--keep", "5")
    assert (outcome.code, outcome.err) == (0, "")
    folder, first = folder_in(trained), outcome.out.splitlines()[0]
    # clean: 4 judge passes; PGD: 2 and 4; DDN: 3 steps, an answer to each and one more, and 4.
    assert first.startswith("12 images, 3 adversaries: about ")
    assert "of them with a gradient" in first
    results = of(folder)
    assert [summary["adversary"] for summary in results["summaries"]] == ["clean", "pgd2", "ddn3"]
    assert {summary["votes"] for summary in results["summaries"]} == {3}
    assert set(results["worst_case"]["chosen"]) == {"clean", "pgd2"}  # no minimal-norm attack
    assert results["manifest"]["bounded"] == ["pgd2"]
    typed = shlex.join(map(str, (trained, "--suite", suite, *FEW, "--votes", "3", "--keep", "5")))
    assert results["command"] == f"python evaluate.py {typed}"
    assert (
        results["cost"]["forward"]
        == pq.read_table(folder / "per_image.parquet")["queries"].to_numpy().sum() + 12 * 3 * 4
    )
    assert results["cost"]["backward"] >= 12 * 2
    assert {"torch", "date", "device_name"} <= set(results["environment"])
    assert Records(folder, results["manifest"]).images("pgd2", 1).shape == (1, 1, 8, 8)  # the fifth image
    page = (folder / "report.html").read_text()
    assert "pgd2" in page
    assert all(f"{check['name']}" in outcome.out for check in results["checks"])
    assert {check["verdict"] for check in results["checks"]} <= {"pass", "doubt", "not run"}
    assert len(results["checks"]) > 15


def test_several_radii_make_a_curve(evaluate: Evaluate, trained: Path, suite: Path) -> None:
    outcome = evaluate(trained, "--suite", suite, *FEW, "--eps", "0.2,1/10", "--checks", "none")
    assert (outcome.code, outcome.err) == (0, "")
    results = of(folder_in(trained))
    assert results["manifest"]["radii"] == {"pgd2": {"pgd2_eps0.1": 0.1, "pgd2_eps0.2": 0.2}}
    assert results["manifest"]["adversaries"] == ["clean", "pgd2_eps0.1", "pgd2_eps0.2", "ddn3"]
    (curve,) = results["curves"]["eps"]
    assert [point["radius"] for point in curve["points"]] == [0, 0.1, 0.2]
    assert results["checks"] == []


def test_a_budget_ends_between_batches_and_the_same_command_goes_on(
    evaluate: Evaluate, trained: Path, suite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [trained, "--suite", suite, *FEW, "--checks", "none", "--budget", "50s"]
    real, asked = cli.evaluator.time.monotonic, 0

    def hurried() -> float:
        nonlocal asked
        asked += 1
        return real() + 30 * (asked - 1)

    monkeypatch.setattr(cli.evaluator, "time", SimpleNamespace(monotonic=hurried))
    outcome = evaluate(*words)
    assert (outcome.code, outcome.err) == (0, "")
    assert "budget 50 s: about " in outcome.out
    folder = folder_in(trained)
    assert [summary["n"] for summary in of(folder)["summaries"]] == [8, 8, 8]
    assert pq.read_table(folder / "per_image.parquet")["index"].to_pylist() == 3 * list(range(8))
    assert outcome.out.splitlines()[-1] == f"next: python evaluate.py {shlex.join(map(str, words))}"
    monkeypatch.undo()
    outcome = evaluate(*words)
    assert (outcome.code, outcome.err) == (0, "")
    assert "8 images are done already" in outcome.out
    assert [summary["n"] for summary in of(folder)["summaries"]] == [12, 12, 12]


def test_a_budget_too_small_for_a_batch_is_refused(
    evaluate: Evaluate, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cli.evaluation.timed", lambda network, x: (10.0, 20.0))
    outcome = evaluate(trained, "--suite", "none", *FEW, "--budget", "2m")
    assert (outcome.code, len(outcome.err.splitlines())) == (2, 1)
    assert "one batch of 4 images takes about 160 s; allow more" in outcome.err


def test_two_runs_in_one_folder_are_refused(evaluate: Evaluate, trained: Path, suite: Path) -> None:
    words = [trained, "--suite", suite, *FEW, "--checks", "none"]
    assert evaluate(*words).code == 0
    folder = folder_in(trained)
    with Records(folder, of(folder)["manifest"]).claim():
        outcome = evaluate(*words)
    assert (outcome.code, len(outcome.err.splitlines())) == (2, 1)
    assert "in use by another evaluation" in outcome.err
    assert evaluate(*words).code == 0


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "no space left"),
        (PermissionError(errno.EACCES, "Permission denied"), "permission denied"),
    ],
    ids=["disk full", "no permission"],
)
def test_a_fault_of_the_disk_costs_one_batch(
    fault: OSError, said: str, evaluate: Evaluate, trained: Path, suite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [trained, "--suite", suite, *FEW, "--checks", "none"]
    original, count = records.write_atomically, 0

    def failing(path: Path, data: bytes) -> None:
        nonlocal count
        count += path.suffix == ".parquet"
        if count == 5:
            raise fault
        original(path, data)

    monkeypatch.setattr(records, "write_atomically", failing)
    outcome = evaluate(*words)
    assert (outcome.code, len(outcome.err.splitlines())) == (1, 1)
    assert said in outcome.err.lower()
    monkeypatch.undo()
    folder = folder_in(trained)
    parts = {path: path.stat().st_mtime_ns for path in folder.rglob("parts/*/*.parquet")}
    assert len(parts) == 4
    assert evaluate(*words).code == 0
    assert {path: path.stat().st_mtime_ns for path in parts} == parts


def test_records_of_another_evaluation_are_not_touched(
    evaluate: Evaluate, trained: Path, suite: Path, tmp_path: Path
) -> None:
    words = [trained, "--suite", suite, *FEW, "--checks", "none", "--out", tmp_path / "here"]
    assert evaluate(*words).code == 0
    before = {path: path.read_bytes() for path in (tmp_path / "here").rglob("*") if path.is_file()}
    outcome = evaluate(*words, "--seed", "3")
    assert (outcome.code, len(outcome.err.splitlines())) == (2, 1)
    assert "is of another run (seed was 0, now 3)" in outcome.err
    assert {path: path.read_bytes() for path in (tmp_path / "here").rglob("*") if path.is_file()} == before


def test_a_damaged_part_is_done_again_and_named(evaluate: Evaluate, trained: Path, suite: Path) -> None:
    words = [trained, "--suite", suite, *FEW, "--checks", "none"]
    assert evaluate(*words).code == 0
    folder = folder_in(trained)
    before, part = (folder / "per_image.parquet").read_bytes(), folder / "parts" / "pgd2" / "000001.parquet"
    part.write_bytes(part.read_bytes()[:100])
    outcome = evaluate(*words)
    assert (outcome.code, outcome.err) == (0, f"{part}: was damaged and is done again\n")
    assert (folder / "per_image.parquet").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--budget soon", "--budget takes a time such as 90s, 30m or 2h, got 'soon'"),
        ("--budget 0m", "--budget takes a time such as 90s, 30m or 2h, got '0m'"),
        ("--checks some", "--checks takes quick, full or none, got 'some'"),
        ("--votes 9 --draws 5", "--votes 9: the judge asks only 5 times; add --draws 9"),
        ("--eps 0.1,x", "--eps takes a number such as 0.031 or 8/255, >= 0, got 'x'"),
        ("--keep -1", "--keep takes a whole number >= 0, got '-1'"),
        ("--wandb maybe", "--wandb takes false or true, got 'maybe'"),
    ],
)
def test_mistakes_end_in_one_line(words: str, message: str, evaluate: Evaluate, trained: Path) -> None:
    outcome = evaluate(trained, *words.split())
    assert (outcome.code, outcome.err) == (2, f"error: {message}\n")
    assert not (trained / "evaluations").exists()
