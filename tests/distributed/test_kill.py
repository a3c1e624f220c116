"""Evaluations that are killed at random moments and continued, against one that was left alone."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

# What one process in here computes for comparison runs through Lightning and jsonargparse, which warn of each other.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(1800)]

ROOT = Path(__file__).resolve().parents[2]
KILLS = 10
# Many small batches, so that a kill falls into attacks, judgements and writing alike.
WORDS = ["--n", "160", "--batch_size", "8", "--draws", "5", "--checks", "none", "--trainer.accelerator", "cpu"]
SUITE = """
pgd20:
  class_path: attacks.PGD
  init_args: {ball: {class_path: attacks.Linf, init_args: {eps: 0.1}}, step_size: 0.02, steps: 20}
square:
  class_path: attacks.Square
  init_args: {ball: {class_path: attacks.Linf, init_args: {eps: 0.1}}, queries: 20}
"""
TRAIN = [
    "--data", "Digits", "--data.batch_size", "32", "--data.val_images", "16", "--logger", "false",
    "--trainer.accelerator", "cpu", "--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2",
    "--model.robust_images", "16",
]  # fmt: skip


@pytest.fixture(scope="module", params=["plain", "robustnet", "pni_w"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without noise, with noise on activations, with noise on weights; and the suite beside it."""
    from cli.train import main

    root = tmp_path_factory.mktemp(request.param)
    assert main(["--model", request.param, *TRAIN, "--run_dir", str(root / "runs")]) == 0
    (root / "suite.yaml").write_text(SUITE)
    (folder,) = root.glob("runs/*/*")
    return folder


def command(run: Path, out: Path, processes: int) -> list[str]:
    suite = run.parents[2] / "suite.yaml"
    devices = ["--trainer.devices", str(processes), "--trainer.strategy", "ddp" if processes > 1 else "auto"]
    return [sys.executable, "evaluate.py", str(run), "--suite", str(suite), *WORDS, *devices, "--out", str(out)]


def left_alone(run: Path) -> Path:
    """The evaluation without a kill, by one process; made once."""
    from cli.evaluate import main

    out = run.parents[2] / "alone"
    assert main(command(run, out, 1)[2:]) == 0
    return out


def killed_once(words: list[str], parts: Path, chance: random.Random) -> bool:
    """Start, wait until some more parts are there and a moment longer, kill; False if it was done before."""
    threads = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    before = len(list(parts.rglob("*.parquet")))
    more, moment = chance.randint(0, 8), chance.uniform(0, 0.2)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(words, cwd=ROOT, env={**os.environ, **threads}, start_new_session=True, **quiet)  # type: ignore[call-overload]
    while len(list(parts.rglob("*.parquet"))) < before + more and process.poll() is None:
        time.sleep(0.01)
    time.sleep(moment)
    done = process.poll() is not None
    if not done:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return not done


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_ten_kills_leave_no_trace_in_the_table(run: Path, processes: int, tmp_path: Path) -> None:
    chance, words = random.Random(processes), command(run, tmp_path / "out", processes)
    kills = sum(killed_once(words, tmp_path / "out" / "parts", chance) for _ in range(KILLS))
    assert kills >= KILLS / 2
    subprocess.run(words, cwd=ROOT, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=600)
    tables = [pq.read_table(out / "per_image.parquet") for out in (left_alone(run), tmp_path / "out")]
    assert tables[0].equals(tables[1])
    assert tables[1]["index"].to_pylist() == 3 * list(range(160))
