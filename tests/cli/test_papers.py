"""Every experiment of the papers at its smallest scale, and that what is kept is not made again."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from attacks import AdamCarliniWagner, Adversary
from cli.paper import experiments, read_experiment
from papers import Bench, Experiment, MissingNetwork, Transfer
from tests.cli.conftest import Outcome

Evaluate = Callable[..., Outcome]
OUTCOMES = {"confirmed", "refuted", "undecided", "not testable here"}


@pytest.mark.parametrize("name", experiments())
def test_an_experiment_runs_at_the_scale_of_a_test(name: str, evaluate: Evaluate, tmp_path: Path) -> None:
    outcome = evaluate("paper", name, "--scale", "smoke", "--out", tmp_path)
    assert (outcome.code, outcome.err) == (0, "")
    folder = tmp_path / name / "smoke"
    result = json.loads((folder / "result.json").read_text())
    assert outcome.out.strip().startswith(f"{name} (smoke): ")
    assert f"about {result['cost']['forward']:,} passes" in outcome.out
    assert {verdict["outcome"] for verdict in result["verdicts"]} <= OUTCOMES
    assert result["tables"]
    for table in result["tables"]:
        assert (folder / f"{table}.csv").read_text().count("\n") == 1 + len(result["tables"][table]["rows"])
    figures = list(folder.glob("*.svg"))
    assert all(figure.with_suffix(".png").is_file() for figure in figures)


def test_what_is_kept_is_not_made_again(evaluate: Evaluate, tmp_path: Path) -> None:
    words = ("paper", "iclr-table1", "--scale", "smoke", "--out", tmp_path)
    assert evaluate(*words).code == 0
    result = json.loads((tmp_path / "iclr-table1" / "smoke" / "result.json").read_text())
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "smoke").iterdir()}
    page = (tmp_path / "overview.md").read_text()
    (row,) = [line for line in page.splitlines() if line.startswith("| `iclr-table1`")]
    assert f"| smoke | {result['date']} | {result['cpu_seconds_of_all_work'] / 60:.1f} |" in row
    assert all(f"(iclr-table1/smoke/{table}.csv)" in row for table in result["tables"])
    assert page.count("| not run |") == len(experiments()) - 1
    assert all(f"- **{verdict['outcome']}**: {verdict['claim']} (" in page for verdict in result["verdicts"])
    again = evaluate(*words)
    assert again.code == 0
    assert "0 were made" in again.out
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "smoke").iterdir()} == before
    assert json.loads((tmp_path / "iclr-table1" / "smoke" / "result.json").read_text())["tables"] == result["tables"]


@pytest.mark.parametrize(
    ("code", "told"), [("a commit", "together 12.0 CPU"), ("unknown", "together at least 12.0 CPU")]
)
def test_work_that_several_share_is_counted_once(
    code: str, told: str, evaluate: Evaluate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(name: str, experiment: Experiment, scale: str, bench: Bench, *_: object) -> None:
        bench.work, bench.codes = {"of both": 600.0, f"of {name}": 60.0}, {code}

    monkeypatch.setattr("cli.paper._run", run)
    outcome = evaluate("paper", "eepd-fig13", "iclr-table1", "--out", tmp_path)
    assert told in outcome.out
    lines = [line.split() for line in outcome.out.splitlines()]
    assert ["eepd-fig13", "11.0", "11.0"] in lines
    assert ["iclr-table1", "11.0", "1.0"] in lines
    assert "together" not in evaluate("paper", "eepd-fig13", "--out", tmp_path).out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "name one or more of "),
        (("iclr-tabel1",), "unknown experiment 'iclr-tabel1'; did you mean iclr-table1"),
        (("iclr-table1", "--scale", "huge"), "--scale takes smoke, laptop, paper for iclr-table1, got 'huge'"),
        (("iclr-table1", "--scale", "laptop"), "--weights is missing: a scale above smoke needs published networks"),
        (("iclr-table1", "--n", "5"), "paper takes no --n"),
        (("iclr-table1", "--model", "robustnet"), "paper takes no --model: the experiments name their networks"),
    ],
)
def test_mistakes_end_in_one_line(words: tuple[str, ...], message: str, evaluate: Evaluate) -> None:
    outcome = evaluate("paper", *words)
    assert (outcome.code, len(outcome.err.splitlines())) == (2, 1)
    assert message in outcome.err


def test_a_missing_network_does_not_keep_the_others_waiting(
    evaluate: Evaluate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(name: str, *_: object) -> None:
        if name == "iclr-hybrid":
            raise MissingNetwork("no run of plain")
        print(f"ran {name}")

    monkeypatch.setattr("cli.paper._run", run)
    outcome = evaluate("paper", "iclr-hybrid", "iclr-table1", "--out", tmp_path)
    assert (outcome.code, outcome.out) == (2, f"ran iclr-table1\nwrote {tmp_path / 'overview.md'}\n")
    assert "iclr-hybrid: no run of plain" in outcome.err


def test_an_attack_of_another_class_takes_none_of_the_first_ones_settings() -> None:
    experiment = read_experiment(experiments()["ours-table1-foolbox"], "laptop")
    assert isinstance(experiment, Transfer)
    assert isinstance(experiment.attack, Adversary)
    assert experiment.attack.attack == AdamCarliniWagner(steps=100, bounds=(-0.049, 1.056))
