"""Networks trained here are found by recipe and settings, or it is told how to train them."""

import os
from pathlib import Path

import pytest
import torch
import yaml

from callbacks import CONFIG_KEY
from cli.names import UsageError
from cli.trained import trained_here
from defenses import ParamNet
from models import ResNet20
from papers import MissingNetwork


def run(root: Path, name: str, std: float, data: str = "CIFAR10", age: int = 0) -> Path:
    """A run of `paramnet` as train.py leaves it, as far as it is looked at; the older, the greater its age."""
    network = {
        "class_path": "defenses.ParamNet",
        "init_args": {"network": {"class_path": "models.ResNet20"}, "std": std},
    }
    model = {"class_path": "lightning_modules.Classifier", "init_args": {"network": network}}
    settings = {"model": model, "data": {"class_path": f"datamodules.{data}", "init_args": {}}}
    folder = root / "paramnet" / name
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    weights = ParamNet(ResNet20(num_classes=10), std).state_dict()
    state = {f"network.{key}": torch.full_like(value, 0) for key, value in weights.items()}
    file = folder / "checkpoints" / "best.ckpt"
    saved = {"yaml": yaml.safe_dump(settings), "recipe": "paramnet"}
    torch.save({"state_dict": state, CONFIG_KEY: saved}, file)
    os.utime(file, (10**9 - age, 10**9 - age))
    return folder


def test_the_newest_run_with_these_settings_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, "old", 0.02, age=9)
    newer = run(tmp_path, "newer", 0.02, age=5)
    newest = run(tmp_path, "newest", 0.07)
    run(tmp_path, "digits", 0.02, data="Digits")
    network = trained_here("run:paramnet,model.network.std=0.02", tmp_path, [])
    assert isinstance(network, ParamNet)
    assert str(newer) in capsys.readouterr().out
    trained_here("run:paramnet", tmp_path, [])
    assert str(newest) in capsys.readouterr().out


def test_what_is_missing_can_be_trained_by_the_message(tmp_path: Path) -> None:
    run(tmp_path, "one", 0.02)
    command = r"python train.py --model paramnet --model.network.std 0.01$"
    with pytest.raises(MissingNetwork, match=command):
        trained_here("run:paramnet,model.network.std=0.01", tmp_path, [])
    with pytest.raises(MissingNetwork, match=r"--model plain$"):
        trained_here("run:plain", tmp_path, [])


@pytest.mark.parametrize(
    ("name", "message"), [("run:plane", "did you mean plain"), ("run:plain,epochs", "'epochs' is no setting")]
)
def test_a_name_that_cannot_be_is_refused(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        trained_here(name, tmp_path, [])
