"""Curves of learned noise from a run's metrics."""

import json
from pathlib import Path

import pytest

from analysis.noise_levels import curves, figure, table

ROWS = [
    {"step": 0, "noise/conv1": 0.25, "noise/fc": 0.25},
    {"step": 3, "train/loss_step": 1.0, "epoch": 0},
    {"step": 10, "train/clean": 0.5, "noise/conv1": 0.1, "noise/fc": 0.05, "epoch": 0},
    {"step": 20, "noise/conv1": 9.0, "noise/fc": 9.0, "epoch": 1},  # repeated after a resume
    {"step": 20, "noise/conv1": 0.01, "noise/fc": 0.0025, "epoch": 1},
]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in ROWS))
    return tmp_path


def test_a_curve_a_layer(run: Path) -> None:
    conv, fc = curves(run)
    assert (conv.layer, conv.steps, conv.values) == ("conv1", (0, 10, 20), (0.25, 0.1, 0.01))
    assert fc.ratio == pytest.approx(0.01)
    assert table([conv, fc])[1:] == [
        ["conv1", "0.2500", "0.01000", "0.0400"],
        ["fc", "0.2500", "0.00250", "0.0100"],
        ["median", "0.2500", "0.00625", "0.0250"],
    ]


def test_the_figure_has_each_layer_and_the_median(run: Path) -> None:
    (axes,) = figure(curves(run), "a run").axes
    *layers, middle = [line.get_ydata() for line in axes.lines]
    assert [list(values) for values in layers] == [[0.25, 0.1, 0.01], [0.25, 0.05, 0.0025]]
    assert list(middle) == pytest.approx([0.25, 0.075, 0.00625])
    assert axes.get_yscale() == "log"


def test_a_folder_without_levels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no metrics\.jsonl in it; give a run folder"):
        curves(tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "train/clean": 0.5}\n')
    with pytest.raises(ValueError, match="no noise/LAYER in it; recipes with learned noise"):
        curves(tmp_path)
