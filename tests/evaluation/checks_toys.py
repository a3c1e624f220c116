"""Networks that learn digits in seconds, honest and masked ones, and what a suite leaves of them."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from attacks import PGD, Attack, Linf
from datamodules import Digits
from defenses import GaussianNoise, RobustNet, has_shared_draws, is_random
from evaluation import Rows, examine, rows_of
from evaluation.checks import Check, run_checks
from evaluation.records import Records

EPS, N, FEW, DRAWS = 0.1, 80, 40, 12
FEATURES = 256  # of `network`
PGD24 = PGD(Linf(EPS), step_size=EPS / 6, steps=24)


def digits(split: Literal["train", "test"], n: int) -> tuple[Tensor, Tensor]:
    x, y = Digits().split(split)[list(range(n))]
    return x.float() / 255, y


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(FEATURES, 10),
    )  # fmt: skip


@cache
def plain() -> nn.Module:
    """Clean training."""
    torch.manual_seed(0)
    return trained(network(), None)


@cache
def noisy() -> nn.Module:
    """Noise before both convolutions, and adversarial training."""
    torch.manual_seed(0)
    return trained(RobustNet(network(), GaussianNoise(0.1), GaussianNoise(0.1)), PGD(Linf(EPS), EPS / 2, 2))


def trained(model: nn.Module, attack: Attack | None) -> nn.Module:
    x, y = digits("train", 1200)
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    for _ in range(8):
        for rows in torch.randperm(len(x)).split(64):
            images = x[rows] if attack is None else attack(model, x[rows], y[rows])
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), y[rows]).backward()
            optimizer.step()
    return model.eval()


class Scaled(nn.Module):
    """Logits so large that a softmax in float32 is 0 or 1."""

    def __init__(self, model: nn.Module, factor: float = 1e4) -> None:
        super().__init__()
        self.model, self.factor = model, factor

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x) * self.factor


class Shattered(nn.Module):
    """Images plus a fast and small sine of themselves: the derivative points anywhere."""

    def __init__(self, model: nn.Module, size: float = 0.05, frequency: float = 400.0) -> None:
        super().__init__()
        self.model, self.size, self.frequency = model, size, frequency

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x + self.size * (self.frequency * x).sin())


@dataclass
class Evaluated:
    """What a suite left of a model, and everything that checks take."""

    model: nn.Module
    batches: list[tuple[Tensor, Tensor]]
    folder: Path
    attacks: dict[str, Attack]
    rows: dict[str, Rows]

    def checks(self, **options: object) -> dict[str, Check]:
        settings = {"seed": 0, "draws": DRAWS, "level": "quick", "progress": lambda line: None, **options}
        random, shared = is_random(self.model), has_shared_draws(self.model)
        found = run_checks(
            self.model, self.batches, self.folder, self.attacks, self.rows, random=random, shared=shared, **settings
        )
        assert len({check.name for check in found}) == len(found)
        return {check.name: check for check in found}


def evaluated(model: nn.Module, attacks: dict[str, Attack], folder: Path, n: int = N, batch: int = N) -> Evaluated:
    x, y = digits("test", n)
    batches = list(zip(x.split(batch), y.split(batch), strict=True))
    adversaries: dict[str, Attack | None] = {"clean": None, **attacks}
    records = Records(folder, {"adversaries": list(adversaries)})
    draws = DRAWS if is_random(model) else 1
    for number, images in enumerate(batches):
        for name, attack in adversaries.items():
            rows = examine(model, images, number * batch, name, attack, 0, draws, draws == 1).rows
            records.write(name, number, rows)
    return Evaluated(model, batches, folder, attacks, rows_of(records.table()))


def names(checks: dict[str, Check], verdict: str) -> set[str]:
    return {name for name, check in checks.items() if check.verdict == verdict}


def rows_with(right: np.ndarray, name: str = "attack", batch: int = 30) -> Rows:
    """Rows whose answers are right as said, [n, draws]."""
    n = len(right)
    answers = np.where(right, 0, 1).astype(np.int64)
    counts = np.stack([right.sum(1), (~right).sum(1)], 1).astype(np.int64)
    return Rows(
        adversary=name,
        index=np.arange(n),
        label=np.zeros(n, dtype=np.int64),
        batch=np.arange(n) // batch,
        answers=answers,
        counts=counts,
        probs=counts / right.shape[1],
        l2=np.zeros(n),
        linf=np.zeros(n),
        queries=np.zeros(n, dtype=np.int64),
        zero_gradient=np.zeros(n, dtype=bool),
        erred=np.zeros(n, dtype=bool),
        loss=np.zeros((n, 3)),
        unfinished=np.zeros(n),
    )
