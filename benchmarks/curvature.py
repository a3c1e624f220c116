"""Top eigenvalue of the input Hessian: images per second of each way, same images and network, in one run, in turns.

    python benchmarks/curvature.py [--images N] [--single N] [--chunk N] [--rounds N] [--threads N]

ResNet-20 with random weights, random images 3x32x32, float32, predicted class. The yardstick is power iteration on one
image at a time with the papers' settings: at most 20 products from a start in [0, 1), ended at a relative change of
1e-4. Written twice: "graph anew" differentiates twice from the image on at each product, as the general tool does that
the papers used; "graph kept" runs forward and gradient once per image. Each image of the yardstick takes long, so it is
timed on the first --single of the images. Medians over the rounds; leave the machine alone meanwhile.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from analysis.curvature import exact_curvature, lanczos_curvature, power_curvature
from models import ResNet20

SIZE = 32
STEPS, TOLERANCE = 20, 1e-4
YARDSTICKS = ("one image, graph anew", "one image, graph kept")
WANTED = 10  # what the project promises of the exact path, times the yardstick


def one_image(network: nn.Module, image: Tensor, keep: bool) -> float:
    """The papers' power iteration on one image [1, C, H, W]: the estimate of the top eigenvalue."""
    x = image.clone().requires_grad_()
    label = network(x).argmax(1)

    def gradient() -> Tensor:
        return torch.autograd.grad(F.cross_entropy(network(x), label), x, create_graph=True)[0]

    kept = gradient() if keep else None
    vector, value = torch.rand_like(image), 0.0
    vector /= vector.norm()
    for _ in range(STEPS):
        at = gradient() if kept is None else kept
        (product,) = torch.autograd.grad(at, x, vector, retain_graph=keep)
        before, value = value, float((vector * product).sum())
        if abs(value - before) < TOLERANCE * abs(value):
            break
        vector = product / product.norm()
    return value


def one_by_one(network: nn.Module, x: Tensor, keep: bool) -> Tensor:
    """[B]."""
    return torch.tensor([one_image(network, image[None], keep) for image in x])


def timed(run: Callable[[], Tensor]) -> tuple[float, Tensor]:
    """Seconds of one call, and what it found."""
    start = time.perf_counter()
    values = run()
    return time.perf_counter() - start, values


def main() -> None:
    """Time all ways in turns and print images per second beside their ratio to the yardstick."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--single", type=int, default=8)
    parser.add_argument("--chunk", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    network, x = ResNet20().eval(), torch.rand(arguments.images, 3, SIZE, SIZE)
    few, chunk = x[: arguments.single], arguments.chunk
    runs: dict[str, tuple[int, Callable[[], Tensor]]] = {
        YARDSTICKS[0]: (len(few), lambda: one_by_one(network, few, keep=False)),
        YARDSTICKS[1]: (len(few), lambda: one_by_one(network, few, keep=True)),
        "exact": (len(x), lambda: exact_curvature(network, x, chunk=chunk).values[:, 0]),
        "Lanczos": (len(x), lambda: lanczos_curvature(network, x, chunk=chunk).values[:, 0]),
        "power iteration, batched": (len(x), lambda: power_curvature(network, x, chunk=chunk).values[:, 0]),
    }
    speeds: dict[str, list[float]] = {name: [] for name in runs}
    found: dict[str, Tensor] = {}
    for _ in range(arguments.rounds + 1):
        for name, (count, run) in runs.items():
            seconds, found[name] = timed(run)
            speeds[name].append(count / seconds)
    report({name: median(values[1:]) for name, values in speeds.items()}, found, arguments)  # the first one warms up


def report(speeds: dict[str, float], found: dict[str, Tensor], arguments: argparse.Namespace) -> None:
    """Print the table; the last column compares values with those of the exact path."""
    counts = f"{arguments.images} images ({arguments.single} one at a time) in chunks of {arguments.chunk}"
    print(f"torch {torch.__version__}, {arguments.threads} threads, {counts}, medians of {arguments.rounds} rounds\n")
    anew, kept = YARDSTICKS
    print(f"| way | images / s | / {anew} | / {kept} | wanted | largest relative error |\n|---|---|---|---|---|---|")
    for name, speed in speeds.items():
        exact = found["exact"][: len(found[name])]
        error = float(((found[name] - exact).abs() / exact).max())
        wanted = f"at least {WANTED} (both)" if name == "exact" else ""
        ratios = f"{speed / speeds[anew]:.2f} | {speed / speeds[kept]:.2f}"
        print(f"| {name} | {speed:.2f} | {ratios} | {wanted} | {error:.1e} |")


if __name__ == "__main__":
    main()
