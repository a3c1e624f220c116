"""The test loop by itself: what it notes down, and what it says about how far it is."""

import json
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from attacks import FGSM, Attack, Linf
from cli.evaluator import Evaluator, Work
from cli.processes import trainer_of
from evaluation import Records

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers:UserWarning", "ignore:GPU available but not used:UserWarning"
)
N, SIZE = 10, 4
ATTACKS: dict[str, Attack] = {"fgsm": FGSM(Linf(0.0))}  # which changes nothing


class First(nn.Module):
    """Answers the first pixel's class: 0 below a half, else 1."""

    def forward(self, x: Tensor) -> Tensor:
        above = x[:, 0, 0, :1] - 0.5
        return torch.cat([-above, above], dim=1)


def evaluate(folder: Path) -> Records:
    """Ten images, of which the first five are right, in batches of 4, 4 and 2."""
    x = torch.zeros(N, 1, 2, 2, dtype=torch.uint8)
    x[:, 0, 0, 0] = 255
    split = TensorDataset(x, (torch.arange(N) < 5).long())
    records = Records(folder, {"adversaries": ["clean", *ATTACKS]})
    work = Work(N, SIZE, seed=0, draws=1, early_exit=False, keep=0, seconds={"clean": 1.0, "fgsm": 1.0})
    settings = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = trainer_of({**settings, "enable_model_summary": False})
    trainer.test(Evaluator(First(), split, ATTACKS, records, work), verbose=False)
    return records


def last_line(out: str) -> str:
    return [line for line in out.splitlines() if "adversaries" in line][-1]


def test_accuracy_so_far_counts_what_was_done_before(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = evaluate(tmp_path)
    assert last_line(capsys.readouterr().out).startswith("20/20 images x adversaries  fgsm 50.0 % right")
    (tmp_path / "parts" / "fgsm" / "000002.parquet").unlink()  # two images, both wrong
    evaluate(tmp_path)
    assert last_line(capsys.readouterr().out).startswith("20/20 images x adversaries  fgsm 50.0 % right")
    assert records.right("fgsm", 1).tolist() == [1, 0, 0, 0]
    evaluate(tmp_path)
    assert "adversaries" not in capsys.readouterr().out  # nothing was to be done


def test_each_start_is_noted_down(tmp_path: Path) -> None:
    for _ in range(2):
        evaluate(tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "sessions.jsonl").read_text().splitlines()]
    assert [(line["device"], line["devices"], line["torch"]) for line in lines] == 2 * [("cpu", 1, version("torch"))]
