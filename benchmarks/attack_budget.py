"""How many draws and steps an attack on a random network needs, judged on draws that it has not seen.

    python benchmarks/attack_budget.py WEIGHTS_DIR DATA_DIR [--n N] [--out FOLDER]

The published RobustNet, PNI-W Adv. and RobustNet Adv. on CIFAR-10, Linf 8/255, N images from test image 5,000 on
(results are reported on others), 100 judge draws. First (draws, steps) of equal cost 100; then, from the best, draws
or steps are doubled; whichever is stronger is doubled again until two doublings in a row lower the accuracy by less
than 0.5 points or less than half the width of the paired interval. Every point is written when done, so the command
goes on where it was stopped.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from attacks import PGD, Adversary, Attack, Linf, StraightThrough
from cli.names import resolve
from cli.targets import from_weights
from evaluation import examine

MODELS = {
    "cifar10_robustnet_adv": "robustnet_adv",
    "cifar10_robustnet": "robustnet",
    "cifar10_pni_w_adv": "pni_w_adv",
}
EQUAL_COST = ((1, 100), (2, 50), (5, 20), (10, 10))
FIRST, BATCH, JUDGE, SEED, DOUBLINGS = 5000, 128, 100, 0, 5
EPS = 8 / 255


def pgd(steps: int) -> PGD:
    """Steps that can cross the ball, and a momentum that remembers a fifth of them, which averages draws, too."""
    return PGD(Linf(EPS), max(1, 20 / steps) / 255, steps, momentum=max(0.0, 1 - 5 / steps))


@dataclass(frozen=True)
class Point:
    """Draws, steps, and how many of the judge's draws were correct, per image."""

    draws: int
    steps: int
    correct: NDArray[np.int64]

    @property
    def cost(self) -> int:
        """Gradients per image."""
        return self.draws * self.steps

    @property
    def accuracy(self) -> float:
        """Of a single draw, in percent."""
        return float(100 * self.correct.mean() / JUDGE)


class Study:
    """The points of one network, kept in a file."""

    def __init__(self, name: str, weights: Path, data: str, n: int, file: Path) -> None:
        invocation = resolve([f"--model={MODELS[name]}", f"--data.root={data}"], take=())
        target = from_weights(weights / f"{name}.safetensors", invocation)
        self.name, self.n, self.file = name, n, file
        self.network: nn.Module = target.network.to(memory_format=torch.channels_last)
        self.split = target.cli.datamodule.split("test")
        lines = file.read_text().splitlines() if file.exists() else []
        self.known: dict[tuple[Any, ...], list[int]] = {tuple(key): correct for key, correct in map(json.loads, lines)}

    def point(self, draws: int, steps: int) -> Point:
        """Attack and judge, unless that was done."""
        attack = Adversary(pgd(steps), StraightThrough(), draws)
        key = (self.name, self.n, repr(attack))
        if key not in self.known:
            images = DataLoader(Subset(self.split, range(FIRST, FIRST + self.n)), BATCH)
            correct = [self._correct(attack, FIRST + i * BATCH, x, y) for i, (x, y) in enumerate(images)]
            self.known[key] = np.concatenate(correct).tolist()
            with self.file.open("a") as file:
                file.write(json.dumps([key, self.known[key]]) + "\n")
        point = Point(draws, steps, np.array(self.known[key]))
        print(f"{self.name}: {draws} draws x {steps} steps: {point.accuracy:.2f} %", flush=True)
        return point

    def _correct(self, attack: Attack, first: int, x: Tensor, y: Tensor) -> NDArray[np.int64]:
        x = (x.float() / 255).contiguous(memory_format=torch.channels_last)
        batch = examine(self.network, (x, y), first, str(attack), attack, SEED, JUDGE).rows
        return np.asarray(batch.counts[np.arange(len(y)), batch.label])

    def ladder(self) -> Iterator[Point]:
        """The points of equal cost, then the doublings that were taken."""
        points = [self.point(*pair) for pair in EQUAL_COST]
        yield from points
        best, idle = min(points, key=lambda point: point.accuracy), 0
        doubled = [self.point(2 * best.draws, best.steps), self.point(best.draws, 2 * best.steps)]
        yield from doubled
        better = min(doubled, key=lambda point: point.accuracy)
        draws, steps = better.draws // best.draws, better.steps // best.steps
        for _ in range(DOUBLINGS):
            idle = idle + 1 if little(best, better) else 0
            if idle == 2:
                return
            best, better = better, self.point(draws * better.draws, steps * better.steps)
            yield better


def paired(before: Point, after: Point) -> tuple[float, float]:
    """Fall of the accuracy in points, and half the width of its 95 % interval (bootstrap over images, paired)."""
    fall = 100 * (before.correct - after.correct) / JUDGE
    generator = np.random.default_rng(SEED)
    means = fall[generator.integers(len(fall), size=(2000, len(fall)))].mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(fall.mean()), float(high - low) / 2


def little(before: Point, after: Point) -> bool:
    """Whether a doubling was not worth it."""
    fall, half = paired(before, after)
    return fall < max(0.5, half)


def figure(ladders: dict[str, list[Point]]) -> Figure:
    """Accuracy over cost, one line per number of draws."""
    drawing = Figure(figsize=(4 * len(ladders), 3.5), layout="constrained")
    FigureCanvasSVG(drawing)
    for axes, (name, points) in zip(drawing.subplots(1, len(ladders), squeeze=False)[0], ladders.items(), strict=True):
        axes.set(
            title=name, xlabel="gradients per image (draws x steps)", ylabel="accuracy on fresh draws (%)", xscale="log"
        )
        for point in points:
            axes.plot(point.cost, point.accuracy, "o", color="tab:blue")
            axes.annotate(
                f"{point.draws} x {point.steps}",
                (point.cost, point.accuracy),
                fontsize=7,
                xytext=(4, 4),
                textcoords="offset points",
            )
        costs = sorted({point.cost for point in points})
        axes.set_xticks(costs, [str(cost) for cost in costs])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    return drawing


def main() -> None:
    """Climb the ladders and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path)
    parser.add_argument("data")
    parser.add_argument("--n", type=int, default=256)
    parser.add_argument("--out", type=Path, default=Path("runs/attack_budget"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    ladders = {}
    for name in MODELS:
        study = Study(name, arguments.weights, arguments.data, arguments.n, arguments.out / "points.jsonl")
        ladders[name] = list(study.ladder())
    print("\n| weights | draws x steps | gradients per image | accuracy on fresh draws % |\n|---|---|---|---|")
    for name, points in ladders.items():
        for point in points:
            print(f"| `{name}` | {point.draws} x {point.steps} | {point.cost} | {point.accuracy:.2f} |")
    figure(ladders).savefig(arguments.out / "attack_budget.svg")
    print(f"\nwrote {arguments.out / 'attack_budget.svg'}")


if __name__ == "__main__":
    main()
