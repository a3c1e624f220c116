"""Every recipe trains and is evaluated, every suite runs, and what is printed is what is in the files."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from cli.names import ROOT, recipes, suites

FEW = {"steps": 3, "queries": 60, "rounds": 2, "search_steps": 2, "angles": 2, "shifts": 1, "trials": 2}
SMALL = ("--n", "8", "--draws", "2", "--batch_size", "4", "--checks", "none")


@pytest.mark.parametrize("recipe", [*recipes(), *suites()])
def test_the_source_is_on_top(recipe):
    text = {**recipes(), **suites()}[recipe].read_text()
    assert text.startswith("# ")
    assert len(text.splitlines()) < 70


@pytest.mark.parametrize("recipe", recipes())
def test_a_recipe_trains_and_is_evaluated(recipe, train, evaluate, tmp_path):
    words = []
    settings = yaml.safe_load(recipes()[recipe].read_text())["model"]["init_args"]
    if "attack" in settings:
        nested = settings["attack"]["class_path"] == "attacks.Adversary"
        words = ["--model.attack.attack.steps" if nested else "--model.attack.steps", "1", "--model.warmup_epochs", "0"]
    if "imagenet" in recipe:  # its normalisation has three channels
        words += ["--model.network.network.mean", "[0.5]", "--model.network.network.std", "[0.2]"]
    elif recipe == "plain_normalized":
        words += ["--model.network.mean", "[0.5]", "--model.network.std", "[0.2]"]
    outcome = train("--model", recipe, *words)
    assert outcome.code == 0, outcome
    assert outcome.err == ""
    (run,) = tmp_path.glob(f"runs/{recipe}/*")
    # A single step: BatchNorm's statistics and weights may be anything, numbers they are.
    outcome = evaluate(run, "--suite", "pgd", *SMALL, "--trainer.accelerator", "cpu")
    assert outcome.code == 0, outcome
    assert outcome.err == ""
    check_numbers(outcome.out, ["clean", "pgd7", "pgd20", "pgd40"])


def shortened(settings):
    """The same suite with few steps and queries: whether it runs is the question, not what it finds."""
    if isinstance(settings, list):
        return [shortened(part) for part in settings]
    if not isinstance(settings, dict):
        return settings
    short = {name: min(value, FEW[name]) if name in FEW else shortened(value) for name, value in settings.items()}
    if short.get("class_path") == "attacks.AutoAttack":
        short["init_args"] |= {"steps": 3, "queries": 10, "targets": 2}
    return short


@pytest.mark.parametrize("suite", suites())
def test_a_suite_runs(suite, evaluate, trained):
    settings = yaml.safe_load(suites()[suite].read_text())
    Path(f"{suite}.yaml").write_text(yaml.safe_dump(shortened(settings), sort_keys=False))
    outcome = evaluate(trained, "--suite", f"{suite}.yaml", *SMALL, "--out", "here")
    assert outcome.code == 0, outcome
    check_numbers(outcome.out, json.loads(Path("here/manifest.json").read_text())["adversaries"])


def check_numbers(printed, adversaries):
    """The printed table against the table of images, counted here."""
    written = [line.removeprefix("wrote ") for line in printed.splitlines() if line.startswith("wrote ")]
    images, results, report = map(Path, written[-3:])
    assert report.read_text().startswith("<!DOCTYPE html>")
    assert printed.splitlines()[-1].startswith("next: python evaluate.py ")
    table = pq.read_table(images).to_pydict()
    summaries = {summary["adversary"]: summary for summary in json.loads(results.read_text())["summaries"]}
    for adversary in adversaries:
        rows = [i for i, name in enumerate(table["adversary"]) if name == adversary]
        assert [table["index"][i] for i in rows] == list(range(8))
        correct = sum(table["counts"][i][table["label"][i]] for i in rows)
        (line,) = [line for line in printed.splitlines() if line.split()[:1] == [adversary] and ":" not in line]
        passes = sum(table["draws"][i] for i in rows)
        assert summaries[adversary]["correct"] == correct
        assert np.isclose(float(line.split()[1]), 100 * correct / passes, atol=0.006)


def test_the_same_command_gives_the_same_numbers_without_work(evaluate, trained, monkeypatch):
    first = evaluate(trained, *SMALL)
    monkeypatch.setattr("cli.evaluator.examine", None)
    again = evaluate(trained, *SMALL)
    assert (again.code, again.err) == (0, "")
    # The plan before it tells times and what is done already.
    assert again.out[again.out.index("\n\n") :] == first.out[first.out.index("\n\n") :]
    assert "8 images are done already" in again.out


def test_a_run_its_best_and_its_last_checkpoint(evaluate, trained, tmp_path):
    run = tmp_path / "copy"
    shutil.copytree(trained, run)
    for source in (run, run / "checkpoints" / "best.ckpt", run / "checkpoints" / "last.ckpt"):
        outcome = evaluate(source, "--suite", "none", *SMALL)
        assert outcome.code == 0, outcome
        assert str(run / "evaluations") in outcome.out
    (run / "checkpoints" / "best.ckpt").unlink()
    assert "last.ckpt" in evaluate(run, "--suite", "none", *SMALL).out


def test_every_yaml_is_in_a_folder_that_is_tested():
    folders = {path.parent.name for path in (ROOT / "configs").rglob("*.yaml")}
    assert folders <= {"configs", "models", "papers", "suites", "sweeps"}
