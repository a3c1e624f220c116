"""Accuracy behind each input channel: on clean images, and on images that were attacked without the channel.

    python benchmarks/channel_accuracy.py clean WEIGHTS_DIR DATA_DIR [--n N]
    python benchmarks/channel_accuracy.py recovery WEIGHTS_DIR DATA_DIR [--n N]

clean: the ICLR draft's table 2 and figure 5, on the first N test images of CIFAR-10 with two published ResNet-20.
recovery: its figure 1 and table 3. C&W and PGD in the smallest ball attack the network alone (nobody knows of the
channel); then the channel is put in front. Parameters are chosen on N images from test image 5,000 on, and reported
on the first N. The channels are the papers' own, noise in their units (protocol of their CIFAR-10 runs: the declared
pixel range is 5.5 normalised units, about 1.105 in [0, 1]). Results are written as they come; the same command goes on.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from attacks import PGD, Attack, CarliniWagner, Linf, SmallestBall
from cli.names import resolve
from cli.targets import from_weights
from defenses import (
    Channel,
    ColourDepth,
    Defended,
    FFTCompression,
    Identity,
    PapersGauss,
    PapersLaplace,
    PapersUniform,
    Stream,
    SVDCompression,
    drawing_from,
)
from evaluation import judge, wilson

MODELS = {"cifar10_resnet20_imagenet_norm": "plain_normalized", "cifar10_plain": "plain"}
ATTACKS: dict[str, Attack] = {
    "C&W 5 x 100": CarliniWagner(),
    "PGD-40, smallest ball": SmallestBall(PGD(Linf(8 / 255), 8 / 255 / 30, 40)),
}
RANGE = 5.5 * 0.2009  # of the papers' declared pixels, in [0, 1]; 0.2009 is CIFAR-10's mean channel std
PASSES = {"clean": 1, "recovery": 20}  # of a random channel over each image: 10,000 images need no more than one
TUNED_ON, BATCH, SEED = 5000, 250, 0
_NOISE = (0.004, 0.009, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.07, 0.1)
CHANNELS: dict[str, tuple[Callable[[float], Channel], Sequence[float]]] = {
    "identity": (lambda _: Identity(), (0,)),
    "FC": (partial(FFTCompression, mask="corner_disks"), (1, 10, 20, 30, 40, 50, 60, 75, 80, 90)),
    "SVD": (SVDCompression, (1, 10, 20, 30, 40, 50, 60, 75, 80, 90)),
    "CD": (lambda bits: ColourDepth(int(bits)), (8, 7, 6, 5, 4, 3, 2, 1)),
    "Gauss": (partial(PapersGauss, bounds_range=RANGE), _NOISE),
    "Uniform": (partial(PapersUniform, bounds_range=RANGE), _NOISE),
    "Laplace": (partial(PapersLaplace, bounds_range=RANGE), _NOISE),
}
UNITS = {"FC": "compression (%)", "SVD": "compression (%)", "CD": "bits per colour"}
# Clean accuracy in the draft's table 2, of a ResNet-18 with 93.56 %, and the best recoveries of its table 3.
PRINTED: dict[str, dict[float, float]] = {
    "FC": {1: 93.5, 10: 93.42, 50: 91.6, 75: 79.53},
    "CD": {8: 93.4, 6: 93.3, 4: 91.9, 2: 87.4},
    "Uniform": {0.009: 93.52, 0.03: 92.59, 0.07: 85.2, 0.1: 70.67},
}
Images = list[tuple[Tensor, Tensor]]
Row = tuple[float, float, float, int]  # parameter, accuracy %, mean L2, n


class Results:
    """Counts per image for each (what, model, channel, parameter), kept in a file."""

    def __init__(self, file: Path) -> None:
        self.file = file
        lines = file.read_text().splitlines() if file.exists() else []
        self.known: dict[tuple[str, ...], list[list[float]]] = {
            tuple(key): value for key, value in map(json.loads, lines)
        }

    def of(self, key: tuple[str, ...], make: Callable[[], list[list[float]]]) -> NDArray[np.float64]:
        """What is known under this key, or else what is made now."""
        if key not in self.known:
            self.known[key] = make()
            with self.file.open("a") as file:
                file.write(json.dumps([key, self.known[key]]) + "\n")
        return np.array(self.known[key])


def load(weights: Path, data: str, name: str) -> tuple[nn.Module, Subset[tuple[Tensor, Tensor]]]:
    """A published network and the test split."""
    target = from_weights(
        weights / f"{name}.safetensors", resolve([f"--model={MODELS[name]}", f"--data.root={data}"], take=())
    )
    split = target.cli.datamodule.split("test")
    return target.network.to(memory_format=torch.channels_last).eval(), Subset(split, range(len(split)))


def images_of(split: Subset[tuple[Tensor, Tensor]], first: int, n: int) -> Images:
    """Batches of n test images from `first` on, in [0, 1]."""
    loader = DataLoader(Subset(split, range(first, first + n)), BATCH)
    return [((x.float() / 255).contiguous(memory_format=torch.channels_last), y) for x, y in loader]


def behind(network: nn.Module, channel: Channel, images: Images, clean: Images, passes: int) -> list[list[float]]:
    """Per image: the share of passes that are right, and the L2 distance of channel(image) from the clean image."""
    right, l2 = [], []
    for number, ((x, y), (original, _)) in enumerate(zip(images, clean, strict=True)):
        with drawing_from(Stream.named(SEED, repr(channel), index=number)):
            counts = judge(Defended(network, [channel]), x, passes if channel.random else 1).counts
            changed = channel(x)
        right += (counts[torch.arange(len(y)), y] / counts.sum(1)).tolist()
        l2 += (changed - original).flatten(1).norm(dim=1).tolist()
    return [right, l2]


def attacked(network: nn.Module, attack: Attack, images: Images) -> Images:
    """The same batches after an attack on the network alone."""
    found = []
    for number, (x, y) in enumerate(images):
        with drawing_from(Stream.named(SEED, str(attack), index=number)):
            found.append((attack(network, x, y), y))
    return found


def sweep(
    results: Results, key: tuple[str, ...], network: nn.Module, images: Callable[[], Images], clean: Images
) -> dict[str, list[Row]]:
    """Channel -> (parameter, accuracy %, mean L2, n) for all of its parameters."""
    made: Images = []
    rows: dict[str, list[Row]] = {}
    for name, (channel_of, parameters) in CHANNELS.items():
        for parameter in parameters:
            channel = channel_of(parameter)

            def make(channel: Channel = channel) -> list[list[float]]:
                made.extend([] if made else images())
                return behind(network, channel, made, clean, PASSES[key[0]])

            right, l2 = results.of((*key, name, f"{parameter:g}"), make)
            rows.setdefault(name, []).append((parameter, 100 * right.mean(), l2.mean(), len(right)))
        print(f"{' '.join(key)} {name}: " + ", ".join(f"{p:g}: {a:.2f}" for p, a, _, _ in rows[name]), flush=True)
    return rows


def half_width(accuracy: float, n: int) -> float:
    """Of the Wilson interval, in points: the choice of images; 20 passes of each add next to nothing."""
    low, high = wilson(round(accuracy / 100 * n), n)
    return 50 * (high - low)


def figure(rows: dict[str, dict[str, list[Row]]]) -> Figure:
    """One panel a channel, one line for each of the sets of rows; the papers' printed numbers as crosses."""
    drawing = Figure(figsize=(10, 6), layout="constrained")
    FigureCanvasSVG(drawing)
    for axes, name in zip(drawing.subplots(2, 3).flat, list(CHANNELS)[1:], strict=True):
        axes.set(title=name, xlabel=UNITS.get(name, "the papers' sigma"), ylabel="accuracy (%)", ylim=(0, 100))
        for label, channels in rows.items():
            x, y, n = [r[0] for r in channels[name]], [r[1] for r in channels[name]], channels[name][0][3]
            axes.errorbar(x, y, yerr=[half_width(a, n) for a in y], marker="o", markersize=3, capsize=2, label=label)
        if name in PRINTED and "clean" in " ".join(rows):
            axes.plot(list(PRINTED[name]), list(PRINTED[name].values()), "kx", label="printed, ResNet-18")
        if name == "CD":
            axes.invert_xaxis()
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7, loc="lower left")
    return drawing


def clean(arguments: argparse.Namespace, results: Results) -> None:
    """Table 2 and figure 5."""
    rows = {}
    for model in MODELS:
        network, split = load(arguments.weights, arguments.data, model)
        images = images_of(split, 0, arguments.n)
        key = ("clean", model, str(arguments.n))
        rows[f"{model}, clean"] = sweep(results, key, network, partial(list, images), images)
    titles = ["channel", "parameter", *rows, "printed", "mean L2"]
    print(f"\n| {' | '.join(titles)} |\n|{'---|' * len(titles)}")
    for name in CHANNELS:
        for cells in zip(*(row[name] for row in rows.values()), strict=True):
            parameter, _, l2, n = cells[0]
            texts = " | ".join(f"{cell[1]:.2f} ± {half_width(cell[1], n):.2f}" for cell in cells)
            print(f"| {name} | {parameter:g} | {texts} | {PRINTED.get(name, {}).get(parameter, '-')} | {l2:.2f} |")
    save(figure(rows), arguments.out / "channel_accuracy.svg")


def recovery(arguments: argparse.Namespace, results: Results) -> None:
    """Figure 1 and table 3, on the first of the networks."""
    model = next(iter(MODELS))
    network, split = load(arguments.weights, arguments.data, model)
    shown = {}
    titles = ["attack", "channel", "best parameter", "on the tuning images", "reported on others", "mean L2 after it"]
    print(f"\n| {' | '.join(titles)} |\n|{'---|' * len(titles)}")
    for name, attack in ATTACKS.items():
        rows = {}
        for part, first in (("tuned", TUNED_ON), ("reported", 0)):
            images = images_of(split, first, arguments.n)
            key = ("recovery", model, str(arguments.n), name, part)
            rows[part] = sweep(results, key, network, partial(attacked, network, attack, images), images)
        for channel in CHANNELS:
            best = int(np.argmax([row[1] for row in rows["tuned"][channel]]))
            tuned, told = rows["tuned"][channel][best], rows["reported"][channel][best]
            interval = f"{told[1]:.1f} ± {half_width(told[1], told[3]):.1f}"
            print(f"| {name} | {channel} | {tuned[0]:g} | {tuned[1]:.1f} | {interval} | {told[2]:.2f} |")
        shown[name] = rows["reported"]
    save(figure(shown), arguments.out / "channel_recovery.svg")


def save(drawing: Figure, file: Path) -> None:
    """Write an SVG and say so."""
    drawing.savefig(file)
    print(f"\nwrote {file}")


def main() -> None:
    """Measure what is not known yet, print the table, draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("clean", "recovery"))
    parser.add_argument("weights", type=Path)
    parser.add_argument("data")
    parser.add_argument("--n", type=int, help="images (default: 10,000 clean, 200 attacked)")
    parser.add_argument("--out", type=Path, default=Path("runs/channels"))
    arguments = parser.parse_args()
    arguments.n = arguments.n or (10000 if arguments.what == "clean" else 200)
    arguments.out.mkdir(parents=True, exist_ok=True)
    {"clean": clean, "recovery": recovery}[arguments.what](arguments, Results(arguments.out / "results.jsonl"))


if __name__ == "__main__":
    main()
