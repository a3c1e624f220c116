"""W&B as a mirror: what it holds, read back from the offline run, and what happens when it breaks."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
import wandb
from PIL import Image

from callbacks import AdaptiveEvaluation, MetricsFile
from callbacks.tags import classes_in, tags_of
from callbacks.wandb_evaluation import log_evaluation
from callbacks.wandb_run import WandbRun
from cli.names import ROOT
from evaluation import Records, examine, rows_of, summarise, write_results
from tests.callbacks.toys import CLASSES, SUITE, Module, images, loader, trainer

CONFIG = {
    "data": {"class_path": "datamodules.Digits", "init_args": {"seed": 0}},
    "model": {
        "class_path": "lightning_modules.Classifier",
        "init_args": {"network": {"class_path": "d.RobustNet", "init_args": {"network": {"class_path": "m.Net"}}}},
    },
}


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Nothing outside the test's folder, no account, no run left open."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    yield
    wandb.finish()


def records_of(folder: Path) -> list[dict[str, Any]]:
    """All records of the one offline run in a folder, by the official reader."""
    (file,) = folder.glob("wandb/offline-run-*/*.wandb")
    command = [Path(sys.executable).with_name("wandb"), "leet", "inspect", "--json", file]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def merged(records: list[dict[str, Any]], kind: str, key: str) -> dict[str, Any]:
    """The content of all records of a kind, later ones over earlier ones."""
    found: dict[str, Any] = {}
    for record in records:
        found |= record.get(kind, {}).get(key, {})
    return found


def artifacts_in(records: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Type -> paths of its files; the tables that wandb keeps by itself are left out."""
    found = [record["artifact"] for record in records if "artifact" in record]
    return {one["type"]: [file["path"] for file in one["manifest"]["contents"]] for one in found
            if one["type"] != "run_table"}  # fmt: skip


@pytest.mark.timeout(150)
def test_a_training_offline_read_back(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    command = [
        sys.executable, str(ROOT / "train.py"), "--model", "robustnet", "--data", "Digits", "--data.batch_size", "16",
        "--data.val_images", "16", "--trainer.accelerator", "cpu", "--trainer.max_epochs", "1",
        "--trainer.limit_train_batches", "2", "--model.robust_images", "16",
        "--trainer.callbacks+=callbacks.AdaptiveEvaluation", "--trainer.callbacks.suite", "mine.yaml",
        "--trainer.callbacks.n_images", "16", "--trainer.callbacks.draws", "2", "--trainer.callbacks.eps", "[0.1,1/5]",
        "--checkpoint.monitor", "adaptive/worst_case",
    ]  # fmt: skip
    suite = "pgd2: {class_path: attacks.PGD, init_args: {ball: {class_path: attacks.Linf, init_args: {eps: 0.1}}, "
    (tmp_path / "mine.yaml").write_text(f"{suite} step_size: 0.05, steps: 2}}}}")
    environment = {"HOME": str(tmp_path / "home"), "PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stderr) == (0, "")
    (folder,) = tmp_path.glob("runs/robustnet/*")
    records = records_of(folder)

    (run,) = [record["run"] for record in records if "run" in record]
    assert (run["run_group"], run["job_type"]) == ("robustnet", "train")
    assert run["tags"] == ["robustnet", "Digits", "Classifier", "RobustNet", "ResNet20"]
    config = merged(records, "config", "update")
    assert config["model"]["init_args"]["network"]["init_args"]["inner"]["init_args"] == {"std": 0.1}
    # The attacks themselves, not only where they were read from.
    assert config["trainer"]["callbacks"][0]["init_args"]["suite"]["pgd2"]["init_args"]["steps"] == 2

    history = merged(records, "history", "item")
    logged = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    (line,) = [line for line in logged if "adaptive/worst_case" in line]
    names = [f"adaptive/{at}/accuracy" for at in ("clean", "pgd2_eps0.1", "pgd2_eps0.2")]
    for name in (*names, "adaptive/worst_case", "adaptive/worst_case/low", "val/clean"):
        assert history[name] == pytest.approx(line[name]), name
    assert (history["adaptive/adversaries.nrows"], history["adaptive/images.nrows"]) == (3, 3 * 16)
    for name in ("pgd2_eps0.1", "pgd2_eps0.2"):
        (picture,) = history[f"adaptive/{name}/panel.filenames"]
        (file,) = folder.glob(f"wandb/offline-run-*/files/{picture}")
        with Image.open(file) as image:
            assert image.size == (3 * 64 + 2 * 2, 8 * 64 + 7 * 2)
    (table,) = folder.glob(f"wandb/offline-run-*/files/{history['adaptive/over_eps_table.path']}")
    points = json.loads(table.read_text())["data"]
    assert [point[-1] for point in points] == pytest.approx([line[name] for name in names])

    assert artifacts_in(records) == {"evaluation": ["adaptive.parquet"], "model": ["best.ckpt", "config.yaml"]}
    (kept,) = [record["artifact"] for record in records if record.get("artifact", {}).get("type") == "evaluation"]
    assert kept["name"] == "robustnet-adaptive"
    rows = rows_of(pq.read_table(kept["manifest"]["contents"][0]["local_path"]))
    assert {name: found.n for name, found in rows.items()} == {"clean": 16, "pgd2_eps0.1": 16, "pgd2_eps0.2": 16}
    for name, found in rows.items():
        assert found.right.mean() == pytest.approx(line[f"adaptive/{name}/accuracy"])
    (kept,) = [record["artifact"] for record in records if record.get("artifact", {}).get("type") == "model"]
    copies = {Path(file["local_path"]) for file in kept["manifest"]["contents"]}
    assert all(copy.resolve().is_relative_to(folder.resolve()) for copy in copies)
    assert (folder / "checkpoints" / "best.ckpt").read_bytes() in [copy.read_bytes() for copy in copies]
    outside = [path.name for path in (tmp_path / "home").rglob("*")]
    assert not [name for name in outside if name.endswith((".wandb", ".ckpt", "table.json")) or name == "staging"]


@pytest.fixture
def evaluation(tmp_path: Path) -> Path:
    """The folder of a finished evaluation of a random network at two radii."""
    module, (x, y) = Module(), images(12).tensors
    attacks = {"pgd_eps0.1": SUITE["pgd2"], "pgd_eps0.2": SUITE["pgd3"]}
    manifest = {
        "adversaries": ["clean", *attacks],
        "attacks": {name: repr(attack) for name, attack in attacks.items()},
        "data": {"class_path": "datamodules.Digits"},
        "radii": {"pgd": {"pgd_eps0.1": 0.1, "pgd_eps0.2": 0.2}},
        "random": True,
        "seed": 0,
        "shared": False,
    }
    records = Records(tmp_path / "evaluation", manifest)
    for name, attack in {"clean": None, **attacks}.items():
        found = examine(module.network, (x, y), 0, name, attack, 0, 4)
        records.write(name, 0, found.rows, found.x_adv[:3].numpy())
    records.finish()
    write_results(records.folder, summarise(records.table(), random=True), manifest)
    (records.folder / "report.html").write_text("<p>report</p>")
    (records.folder / "sessions.jsonl").write_text("{}\n")
    return records.folder


def test_an_evaluation_offline_read_back(evaluation: Path, tmp_path: Path) -> None:
    weights = tmp_path / "best.ckpt"
    weights.write_bytes(b"weights")
    assert log_evaluation(evaluation, "mine", "robustnet", weights, tags=["published"], mode="offline")
    records = records_of(evaluation)
    (run,) = [record["run"] for record in records if "run" in record]
    assert (run["display_name"], run["run_group"], run["job_type"]) == ("mine", "robustnet", "evaluate")
    assert run["tags"] == ["robustnet", "Digits", "published"]
    assert merged(records, "config", "update")["radii"]["pgd"]["pgd_eps0.2"] == 0.2
    summary = merged(records, "summary", "update")
    for found in json.loads((evaluation / "results.json").read_text())["summaries"]:
        name = f"robust/{found['adversary']}"
        values = [summary[f"{name}/{key}"] for key in ("accuracy", "low", "high", "n")]
        assert values == pytest.approx([found["accuracy"], *found["interval"], 12])
    assert 0 <= summary["robust/worst_case"] <= summary["robust/clean/accuracy"]
    assert {f"robust/pgd_eps0.1/class/{label}" for label in range(CLASSES)} <= summary.keys()
    history = merged(records, "history", "item")
    assert (history["adversaries.nrows"], history["images.nrows"], history["over_eps_table.nrows"]) == (3, 36, 3)
    assert {"pgd_eps0.1/panel.filenames", "pgd_eps0.2/panel.filenames", "over_l2_table.nrows"} <= history.keys()
    files = ["manifest.json", "per_image.parquet", "report.html", "results.json", "sessions.jsonl"]
    kept = artifacts_in(records)
    assert {kind: sorted(paths) for kind, paths in kept.items()} == {"evaluation": files, "model": ["best.ckpt"]}


def break_run(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    def fails(*args: Any, **kwargs: Any) -> None:
        raise ConnectionResetError("Connection lost\nand more")

    monkeypatch.setattr(wandb.Run, method, fails)


@pytest.mark.parametrize("method", ["log", "log_artifact"])
def test_an_evaluation_survives_a_failing_logger(
    method: str, evaluation: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    break_run(monkeypatch, method)
    assert not log_evaluation(evaluation, "mine", "robustnet", mode="offline")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("W&B failed (ConnectionResetError: Connection lost); the run goes on without it")
    assert str(evaluation) in line


def test_a_training_loses_nothing_to_a_failing_logger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, lines = [], []
    for name in ("whole", "broken"):
        folder = tmp_path / name
        folder.mkdir()
        if name == "broken":
            break_run(monkeypatch, "log")
        module, watcher = Module(), AdaptiveEvaluation(SUITE, n_images=8, draws=2)
        run = WandbRun(folder, "robustnet", mode="offline")
        runner = trainer(watcher, logger=None, max_epochs=2)
        runner.loggers = [run, MetricsFile(folder)]
        runner.fit(module, loader(), loader())
        assert run.failed == (name == "broken")
        weights.append(module.state_dict())
        lines.append((folder / "metrics.jsonl").read_text())
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert lines[0] == lines[1]
    assert "adaptive/worst_case" in lines[1]
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "W&B" in line]
    assert line.startswith("W&B failed (ConnectionResetError")


@pytest.mark.parametrize(("mode", "begun"), [("online", ["online", "offline"]), ("offline", ["offline"])])
def test_a_run_that_cannot_be_begun_is_done_without(
    mode: str, begun: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tried: list[str] = []

    def refuse(**settings: Any) -> None:
        tried.append(settings["mode"])
        raise wandb.errors.CommError("no server")

    monkeypatch.setattr(wandb, "init", refuse)
    run = WandbRun(tmp_path, "robustnet", mode=mode)
    run.log_hyperparams(CONFIG)
    run.log_metrics({"loss": 1.0}, 0)
    run.experiment.config.update({"a": 1})
    run.finalize("success")
    assert tried == begun
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(begun)
    assert lines[-1].startswith("W&B failed (CommError: no server)")


def test_a_second_part_of_a_run_has_the_same_id(tmp_path: Path) -> None:
    run = WandbRun(tmp_path, "robustnet", mode="offline")
    run.log_metrics({"loss": 1.0}, 0)
    first = run.version
    run.finalize("success")
    assert wandb.run is None
    run.log_metrics({"test": 1.0}, 1)
    assert run.version == first
    run.finalize("success")
    assert not run.failed


def test_it_does_not_wait_long(tmp_path: Path) -> None:
    settings = WandbRun(tmp_path, "robustnet", mode="offline")._wandb_init["settings"]
    assert 0 < settings.init_timeout <= 20
    assert 0 < settings.finish_timeout <= 60


@pytest.mark.parametrize("login", [True, False])
def test_the_mode_is_decided_without_a_prompt(login: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, bool]] = []
    answer: Callable[..., bool] = lambda **how: asked.append(how) or login  # type: ignore[func-returns-value]  # noqa: E731
    monkeypatch.setattr(wandb, "login", answer)
    assert WandbRun(tmp_path, "robustnet")._wandb_init["mode"] == ("online" if login else "offline")
    assert asked == [{"prompt": False, "verify": False}]
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert WandbRun(tmp_path, "robustnet", mode="online")._wandb_init["mode"] == "disabled"


def test_a_key_that_cannot_be_one_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(**how: bool) -> None:
        raise wandb.errors.AuthenticationError("API key must have 40+ characters, has 3.")

    monkeypatch.setattr(wandb, "login", refuse)
    assert WandbRun(tmp_path, "robustnet")._wandb_init["mode"] == "offline"
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("W&B takes no login (AuthenticationError: API key must have 40+ characters")


def test_tags_are_the_recipe_and_the_classes() -> None:
    assert list(classes_in(CONFIG)) == ["Digits", "Classifier", "RobustNet", "Net"]
    assert list(classes_in({"model": {"class_path": "a.B"}, "data": None})) == ["B"]
    assert tags_of("a", "b", "a", "", "x" * 70) == ["a", "b", "x" * 64]
