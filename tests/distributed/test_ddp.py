"""Training and evaluation by several real processes (gloo on the CPU), compared with one process."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

# What one process in here computes for comparison runs through Lightning and jsonargparse, which warn of each other.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
CPU = ["--trainer.accelerator", "cpu"]
TWO = [*CPU, "--trainer.devices", "2", "--trainer.strategy", "ddp"]
NODES = [*CPU, "--trainer.devices", "1", "--trainer.num_nodes", "2", "--trainer.strategy", "ddp"]
DIGITS = ["--data", "Digits", "--data.batch_size", "64", "--logger", "false", "--trainer.limit_train_batches", "3"]
ADVERSARIAL = ["--model", "robustnet_adv", "--model.attack.steps", "1", "--model.warmup_epochs", "0"]
TRAIN = ["train.py", *ADVERSARIAL, *DIGITS, "--model.robust_images", "100", "--data.val_images", "129"]
SUITE = """
pgd2:
  class_path: attacks.PGD
  init_args: {ball: {class_path: attacks.Linf, init_args: {eps: 0.1}}, step_size: 0.05, steps: 2}
"""
# What tells a process that it is one of several; a test must not inherit it.
FOREIGN = ("SLURM_", "TORCHELASTIC_", "FRESHDRAW_", "MASTER_", "LOCAL_RANK", "RANK", "WORLD_SIZE", "NODE_RANK", "PL_")


class Run:
    """A process group with its output in a file."""

    def __init__(self, command: list[str], log: Path, env: Mapping[str, str] | None = None) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
        threads = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": str(ROOT)}
        command = command if command[0] == sys.executable else [sys.executable, *command]
        self.log = log
        with log.open("w") as file:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**kept, **threads, **(env or {})},
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def text(self) -> str:
        return self.log.read_text()

    def wait(self, timeout: float = 240) -> int:
        return self.process.wait(timeout)

    def wait_for(self, words: str, timeout: float = 180) -> None:
        end = time.monotonic() + timeout
        while words not in self.text:
            assert self.process.poll() is None, self.text
            assert time.monotonic() < end, self.text
            time.sleep(0.05)

    def group_is_gone(self, timeout: float = 20) -> bool:
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            try:
                os.killpg(self.process.pid, 0)
            except ProcessLookupError:
                return True
            time.sleep(0.1)
        return False

    def kill(self) -> None:
        # torchrun's workers have process groups of their own; asked to end, it ends them.
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)


@contextmanager
def running(command: list[str], log: Path, env: Mapping[str, str] | None = None) -> Iterator[Run]:
    run = Run(command, log, env)
    try:
        yield run
    finally:
        run.kill()


def succeed(command: list[str], log: Path, env: Mapping[str, str] | None = None) -> str:
    with running(command, log, env) as run:
        assert run.wait() == 0, run.text
        return run.text


def together(commands: list[list[str]], folder: Path, envs: list[dict[str, str]] | None = None) -> list[str]:
    """Run commands at once; all have to succeed."""
    runs = [Run(c, folder / f"log{i}", (envs or [{}] * len(commands))[i]) for i, c in enumerate(commands)]
    try:
        codes = [run.wait() for run in runs]
        assert codes == [0] * len(runs), "\n".join(run.text for run in runs)
        return [run.text for run in runs]
    finally:
        for run in runs:
            run.kill()


def free_port() -> str:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return str(listening.getsockname()[1])


def only_run(folder: Path) -> Path:
    (run,) = folder.glob("*/*")
    return run


def weights(run: Path) -> dict[str, torch.Tensor]:
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    tensors: dict[str, torch.Tensor] = checkpoint["state_dict"]
    return tensors


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def metrics(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run of two processes, and what it printed."""
    folder = tmp_path_factory.mktemp("ddp")
    text = succeed([*TRAIN, *TWO, "--trainer.max_epochs", "2", "--run_dir", str(folder / "runs")], folder / "log")
    return only_run(folder / "runs"), text


@pytest.fixture
def suite(tmp_path: Path) -> list[str]:
    (tmp_path / "suite.yaml").write_text(SUITE)
    return ["--suite", str(tmp_path / "suite.yaml"), "--draws", "3", "--checks", "none"]


def evaluate_alone(arguments: list[str], out: Path) -> Path:
    """evaluate.py in this process and on one device."""
    from cli.evaluate import main

    assert main([*arguments, *CPU, "--trainer.devices", "1", "--trainer.strategy", "auto", "--out", str(out)]) == 0
    return out


def assert_same_evaluation(one: Path, other: Path) -> None:
    tables = [pq.read_table(folder / "per_image.parquet") for folder in (one, other)]
    assert tables[0].equals(tables[1])
    assert (one / "per_image.parquet").read_bytes() == (other / "per_image.parquet").read_bytes()
    results = [json.loads((folder / "results.json").read_text()) for folder in (one, other)]
    assert results[0]["summaries"] == results[1]["summaries"]


def test_two_processes_share_a_run_and_speak_once(trained: tuple[Path, str]) -> None:
    run, text = trained
    files = sorted(path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file())
    assert files == ["checkpoints/best.ckpt", "checkpoints/last.ckpt", "config.yaml", "metrics.jsonl"]
    lines = metrics(run)
    for name in ("val/clean", "train/loss_epoch"):
        assert [line["epoch"] for line in lines if name in line] == [0, 1]
    for words in ("run folder:", "epoch 1/2", "epoch 2/2", "done:", "wrote ", "next:"):
        assert text.count(words) == 1, text


def test_validation_counts_each_image_once(trained: tuple[Path, str]) -> None:
    # 129 images in batches of 64 are 3 batches, two of them rank 0's; 100 of them are attacked.
    import pytorch_lightning as pl

    from cli.names import Invocation
    from cli.targets import from_run

    run, _ = trained
    logged = [line for line in metrics(run) if "val/clean" in line][-1]
    cli = from_run(run / "checkpoints" / "last.ckpt", Invocation(options=["--trainer.accelerator=cpu"])).cli
    trainer = pl.Trainer(
        accelerator="cpu", devices=1, logger=False, enable_progress_bar=False, enable_model_summary=False
    )
    (alone,) = trainer.validate(cli.model, cli.datamodule, verbose=False)
    assert logged["val/clean"] * 129 == pytest.approx(round(logged["val/clean"] * 129), abs=1e-4)
    assert logged["val/robust"] * 100 == pytest.approx(round(logged["val/robust"] * 100), abs=1e-4)
    assert {name: logged[name] for name in alone} == alone


@pytest.mark.parametrize(("n", "batch_size"), [(130, 32), (30, 32)], ids=["odd", "fewer batches than processes"])
def test_two_processes_evaluate_as_one(
    trained: tuple[Path, str], suite: list[str], tmp_path: Path, n: int, batch_size: int
) -> None:
    arguments = [str(trained[0]), *suite, "--n", str(n), "--batch_size", str(batch_size)]
    alone = evaluate_alone(arguments, tmp_path / "alone")
    text = succeed(["evaluate.py", *arguments, *TWO, "--out", str(tmp_path / "two")], tmp_path / "log")
    assert_same_evaluation(alone, tmp_path / "two")
    table = pq.read_table(tmp_path / "two" / "per_image.parquet")
    assert table["index"].to_pylist() == 2 * list(range(n))
    assert text.count("wrote ") == 3  # table, results, report: once


@pytest.mark.parametrize("devices", ["0", "-5", "abc"])
def test_absurd_devices_give_one_line(
    devices: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from cli.train import main

    monkeypatch.delenv("LOCAL_RANK", raising=False)
    given = [*CPU, "--trainer.devices", devices, "--trainer.strategy", "ddp", "--run_dir", str(tmp_path)]
    assert main([*TRAIN[1:], *given]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert line.startswith("error: --trainer")


# Runs train.py and writes what each rank drew, and the network that it ended with, to $RECORDS/<rank>.pt.
RECORDING = """
import os, sys

import pytorch_lightning as pl
import torch

import attacks.balls
import defenses.randomness
from cli.train import main

drawn = {"noise": [], "start": []}


def recorded(kind, draw):
    def drawing(*arguments):
        values = draw(*arguments)
        seen = arguments[0] if values is None else values - arguments[1]
        drawn[kind].append(seen.flatten()[:4].tolist())
        return values

    return drawing


class Writer(pl.Callback):
    def on_train_end(self, trainer, module):
        # Running statistics are each rank's own; those of rank 0 are evaluated and saved.
        drawn["weights"] = {name: p.detach().clone() for name, p in module.network.named_parameters()}
        torch.save(drawn, f"{os.environ['RECORDS']}/{trainer.global_rank}.pt")


defenses.randomness._fill_normal = recorded("noise", defenses.randomness._fill_normal)
attacks.balls.Linf.sample = recorded("start", attacks.balls.Linf.sample)
fit = pl.Trainer.fit


def fit_and_write(self, *args, **kwargs):
    self.callbacks.append(Writer())
    fit(self, *args, **kwargs)


pl.Trainer.fit = fit_and_write
sys.exit(main())
"""
# BatchNorm normalises with the statistics of each rank's own images; without it, ranks and joined batch must agree.
NO_BATCHNORM = """
from torch import nn


class Small(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(1, 8, 3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(72, 10))
"""


@pytest.fixture
def recording(tmp_path: Path) -> list[str]:
    (tmp_path / "recording.py").write_text(RECORDING)
    (tmp_path / "small_network.py").write_text(NO_BATCHNORM)
    return [str(tmp_path / "recording.py")]


def record(command: list[str], folder: Path) -> list[dict[str, Any]]:
    folder.mkdir()
    env = {"RECORDS": str(folder), "PYTHONPATH": f"{ROOT}{os.pathsep}{folder.parent}"}
    succeed([*command, "--run_dir", str(folder / "runs")], folder / "log", env)
    return [torch.load(path, weights_only=True) for path in sorted(folder.glob("*.pt"))]


@pytest.mark.slow
def test_ranks_draw_differently_and_agree_on_weights(recording: list[str], tmp_path: Path) -> None:
    options = ["--trainer.max_epochs", "1", "--data.val_images", "0"]
    ranks = record([*recording, *TRAIN[1:], *TWO, *options], tmp_path / "two")
    assert len(ranks) == 2
    for kind in ("noise", "start"):
        draws = [tuple(values) for rank in ranks for values in rank[kind]]
        assert len(draws) >= 6
        assert len(set(draws)) == len(draws), kind
    assert equal(ranks[0]["weights"], ranks[1]["weights"])


@pytest.mark.slow
def test_gradients_are_those_of_the_joined_batch(recording: list[str], tmp_path: Path) -> None:
    clean = ["--model", "plain", "--model.network", "small_network.Small", *DIGITS]
    clean += ["--trainer.max_epochs", "1", "--data.val_images", "0", "--model.schedule.lr", "0.5"]
    one, other = record([*recording, *clean, *TWO], tmp_path / "two")
    alone_on = [*CPU, "--trainer.devices", "1", "--data.batch_size", "128"]
    (alone,) = record([*recording, *clean, *alone_on], tmp_path / "one")
    assert equal(one["weights"], other["weights"])
    for name, expected in alone["weights"].items():
        torch.testing.assert_close(one["weights"][name], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--model.schedule.lr", "1e30"], 1),
        (["--data.val_images", "5000"], 2),
        (["--data.val_images", "1"], 2),
        (["--data", "CIFAR10", "--data.download", "false", "--data.root", "no_such_folder"], 2),
    ],
    ids=["NaN", "data refuses", "fewer images than processes", "no files"],
)
def test_failures_end_all_processes_with_one_line(options: list[str], code: int, tmp_path: Path) -> None:
    command = [*TRAIN, *TWO, "--trainer.max_epochs", "2", "--run_dir", str(tmp_path / "runs"), *options]
    with running(command, tmp_path / "log") as run:
        assert run.wait() == code, run.text
        assert run.group_is_gone(), run.text
        assert run.text.count("error:") == 1, run.text
        assert "Traceback" not in run.text


@pytest.mark.slow
def test_few_validation_images_are_shared_out(tmp_path: Path) -> None:
    # One batch of 30 would leave rank 1 without any.
    options = ["--data.val_images", "30", "--trainer.max_epochs", "1", "--run_dir", str(tmp_path / "runs")]
    succeed([*TRAIN, *TWO, *options], tmp_path / "log")
    (line,) = [line for line in metrics(only_run(tmp_path / "runs")) if "val/clean" in line]
    for name in ("val/clean", "val/robust"):
        assert line[name] * 30 == pytest.approx(round(line[name] * 30), abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_to_the_first_process_ends_all(signum: signal.Signals, code: int, tmp_path: Path) -> None:
    command = [*TRAIN, *TWO, "--trainer.max_epochs", "500", "--run_dir", str(tmp_path / "runs")]
    with running(command, tmp_path / "log") as run:
        run.wait_for("epoch 1/")
        run.process.send_signal(signum)
        assert run.wait(60) == code, run.text
        assert run.group_is_gone(), run.text


def by_rendezvous(port: str) -> list[list[str]]:
    at = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"localhost:{port}", "--rdzv-id", "job7"]
    return [at, at]


def by_address(port: str) -> list[list[str]]:
    return [["--master-addr", "127.0.0.1", "--master-port", port, "--node-rank", node] for node in ("0", "1")]


@pytest.mark.slow
@pytest.mark.parametrize("places", [by_rendezvous, by_address])
def test_torchrun_over_two_nodes(places: Callable[[str], list[list[str]]], suite: list[str], tmp_path: Path) -> None:
    def on_two_nodes(words: list[str], name: str) -> list[str]:
        (tmp_path / name).mkdir()
        nodes = [["--nnodes", "2", "--nproc-per-node", "1", *place] for place in places(free_port())]
        return together([[*TORCHRUN, *node, "--", *words, *NODES] for node in nodes], tmp_path / name)

    texts = on_two_nodes([*TRAIN, "--trainer.max_epochs", "2", "--run_dir", str(tmp_path / "runs")], "train")
    run = only_run(tmp_path / "runs")
    assert (run.name == "job7") == (places is by_rendezvous)
    assert sum(text.count("run folder:") for text in texts) == 1
    assert [line["epoch"] for line in metrics(run) if "val/clean" in line] == [0, 1]

    arguments = [str(run), *suite, "--n", "130", "--batch_size", "32"]
    texts = on_two_nodes(["evaluate.py", *arguments, "--out", str(tmp_path / "two")], "evaluate")
    assert sum(text.count("accuracy %") for text in texts) == 1
    assert_same_evaluation(evaluate_alone(arguments, tmp_path / "alone"), tmp_path / "two")


@pytest.mark.slow
def test_a_requeued_slurm_job_ends_with_the_same_weights(tmp_path: Path) -> None:
    """Two tasks as srun starts them, an scontrol that only notes its arguments, and the signal in mid-training."""
    (tmp_path / "bin").mkdir()
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/requeued\n')
    scontrol.chmod(0o755)

    def tasks(job: str) -> list[dict[str, str]]:
        common = {
            "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": free_port(),
            "SLURM_JOB_ID": job,
            "SLURM_JOB_NAME": "robustnet",
            "SLURM_NTASKS": "2",
            "SLURM_NTASKS_PER_NODE": "2",
            "SLURM_NNODES": "1",
            "SLURM_NODEID": "0",
        }
        return [{**common, "SLURM_PROCID": rank, "SLURM_LOCALID": rank} for rank in ("0", "1")]

    recipe = ["--model", "robustnet", *DIGITS, "--data.val_images", "64", "--model.robust_images", "0"]
    recipe += ["--checkpoint.monitor", "val/clean", "--trainer.max_epochs", "40"]
    command = ["train.py", *recipe, *TWO, "--run_dir", str(tmp_path / "runs")]
    for name in ("whole", "again"):
        (tmp_path / name).mkdir()
    together([command, command], tmp_path / "whole", tasks("4711"))

    first = [Run(command, tmp_path / f"log{i}", env) for i, env in enumerate(tasks("4712"))]
    try:
        first[0].wait_for("epoch 2/")
        for run in first:
            run.process.send_signal(signal.SIGUSR1)
        assert [run.wait() for run in first] == [75, 75], first[0].text + first[1].text
    finally:
        for run in first:
            run.kill()
    assert (tmp_path / "requeued").read_text() == "requeue 4712\n"
    assert "epoch 40/40" not in first[0].text
    together([command, command], tmp_path / "again", tasks("4712"))

    whole, again = (tmp_path / "runs" / "robustnet" / job for job in ("4711", "4712"))
    assert equal(weights(whole), weights(again))
    steps = [[line["step"] for line in metrics(run) if "val/clean" in line] for run in (whole, again)]
    assert steps[0] == steps[1]
