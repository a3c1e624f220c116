"""evaluate.py transfer: a matrix from several networks, and mistakes in one line."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Outcome

Evaluate = Callable[..., Outcome]
SUITE = """
pgd2:
  class_path: attacks.PGD
  init_args: {ball: {class_path: attacks.Linf, init_args: {eps: 0.1}}, step_size: 0.05, steps: 2}
"""


def test_two_runs_give_a_matrix(evaluate: Evaluate, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "suite.yaml").write_text(SUITE)
    words = ["--suite", tmp_path / "suite.yaml", "--n", "12", "--draws", "3", "--trainer.accelerator", "cpu"]
    outcome = evaluate("transfer", trained, trained, *words, "--out", tmp_path / "out")
    assert (outcome.code, outcome.err) == (0, "")
    (matrix,) = json.loads((tmp_path / "out" / "results.json").read_text())["transfer"].values()
    assert matrix["sources"] == matrix["targets"] == ["robustnet_adv_1", "robustnet_adv_2"]
    assert matrix["n"] == 12
    line = next(line for line in outcome.out.splitlines() if line.startswith("robustnet_adv_2"))
    assert line.split()[1:] == [f"{100 * value:.1f}" for value in matrix["accuracy"][1]]
    assert (tmp_path / "out" / "transfer.svg").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "at least two networks"),
        (("RUN",), "at least two networks, each RUN or RECIPE=WEIGHTS, got 1"),
        (("RUN", "nowhere"), "nowhere: no such run folder"),
        (("RUN", "robusnet=x.pth"), "unknown recipe 'robusnet'; did you mean"),
        (("RUN", "RUN", "--suite", "none"), "a suite with attacks"),
        (("RUN", "RUN", "--eps", "0.1,0.2"), "one radius at most"),
        (("RUN", "RUN", "--n", "100000"), "the test split has"),
    ],
)
def test_mistakes_end_in_one_line(evaluate: Evaluate, trained: Path, words: tuple[str, ...], message: str) -> None:
    outcome = evaluate("transfer", *(trained if word == "RUN" else word for word in words))
    assert (outcome.code, len(outcome.err.splitlines())) == (2, 1)
    assert message in outcome.err
