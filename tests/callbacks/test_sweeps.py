"""The sweep's command, as W&B's own agent would form it, trains and logs what the sweep watches."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

from cli.names import ROOT
from cli.train import main

SWEEPS = sorted((ROOT / "configs" / "sweeps").glob("*.yaml"))
# One step on real images; the attacks of one draw and few steps.
TINY = [
    "--data", "Digits", "--data.batch_size", "16", "--data.val_images", "16", "--logger", "false",
    "--trainer.accelerator", "cpu", "--trainer.max_epochs", "1", "--trainer.limit_train_batches", "1",
    "--model.robust_images", "16", "--model.attack.steps", "1", "--trainer.callbacks.n_images", "8",
    "--trainer.callbacks.draws", "2", "--trainer.callbacks.suite", "suite.yaml",
]  # fmt: skip
SUITE = """
eot:
  class_path: attacks.Adversary
  init_args:
    attack:
      class_path: attacks.PGD
      init_args: {ball: {class_path: attacks.Linf, init_args: {eps: 8/255}}, step_size: 2/255, steps: 2}
    draws: 2
"""


def middle(space: dict[str, Any]) -> Any:
    return space["values"][0] if "values" in space else (space["min"] + space["max"]) / 2


def command_of(sweep: dict[str, Any]) -> list[str]:
    """As wandb/wandb_agent.py forms it: what is no macro stays, `${args}` becomes a word per parameter."""
    args = {name: {"value": middle(space)} for name, space in sweep["parameters"].items()}
    macros: dict[str, Any] = {
        "program": [sweep["program"]],
        "interpreter": [sys.executable],
        "env": ["/usr/bin/env"],
        **create_sweep_command_args({"args": args}),
    }
    words: list[str] = []
    for word in create_sweep_command(list(sweep["command"])):
        words += macros[word[2:-1]] if word.startswith("${") else [word]
    return words


@pytest.mark.parametrize("file", SWEEPS, ids=lambda file: file.stem)
def test_nothing_is_tuned_on_test_images(file: Path) -> None:
    text = file.read_text()
    sweep = yaml.safe_load(text)
    assert text.startswith("# ")
    assert sweep["metric"]["name"].startswith(("adaptive/", "val/"))
    assert sweep["metric"]["goal"] == "maximize"
    assert not any("test" in word for word in sweep["command"])


@pytest.mark.filterwarnings("ignore")  # Lightning and jsonargparse warn of each other
@pytest.mark.parametrize("file", SWEEPS, ids=lambda file: file.stem)
def test_the_command_trains(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FRESHDRAW_RUN_DIR", "")
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("suite.yaml").write_text(SUITE)
    sweep = yaml.safe_load(file.read_text())
    env, python, program, *words = command_of(sweep)
    assert (env, python, program) == ("/usr/bin/env", "python", "train.py")
    assert main([*words, *TINY]) == 0
    (run,) = tmp_path.glob("runs/*/*")
    config = yaml.safe_load((run / "config.yaml").read_text())
    for name, space in sweep["parameters"].items():
        value = config
        for key in name.split("."):
            value = value[key] if key in value else value["init_args"][key]
        assert value == middle(space), name
    logged = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert any(0 <= line.get(sweep["metric"]["name"], -1) <= 1 for line in logged)
