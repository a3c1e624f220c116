"""Folders of transfers that never were: known numbers."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

ENVIRONMENT = {"date": "2026-11-21", "device_name": "2 CPU threads", "machine": "x86_64", "torch": "2.15.0"}


def matrix(names: Sequence[str], seed: int = 0) -> dict[str, Any]:
    """Numbers as `evaluation.transfer.matrices` gives them for one attack."""
    found = np.random.default_rng(seed).uniform(0.1, 0.9, size=(len(names) + 1, len(names)))
    *rows, clean = found.tolist()
    *low, clean_low = (found - 0.05).tolist()
    *high, clean_high = (found + 0.1).tolist()
    return {
        "sources": list(names),
        "targets": list(names),
        "accuracy": rows,
        "low": low,
        "high": high,
        "clean": clean,
        "clean_low": clean_low,
        "clean_high": clean_high,
        "draws": [1] * len(names),
        "n": 500,
    }


def a_transfer(folder: Path, names: Sequence[str], attacks: Sequence[str], **others: Any) -> Path:
    """The results of a finished transfer; `others` take the place of what they usually hold."""
    networks = [
        {"name": name, "recipe": name, "draws": 1 + k, "random": k > 0, "weights_sha256": f"{k}123456789abcdef" * 4}
        for k, name in enumerate(names)
    ]
    results = {
        "transfer": {attack: matrix(names, seed) for seed, attack in enumerate(attacks)},
        "manifest": {
            "attacks": {attack: f"PGD({attack})" for attack in attacks},
            "data": {"class_path": "datamodules.CIFAR10"},
            "n": 500,
            "networks": networks,
            "seed": 3,
            "split": "test",
        },
        "environment": ENVIRONMENT,
        "command": "python evaluate.py transfer A B",
        "cost": {"forward": 1234567, "backward": 7654, "seconds": 3725.0},
        **others,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results))
    return folder
