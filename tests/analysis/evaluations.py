"""Folders of evaluations that never were: known answers, known images, known numbers."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from evaluation import Records, rows_of
from evaluation.batch import Batch
from evaluation.curves import l2_curves
from evaluation.summary import Setting, summarise
from evaluation.worst_case import worst_case

CLASSES = 10
# Probability that a draw is right.
RIGHT = {"clean": 0.9, "pgd": 0.4, "ddn": 0.2}
COST = {"forward": 1234567, "backward": 7654, "seconds": 3725.0}
ENVIRONMENT = {"date": "2026-11-21", "device": "cpu", "machine": "x86_64", "torch": "2.15.0"}
CHECKS = [
    {"name": "loss rises", "verdict": "pass", "text": "Yes.", "figures": {"share": 0.975, "n": 40}, "source": "A"},
    {"name": "binarization", "verdict": "not run", "text": "Needs more.", "figures": {}, "source": "B 2022"},
    {"name": "unbounded eps", "verdict": "doubt", "text": "No.", "figures": {"accuracy": 0.12}, "source": "C"},
]  # fmt: skip


def manifest(recipe: str, n: int, draws: int, size: int) -> dict[str, Any]:
    return {
        "adversaries": list(RIGHT),
        "attacks": {"pgd": "PGD(ball=Linf(eps=0.0314), steps=20)", "ddn": "DDN(steps=40)"},
        "batch_size": size,
        "data": {"class_path": "datamodules.CIFAR10"},
        "draws": draws,
        "keep": min(n, 3),
        "n": n,
        "radii": {},
        "random": draws > 1,
        "recipe": recipe,
        "seed": 0,
        "shared": False,
        "split": "test",
        "votes": 1,
        "weights_sha256": "0123456789abcdef" * 4,
    }


def an_evaluation(
    folder: Path, recipe: str = "robustnet", n: int = 20, draws: int = 10, seed: int = 0, size: int = 8,
    right: dict[str, float] = RIGHT,
) -> Path:  # fmt: skip
    """A finished evaluation of n images of which the first 3 were kept."""
    store = Records(folder, manifest(recipe, n, draws, size))
    labels = np.random.default_rng(7).integers(CLASSES, size=n)
    rng = np.random.default_rng(seed)
    for name, probability in right.items():
        for number, first in enumerate(range(0, n, size)):
            index = np.arange(first, min(first + size, n))
            found = rng.uniform(size=(len(index), draws)) < probability
            store.write(name, number, rows(rng, name == "clean", index, labels[index], found), images(name, first))
    store.finish()
    write_results(folder, store)
    return folder


def rows(rng: np.random.Generator, clean: bool, index: np.ndarray, label: np.ndarray, right: np.ndarray) -> Batch:
    n = len(index)
    return Batch(
        index=index,
        label=label,
        answers=np.where(right, label[:, None], (label[:, None] + 1) % CLASSES),
        probs=np.full((n, CLASSES), 0.1),
        l2=np.zeros(n) if clean else rng.uniform(0.5, 1.5, size=n),
        linf=np.zeros(n) if clean else np.full(n, 8 / 255),
        queries=np.full(n, 0 if clean else 20),
        zero_gradient=np.zeros(n, bool),
        erred=np.zeros(n, bool),
        loss=np.zeros((n, 0)) if clean else np.cumsum(rng.uniform(size=(n, 33)), axis=1),
        unfinished=np.full(n, np.nan),
    )


def images(name: str, first: int) -> np.ndarray:
    """The first 3 images: grey, and under an adversary brighter by 8/255 in the upper half."""
    kept = np.full((max(0, 3 - first), 3, 32, 32), 0.4, np.float32)
    if name != "clean":
        kept[:, :, :16] += 8 / 255
    return kept


def write_results(folder: Path, store: Records) -> None:
    found, setting = rows_of(store.table()), Setting(store.manifest["random"])
    results = {
        "manifest": store.manifest,
        "environment": ENVIRONMENT,
        "command": "python evaluate.py RUN --n 20",
        "summaries": [asdict(one) for one in summarise(found, setting.random)],
        "worst_case": asdict(worst_case(found, setting)),
        "curves": {"eps": [], "l2": [asdict(one) for one in l2_curves(found, setting)]},
        "checks": CHECKS,
        "cost": COST,
    }
    (folder / "results.json").write_text(json.dumps(results))


def change(folder: Path, name: str = "results.json", **values: Any) -> None:
    """Other values in results.json or manifest.json; None takes the key out."""
    path = folder / name
    content = {**json.loads(path.read_text()), **values}
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
