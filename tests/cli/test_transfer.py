"""evaluate.py transfer: cost told first, a matrix with intervals, nothing made twice, mistakes in one line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from filelock import FileLock
from safetensors.torch import save_file
from torch.utils.data import Dataset

import cli.transfer
import datamodules
from evaluation import rows_of
from evaluation.transfer import Matrix, adversary, cell
from models import ResNet20
from tests.cli.conftest import Outcome

Evaluate = Callable[..., Outcome]
SUITE = """
pgd2:
  class_path: attacks.PGD
  init_args: {ball: {class_path: attacks.Linf, init_args: {eps: 0.1}}, step_size: 0.05, steps: 2}
"""
FEW = ("--n", "12", "--draws", "3", "--batch_size", "8", "--trainer.accelerator", "cpu")
NAMES = ["robustnet_adv_1", "robustnet_adv_2"]


@pytest.fixture
def words(trained: Path, tmp_path: Path) -> tuple[Any, ...]:
    (tmp_path / "suite.yaml").write_text(SUITE)
    return ("transfer", trained, trained, "--suite", tmp_path / "suite.yaml", *FEW, "--out", tmp_path / "out")


def results_in(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return found


def test_two_runs_give_a_matrix(evaluate: Evaluate, words: tuple[Any, ...], trained: Path, tmp_path: Path) -> None:
    outcome = evaluate(*words)
    assert (outcome.code, outcome.err) == (0, "")
    first, second, third, *_ = outcome.out.splitlines()
    assert first == "12 images, 1 attack on each of 2 networks, shown to all of them"
    # An image: 2 gradients on each network, 3 judge draws of each on clean and two attacked images.
    assert second == "about 22 passes an image, 4 of them with a gradient; 264 in all"
    assert third.startswith("about ")
    assert third.endswith(" CPU threads, before the report")
    results = results_in(tmp_path / "out")
    (matrix,) = results["transfer"].values()
    assert matrix["sources"] == matrix["targets"] == NAMES
    rows = rows_of(pq.read_table(tmp_path / "out" / "per_image.parquet"))
    for i, source in enumerate(NAMES):
        right = [rows[cell(adversary(source, "pgd2"), target)].right for target in NAMES]
        assert matrix["accuracy"][i] == [found.mean() for found in right]
        assert all(
            low <= found.mean() <= high
            for low, found, high in zip(matrix["low"][i], right, matrix["high"][i], strict=True)
        )
    line = next(line for line in outcome.out.splitlines() if line.startswith(NAMES[1]))
    shown = zip(*(matrix[key][1] for key in ("accuracy", "low", "high")), strict=True)
    texts = [f"{100 * value:.1f} [{100 * low:.1f}, {100 * high:.1f}]" for value, low, high in shown]
    assert line.split() == [NAMES[1], *" ".join(texts).split()]
    assert (results["cost"]["forward"], results["cost"]["backward"]) == (12 * 22, 12 * 4)
    assert "264 passes, 48 of them with a gradient" in outcome.out
    assert (tmp_path / "out" / "transfer.svg").is_file()
    page = (tmp_path / "out" / "report.html").read_text()
    assert f"python evaluate.py transfer {trained} {trained} --suite" in page
    assert results["command"].endswith(f"--out {tmp_path / 'out'}")


def test_clean_images_are_judged_as_an_evaluation_does(
    evaluate: Evaluate, words: tuple[Any, ...], trained: Path, tmp_path: Path
) -> None:
    evaluate(*words)
    evaluate(trained, "--suite", "none", *FEW, "--out", tmp_path / "alone")
    alone = rows_of(pq.read_table(tmp_path / "alone" / "per_image.parquet"))["clean"]
    rows = rows_of(pq.read_table(tmp_path / "out" / "per_image.parquet"))
    np.testing.assert_array_equal(rows[cell("clean", NAMES[1])].answers, alone.answers)
    summary, matrix = results_in(tmp_path / "alone")["summaries"][0], results_in(tmp_path / "out")["transfer"]["pgd2"]
    assert [matrix[key][1] for key in ("clean_low", "clean_high")] == summary["interval"]


def test_the_same_command_makes_nothing_twice(
    evaluate: Evaluate, words: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate(*words)
    before = (tmp_path / "out" / "per_image.parquet").read_bytes()
    made, totals, examine = [], [], Matrix.examine
    monkeypatch.setattr(Matrix, "examine", lambda *all: made.append(all[1:4]) or examine(*all))
    progress = cli.transfer.Progress
    monkeypatch.setattr(cli.transfer, "Progress", lambda *all: totals.append(all) or progress(*all))
    outcome = evaluate(*words)
    assert "24 of 24 attacked images are done already\nabout 0 s on" in outcome.out
    assert made == []
    parts = tmp_path / "out" / "parts"
    (parts / cell(adversary(NAMES[0], "pgd2"), NAMES[1]) / "000001.parquet").unlink()
    (parts / cell("clean", NAMES[1]) / "000000.parquet").write_bytes(b"damaged")
    outcome = evaluate(*words)
    assert outcome.code == 0
    assert outcome.err.startswith(f"{parts / cell('clean', NAMES[1]) / '000000.parquet'}: was damaged")
    assert "20 of 24 attacked images are done already" in outcome.out
    assert made == [("clean", 0, 0), (adversary(NAMES[0], "pgd2"), 1, 8)]
    assert len((tmp_path / "out" / "sessions.jsonl").read_text().splitlines()) == 3
    assert totals == [(24, "attacked images", 24), (24, "attacked images", 20)]
    assert (tmp_path / "out" / "per_image.parquet").read_bytes() == before


def test_a_second_run_in_the_same_folder_is_refused(evaluate: Evaluate, words: tuple[Any, ...], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out" / ".lock"):
        outcome = evaluate(*words)
    assert (outcome.code, outcome.err.splitlines()) == (
        2,
        [f"error: {tmp_path / 'out'} is in use by another evaluation; wait for it or stop it"],
    )


class AsFloats(Dataset[Any]):
    def __init__(self, split: Any) -> None:
        self.split = split

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: Any) -> Any:
        pixels, labels = self.split[index]
        return pixels.float() / 255, labels


def test_data_may_be_pixels_or_numbers(
    evaluate: Evaluate, words: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate(*words)
    split = datamodules.Digits.split
    monkeypatch.setattr(datamodules.Digits, "split", lambda *all: AsFloats(split(*all)))
    assert evaluate(*words, "--out", tmp_path / "floats").code == 0
    assert results_in(tmp_path / "floats")["transfer"] == results_in(tmp_path / "out")["transfer"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "at least two networks"),
        (("RUN",), "at least two networks, each RUN or RECIPE=WEIGHTS, got 1"),
        (("RUN", "--out", "RUN"), "at least two networks, each RUN or RECIPE=WEIGHTS, got 1"),
        (("RUN", "nowhere"), "nowhere: no such run folder"),
        (("RUN", "robusnet=x.pth"), "unknown recipe 'robusnet'; did you mean"),
        (("RUN", "RUN", "--suite", "none"), "a suite with attacks"),
        (("RUN", "RUN", "--eps", "0.1,0.2"), "one radius at most"),
        (("RUN", "RUN", "--n", "100000"), "the test split has"),
        (("RUN", "RUN", "--budget=30m"), "transfer takes no --budget; it takes --suite, --eps"),
        (("RUN", "RUN", "--trainer.devices", "2"), "--trainer.devices 2: transfer runs on one device"),
        (("RUN", "RUN", "--trainer.num_nodes=2"), "--trainer.num_nodes 2: transfer runs on one device"),
        (
            ("RUN", "plain=WEIGHTS"),
            "share the data of --split test: robustnet_adv has Digits and plain has CIFAR10; --data NAME is for all",
        ),
    ],
)
def test_mistakes_end_in_one_line(
    evaluate: Evaluate, trained: Path, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    torch.manual_seed(0)
    save_file(ResNet20().state_dict(), tmp_path / "plain.safetensors")
    outcome = evaluate(
        "transfer",
        *(word.replace("RUN", str(trained)).replace("WEIGHTS", str(tmp_path / "plain.safetensors")) for word in words),
    )
    assert (outcome.code, len(outcome.err.splitlines())) == (2, 1)
    assert message in outcome.err
    assert not (tmp_path / "runs").exists()
