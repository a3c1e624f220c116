"""The report of a transfer: one matrix for each attack."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.report.folder import json_object
from analysis.report.html import html
from analysis.report.results import Estimate, cost
from analysis.report.words import hardware


@dataclass(frozen=True)
class Matrix:
    """Accuracies of the networks on images that one attack made on each of them.

    Attributes:
        attack: its name.
        targets: names of the columns.
        rows: name of the source, and a cell for each target.
        n: images.
    """

    attack: str
    targets: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Estimate, ...]], ...]
    n: int


@dataclass(frozen=True)
class Network:
    """A network that takes part: facts of the manifest, and its accuracy on clean images."""

    name: str
    recipe: str
    weights: str
    draws: int
    random: bool
    clean: Estimate


def is_transfer(folder: Path) -> bool:
    """Whether a folder holds the results of a transfer, and not those of an evaluation."""
    path = folder / "results.json"
    return path.is_file() and "transfer" in json_object(path)


def transfer_page(folder: Path) -> str:
    """The page of a finished transfer.

    Raises:
        FileNotFoundError: the folder lacks `results.json`.
        ValueError: it is damaged.
    """
    results = json_object(folder / "results.json")
    try:
        return html("transfer.html.j2", **_content(results))
    except (KeyError, TypeError, ValueError, AttributeError, StopIteration) as error:
        raise ValueError(f"{folder / 'results.json'} is not that of a transfer ({error!r})") from None


def _content(results: Mapping[str, Any]) -> dict[str, Any]:
    manifest, environment = results["manifest"], results["environment"]
    found = [_matrix(attack, values) for attack, values in results["transfer"].items()]
    clean = next(iter(results["transfer"].values()))
    estimates = _estimates(clean["clean"], clean["clean_low"], clean["clean_high"])
    networks = [_network(one, estimate) for one, estimate in zip(manifest["networks"], estimates, strict=True)]
    others = {key: value for key, value in manifest.items() if key != "attacks"}
    return {
        "data": _data(manifest),
        "facts": _facts(manifest, environment),
        "networks": networks,
        "matrices": found,
        "n": clean["n"],
        "cost": cost(results),
        "command": results["command"],
        "attacks": list(manifest["attacks"].items()),
        "versions": [pair for pair in environment.items() if pair[0] != "date"],
        "manifest": json.dumps(others, indent=2, sort_keys=True),
    }


def _matrix(attack: str, found: Mapping[str, Any]) -> Matrix:
    lines = zip(found["sources"], found["accuracy"], found["low"], found["high"], strict=True)
    rows = tuple((source, _estimates(*numbers)) for source, *numbers in lines)
    return Matrix(attack, tuple(found["targets"]), rows, found["n"])


def _estimates(values: list[float], low: list[float], high: list[float]) -> tuple[Estimate, ...]:
    return tuple(Estimate(*three) for three in zip(values, low, high, strict=True))


def _network(found: Mapping[str, Any], clean: Estimate) -> Network:
    weights = found["weights_sha256"][:12]
    return Network(found["name"], found["recipe"], weights, found["draws"], found["random"], clean)


def _data(manifest: Mapping[str, Any]) -> str:
    return str(manifest["data"]["class_path"]).rsplit(".", 1)[-1]


def _facts(manifest: Mapping[str, Any], environment: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """What was done on what: name and value."""
    known = {
        "data": f"{_data(manifest)} {manifest['split']}",
        "images": f"{manifest['n']:,}",
        "seed": manifest["seed"],
        "date": str(environment.get("date") or "")[:10],
        "hardware": hardware(environment),
    }
    return [(name, value) for name, value in known.items() if value not in (None, "")]
