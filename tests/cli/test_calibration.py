"""Attackers who do nothing leave the clean accuracy: an evaluation that took luck for strength would be found out."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from cli.targets import target_at
from defenses import Stream, drawing_from
from evaluation import rows_of
from tests.cli.conftest import Outcome

N, DRAWS, PASSES, AT_ONCE = 200, 20, 2000, 20
TINY = """
from torch import nn

class Tiny(nn.Sequential):
    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 4 * 4, num_classes))
"""
# Noise with which few answers are certain.
MODEL = "--model robustnet --model.network.network tiny.Tiny --model.network.init.std 0.5 --model.network.inner.std 0.5"
SUITE = f"--suite calibration --n {N} --draws {DRAWS} --checks none --trainer.accelerator cpu --out calibration"


@pytest.fixture
def calibrated(
    train: Callable[..., Outcome], evaluate: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> tuple[Path, Path]:
    """A run of a network whose answers are random, and what the suite left of it."""
    (tmp_path / "tiny.py").write_text(TINY)
    monkeypatch.syspath_prepend(tmp_path)
    outcome = train(*MODEL.split(), "--trainer.limit_train_batches", "60", "--run_dir", "runs")
    assert outcome.code == 0, outcome.err
    (run,) = Path("runs/robustnet").iterdir()
    outcome = evaluate(run, *SUITE.split())
    assert (outcome.code, outcome.err) == (0, "")
    return run, Path("calibration")


def clean_accuracy(run: Path) -> float:
    """Of the same images on other draws, without judge, attack or table."""
    target = target_at(str(run), [])
    x, y = target.cli.datamodule.split("test")[list(range(N))]
    x, y = x.repeat(AT_ONCE, 1, 1, 1).float() / 255, y.repeat(AT_ONCE)
    network, right = target.network.eval(), 0
    with torch.no_grad(), drawing_from(Stream(12345)):
        for _ in range(PASSES // AT_ONCE):
            right += int((network(x).argmax(1) == y).sum())
    return right / (N * PASSES)


def test_nobody_leaves_the_clean_accuracy(calibrated: tuple[Path, Path]) -> None:
    run, folder = calibrated
    truth = clean_accuracy(run)
    results: dict[str, Any] = json.loads((folder / "results.json").read_text())
    assert len(results["summaries"]) == 21
    worst = results["worst_case"]
    for found in [*results["summaries"], worst]:
        low, high = found["interval"]
        assert low <= truth <= high
    right = [rows.right.mean(1) for rows in rows_of(pq.read_table(folder / "per_image.parquet")).values()]
    assert np.min(right, axis=0).mean() < worst["interval"][0]  # else the worst of many would not have been noticed
