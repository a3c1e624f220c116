"""What is killed and goes on ends like what was never stopped, bit for bit; and each run has a folder of its own."""

import json
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from cli.names import ROOT
from cli.runs import new_run_folder

# 11 steps an epoch, noise and attack from the first step on, last.ckpt after steps 4 and 8 of each epoch.
WORDS = shlex.split(
    "--data Digits --data.batch_size 128 --data.val_images 16 --data.crop_padding 1 --logger false "
    "--trainer.accelerator cpu --trainer.log_every_n_steps 1 --model.robust_images 16 --model.attack.steps 1 "
    "--model.warmup_epochs 0 --trainer.max_epochs 3 --save_every 4"
)
# Kills itself as the kernel would, at a step: sleeping and hoping would test another moment each time.
KILLED_TRAINING = """
import os, signal, sys
from callbacks import LastCheckpoint
original = LastCheckpoint.{hook}
def dies(self, trainer, *rest):
    original(self, trainer, *rest)
    if trainer.global_step == {step}:
        os.kill(os.getpid(), signal.SIGKILL)
LastCheckpoint.{hook} = dies
from cli.train import main
sys.exit(main(sys.argv[1:]))
"""
KILLED_EVALUATION = """
import os, signal, sys
from evaluation import Records
original, count = Records.write, 0
def dies(self, *rest):
    global count
    count += 1
    if count == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    original(self, *rest)
Records.write = dies
from cli.evaluate import main
sys.exit(main(sys.argv[1:]))
"""


def killed(code, words, folder):
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}", *map(str, words)],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Runs by recipe, made once."""
    import cli.train

    made: dict[str, Path] = {}

    def run(recipe):
        if recipe not in made:
            root = tmp_path_factory.mktemp("uninterrupted")
            assert cli.train.main(["--model", recipe, *WORDS, "--run_dir", str(root)]) == 0
            (made[recipe],) = root.glob("*/*")
        return made[recipe]

    return run


@pytest.mark.parametrize(
    ("recipe", "hook", "step"),
    [
        ("robustnet_adv", "on_train_batch_end", 17),  # goes on from step 15 in the middle of the second epoch
        ("robustnet_adv", "on_train_epoch_end", 22),
        ("pni_w_adv", "on_train_batch_end", 7),
    ],
)
def test_killed_training_goes_on_bit_for_bit(recipe, hook, step, train, uninterrupted, tmp_path):
    words = ["--model", recipe, *WORDS]
    killed(KILLED_TRAINING.format(hook=hook, step=step), words, tmp_path)
    (run,) = tmp_path.glob("runs/*/*")
    assert torch.load(run / "checkpoints" / "last.ckpt")["global_step"] == {17: 15, 22: 22, 7: 4}[step]
    outcome = train("--model", recipe, "--ckpt_path", "last", "--save_every", "4", "--logger", "false", defaults=[])
    assert outcome.code == 0, outcome
    assert outcome.err == ""
    assert list(tmp_path.glob("runs/*/*")) == [run]
    whole = uninterrupted(recipe)
    compare_checkpoints(whole / "checkpoints" / "last.ckpt", run / "checkpoints" / "last.ckpt")
    compare_checkpoints(whole / "checkpoints" / "best.ckpt", run / "checkpoints" / "best.ckpt")
    assert metrics(run) == metrics(whole)
    assert (run / "config.yaml").read_text() == (whole / "config.yaml").read_text()


def compare_checkpoints(one, other):
    one, other = torch.load(one), torch.load(other)
    for part in ("state_dict", "optimizer_states", "lr_schedulers"):
        torch.testing.assert_close(one[part], other[part], rtol=0, atol=0, equal_nan=True)
    assert (one["epoch"], one["global_step"]) == (other["epoch"], other["global_step"])


def metrics(run):
    """What was measured at each step; means over an epoch that was entered in the middle are those of its rest."""
    values = {}
    for line in (run / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        for name in row.keys() & {"train/loss_step", "val/clean", "val/robust"}:
            values[row["step"], name] = row[name]
    assert len(values) == 33 + 2 * 3
    return values


def test_killed_evaluation_goes_on(trained, evaluate, tmp_path):
    words = ["--n", "12", "--batch_size", "4", "--draws", "2", "--checks", "none", "--trainer.accelerator", "cpu"]
    for name in ("whole", "killed"):
        shutil.copytree(trained, tmp_path / name)
    assert evaluate("whole", *words).code == 0
    killed(KILLED_EVALUATION, ["killed", *words], tmp_path)
    (parts,) = tmp_path.glob("killed/evaluations/*/parts")
    assert len(list(parts.rglob("*.parquet"))) == 3
    kept = {path: path.stat().st_mtime_ns for path in parts.rglob("*.parquet")}
    outcome = evaluate("killed", *words)
    assert outcome.code == 0, outcome
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    (one,) = tmp_path.glob("whole/evaluations/*/per_image.parquet")
    (other,) = tmp_path.glob("killed/evaluations/*/per_image.parquet")
    assert pq.read_table(one).equals(pq.read_table(other))


def test_two_runs_in_one_process_have_two_folders(train, tmp_path):
    for _ in range(2):
        assert train("--model", "plain").code == 0
    runs = list(tmp_path.glob("runs/plain/*"))
    assert len(runs) == 2
    assert all((run / "checkpoints" / "last.ckpt").is_file() for run in runs)


def test_runs_of_one_second_have_different_folders(tmp_path):
    folders = [new_run_folder(tmp_path, "plain") for _ in range(5)]
    assert len(set(folders)) == 5
    assert all(folder.is_dir() for folder in folders)


def test_processes_of_one_run_share_its_folder(tmp_path, monkeypatch):
    folder = new_run_folder(tmp_path, "plain")
    monkeypatch.setenv("LOCAL_RANK", "1")  # as Lightning starts the others
    assert new_run_folder(tmp_path, "plain") == folder


def test_a_slurm_job_names_its_folder_and_finds_it_again(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    monkeypatch.delenv("SLURM_JOB_NAME", raising=False)
    assert new_run_folder(tmp_path, "plain") == tmp_path / "plain" / "4711"
    assert new_run_folder(tmp_path, "plain") == tmp_path / "plain" / "4711"


def test_a_checkpoint_outside_a_run_folder_is_gone_on_from(train, trained, tmp_path):
    shutil.copy(trained / "checkpoints" / "last.ckpt", "mine.ckpt")
    outcome = train("--model", "robustnet_adv", "--ckpt_path", "mine.ckpt", "--trainer.max_epochs", "2")
    assert outcome.code == 0, outcome
    assert torch.load("checkpoints/last.ckpt")["epoch"] == 1
    assert torch.load("mine.ckpt")["epoch"] == 0
