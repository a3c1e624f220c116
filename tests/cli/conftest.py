"""Runs of train.py and evaluate.py inside the test process: their imports take seconds."""

import logging
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import cli.evaluate
import cli.train

# Lightning 2.6.6 calls what jsonargparse 4.53 deprecates, which both keep from users.
os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")

# The smallest training: real images, one step.
DIGITS = shlex.split(
    "--data Digits --data.batch_size 16 --data.val_images 16 --logger false --trainer.accelerator cpu "
    "--trainer.max_epochs 1 --trainer.limit_train_batches 2 --model.robust_images 16"
)


class Outcome(NamedTuple):
    """What a program left behind."""

    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def _undone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Each test in a folder of its own, and a process as it was before."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("FRESHDRAW_RUN_DIR", "")
    for name in ("SLURM_JOB_ID", "LOCAL_RANK", "TORCHELASTIC_RUN_ID", "WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    yield
    for name, module in list(sys.modules.items()):  # what a test wrote and imported
        if str(getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]
    logging.disable(logging.NOTSET)


@pytest.fixture
def train(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """train.py on digits: words after the smallest training's own."""

    def run(*words: str, defaults: list[str] = DIGITS) -> Outcome:
        capsys.readouterr()
        return Outcome(cli.train.main([*defaults, *words]), *capsys.readouterr())

    return run


@pytest.fixture
def evaluate(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """evaluate.py with these words."""

    def run(*words: str | Path) -> Outcome:
        capsys.readouterr()
        return Outcome(cli.evaluate.main([str(word) for word in words]), *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def _trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("trained")
    words = [*DIGITS, "--model", "robustnet_adv", "--model.attack.steps", "1", "--run_dir", str(root)]
    assert cli.train.main(words) == 0
    (folder,) = (root / "robustnet_adv").iterdir()
    return folder


@pytest.fixture
def trained(_trained: Path, tmp_path: Path) -> Path:
    """The folder of a finished run of robustnet_adv, a copy for each test."""
    return Path(shutil.copytree(_trained, tmp_path / "trained"))
