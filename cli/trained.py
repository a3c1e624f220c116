"""Networks trained here, by what they were trained with: "run:RECIPE" or "run:RECIPE,model.network.std=0.02"."""

from pathlib import Path
from typing import Any

import yaml
from torch import nn

from cli.names import UsageError, recipes, unknown
from cli.targets import target_at
from papers import MissingNetwork

_DATA = "CIFAR10"
_NOTHING = object()


def trained_here(name: str, root: Path, options: list[str]) -> nn.Module:
    """The best checkpoint of the newest run on CIFAR-10 that a name speaks of.

    Args:
        name: "run:RECIPE", and after commas settings that the run must have, written as train.py's options without
            dashes: "run:bandlimited,model.network.percent=85". "data" takes the name of another data set.
        root: folder of runs, root/RECIPE/RUN.
        options: what the command line says about data.

    Raises:
        MissingNetwork: no such run has a best checkpoint; the message says how to train it.
        UsageError: there is no such recipe, or a setting is not NAME=VALUE.
    """
    recipe, *pairs = name.removeprefix("run:").split(",")
    if recipe not in recipes():
        raise UsageError(unknown("recipe", recipe, recipes(), "run:RECIPE"))
    if odd := [pair for pair in pairs if "=" not in pair]:
        raise UsageError(f"{name}: '{odd[0]}' is no setting; write NAME=VALUE")
    wanted = {"data": _DATA, **dict(pair.split("=", 1) for pair in pairs)}
    checkpoints = root.glob(f"{recipe}/*/checkpoints/best.ckpt")
    found = [checkpoint for checkpoint in checkpoints if _fits(checkpoint.parent.parent / "config.yaml", wanted)]
    if not found:
        words = "".join(f" --{key} {value}" for key, value in wanted.items() if (key, value) != ("data", _DATA))
        raise MissingNetwork(f"no run in {root / recipe}; make it by: python train.py --model {recipe}{words}")
    newest = max(found, key=lambda checkpoint: checkpoint.stat().st_mtime)
    print(f"{name} is {newest.parent.parent}", flush=True)
    return target_at(str(newest), options).network


def _fits(config: Path, wanted: dict[str, str]) -> bool:
    if not config.is_file():
        return False
    settings = yaml.safe_load(config.read_text())
    return all(_same(_setting(settings, key), value) for key, value in wanted.items())


def _setting(part: Any, key: str) -> Any:
    """A setting as the command line names it: "model.network.std" lies under model's and network's init_args."""
    for word in key.split("."):
        part = {**part, **(part.get("init_args") or {})} if isinstance(part, dict) else {}
        part = part.get(word, _NOTHING)
    return part


def _same(found: Any, wanted: str) -> bool:
    if isinstance(found, dict):  # a class
        return str(found.get("class_path", "")).rpartition(".")[2] == wanted
    return bool(found == yaml.safe_load(wanted))
