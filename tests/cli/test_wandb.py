"""W&B without an account and without a network: a mirror that never asks, never waits long and is never needed."""

import json
import os
import pty
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from cli.names import ROOT

TRAIN = shlex.split(
    "--model plain --data Digits --data.batch_size 16 --data.val_images 16 --trainer.accelerator cpu "
    "--trainer.max_epochs 1 --trainer.limit_train_batches 2 --model.robust_images 16"
)


def run(folder, *words, stdin=subprocess.DEVNULL, **variables):
    """train.py with an empty home: no key in ~/.netrc, and no network for anything that obeys a proxy."""
    home = folder / "home"
    home.mkdir()
    closed = "http://127.0.0.1:9"
    environment = {"HOME": str(home), "PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", **variables}
    environment |= {"HTTPS_PROXY": closed, "HTTP_PROXY": closed, "https_proxy": closed, "http_proxy": closed}
    done = subprocess.run(
        [sys.executable, ROOT / "train.py", *TRAIN, *words],
        cwd=folder, env=environment, stdin=stdin, capture_output=True, text=True, timeout=150,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (made,) = folder.glob("runs/plain/*")
    return done, made


def read_back(run_folder: Path):
    (file,) = run_folder.glob("wandb/offline-run-*/*.wandb")
    command = [Path(sys.executable).with_name("wandb"), "leet", "inspect", "--summary", "--json", file]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_offline_without_an_account(tmp_path):
    """The default logger, which can be read without an account; nothing outside the run folder."""
    done, folder = run(tmp_path)
    assert done.stderr == ""
    text = json.dumps(read_back(folder))
    for name in ("val/clean", "val/robust", "lightning_modules.Classifier"):
        assert name in text
    logged = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert any("val/clean" in row for row in logged)
    assert not list((tmp_path / "home").rglob("*.wandb"))


def test_a_terminal_is_not_asked(tmp_path):
    ours, theirs = pty.openpty()
    done, folder = run(tmp_path, stdin=theirs)
    os.close(theirs)
    os.close(ours)
    assert "wandb" not in done.stdout.lower().replace(str(folder), "")
    assert list(folder.glob("wandb/offline-run-*"))


@pytest.mark.slow
def test_a_key_without_a_network_falls_back(tmp_path):
    done, folder = run(tmp_path, WANDB_API_KEY="0123456789" * 4)
    assert done.stderr.count("logged offline") == 1
    assert list(folder.glob("wandb/offline-run-*"))


def test_switched_off_it_is_not_even_imported(tmp_path):
    code = f"""
import sys; sys.path.insert(0, {str(ROOT)!r})
from cli.train import main
code = main({[*TRAIN, "--logger", "false"]!r})
print(code, "wandb" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "0 False", done.stderr
    assert not list(tmp_path.rglob("wandb"))
