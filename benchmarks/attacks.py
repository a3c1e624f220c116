"""What attacks cost: ratios from one run, the same images, model, steps and threads on both sides, in turns.

    make bench-install
    .venv-bench/bin/python benchmarks/attacks.py WEIGHTS_DIR DATA_DIR [--rounds N] [--parts pgd cw norm eot]

ResNet-20 on CIFAR-10 test images from the first on. The bare loop is a forward pass and an input gradient per step,
BatchNorm folded, channels_last, nothing else. Peers get the network as it is, in the layout they were written for;
ours are called as anyone would. Times are medians over rounds; leave the machine alone meanwhile.
"""

import argparse
import copy
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Subset

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from attacks import (
    DDN,
    EOT,
    FMN,
    PGD,
    Adversary,
    Attack,
    CarliniWagner,
    Closest,
    CrossEntropy,
    Goal,
    Linf,
    input_gradient,
    undisturbed,
)
from benchmarks.peers import PEERS
from cli.names import resolve
from cli.targets import from_weights
from defenses import Stream, drawing_from

EPS, STEP, STEPS = 8 / 255, 2 / 255, 40
RECIPES = {"cifar10_adv": "adv", "cifar10_plain": "plain", "cifar10_robustnet_adv": "robustnet_adv"}
Run = Callable[[], Tensor]


class Bench:
    """Networks and images, and the table of what was timed."""

    def __init__(self, weights: Path, data: str, rounds: int) -> None:
        self.weights, self.data, self.rounds = weights, data, rounds

    def load(self, name: str, n: int) -> tuple[nn.Module, Tensor, Tensor]:
        """A published network and the first n test images."""
        invocation = resolve([f"--model={RECIPES[name]}", f"--data.root={self.data}"], take=())
        target = from_weights(self.weights / f"{name}.safetensors", invocation)
        split = Subset(target.cli.datamodule.split("test"), range(n))
        pixels, y = next(iter(DataLoader(split, n)))
        return target.network.eval(), pixels.float() / 255, y

    def time(self, runs: dict[str, Run]) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Median seconds and last result of each, in turns."""
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        results = {}
        for turn in range(self.rounds):
            for name, run in runs.items():
                with drawing_from(Stream.named(0, "bench", index=turn)):
                    torch.manual_seed(turn)
                    start = time.perf_counter()
                    results[name] = run()
                    seconds[name].append(time.perf_counter() - start)
        return {name: median(values) for name, values in seconds.items()}, results


def ours(attack: Attack, network: nn.Module, x: Tensor, y: Tensor, first_success: bool = False) -> Run:
    """Our attack in the layout that evaluate.py uses."""
    fast = copy.deepcopy(network).to(memory_format=torch.channels_last)
    images = x.contiguous(memory_format=torch.channels_last)
    return lambda: attack.run(fast, images, y, first_success=first_success).x_adv


def bare_loop(network: nn.Module, x: Tensor, y: Tensor, steps: int) -> Run:
    """Nothing but forward passes and input gradients."""
    fast, images = copy.deepcopy(network), x.contiguous(memory_format=torch.channels_last)
    fast.to(memory_format=torch.channels_last)

    def run() -> Tensor:
        with undisturbed(fast):
            for _ in range(steps):
                leaf = images.detach().requires_grad_()
                torch.autograd.grad(F.cross_entropy(fast(leaf), y, reduction="sum"), leaf)
        return images

    return run


def peers(kind: str, network: nn.Module, x: Tensor, y: Tensor, **settings: object) -> dict[str, Run]:
    """The other libraries' attacks of one kind."""
    return {library: partial(attack, network, x, y, **settings) for library, attack in PEERS[kind].items()}


def pgd(bench: Bench) -> None:
    """PGD-40 with and without early exit."""
    for name, wanted in (("cifar10_adv", 2.8), ("cifar10_plain", 8.0)):
        network, x, y = bench.load(name, 128)
        attack = PGD(Linf(EPS), STEP, STEPS)
        runs = peers("PGD", network, x, y, eps=EPS, step_size=STEP, steps=STEPS)
        others = list(runs)
        runs |= {"ours": ours(attack, network, x, y), "ours, early exit": ours(attack, network, x, y, True)}
        half = Adversary(attack, precision="bfloat16")
        runs |= {
            "ours, bfloat16": ours(half, network, x, y),
            "ours, early exit, bfloat16": ours(half, network, x, y, True),
        }
        runs["bare loop"] = bare_loop(network, x, y, STEPS)
        seconds, results = bench.time(runs)
        print(f"\nPGD-{STEPS}, {name}, {len(x)} images\n")
        print("| | images / s, relative to the fastest peer | robust accuracy % |\n|---|---|---|")
        best = min(seconds[library] for library in others)
        for library in runs:
            accuracy = (
                ""
                if library == "bare loop"
                else f"{100 * (network(results[library]).argmax(1) == y).float().mean():.2f}"
            )
            print(f"| {library} | {best / seconds[library]:.2f} | {accuracy} |")
        print(f"\nours / bare loop: {seconds['bare loop'] / seconds['ours']:.2f} (wanted: at least 0.9); ", end="")
        early = ", ".join(f"{best / seconds[f'ours, early exit{half}']:.2f}" for half in ("", ", bfloat16"))
        print(f"early exit / fastest peer, float32 and bfloat16: {early} (wanted: at least {wanted})")


def l2_of(network: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor) -> tuple[float, float]:
    """Of the images that were right: the share that is wrong now (%), and the median L2 norm (failed: infinity)."""
    with torch.no_grad():
        right, wrong = network(x).argmax(1) == y, network(x_adv).argmax(1) != y
    l2 = (x_adv - x).flatten(1).norm(dim=1).where(wrong, torch.tensor(float("inf")))[right]
    return 100 * float(wrong[right].float().mean()), float(np.median(l2))


def minimal_norm(bench: Bench, title: str, runs: dict[str, Run], network: nn.Module, x: Tensor, y: Tensor) -> None:
    """Rates relative to the fastest peer, success and median L2."""
    seconds, results = bench.time(runs)
    print(f"\n{title}, {len(x)} images\n")
    print("| | images / s, relative to the fastest peer | success % | median L2 |\n|---|---|---|---|")
    best = min(seconds[library] for library in runs if "ours" not in library)
    for library in runs:
        success, l2 = l2_of(network, x, y, results[library])
        print(f"| {library} | {best / seconds[library]:.2f} | {success:.1f} | {l2:.4f} |")


def cw(bench: Bench) -> None:
    """Carlini & Wagner, 5 search steps of at most 100."""
    network, x, y = bench.load("cifar10_adv", 64)
    runs = peers("C&W", network, x, y, steps=100, search_steps=5)
    runs["ours"] = ours(CarliniWagner(steps=100, search_steps=5), network, x, y)
    minimal_norm(bench, "C&W 5 x 100, cifar10_adv", runs, network, x, y)


def norm(bench: Bench) -> None:
    """Few-step minimal-norm attacks."""
    network, x, y = bench.load("cifar10_adv", 64)
    runs = {f"DDN-100 {library}": run for library, run in peers("DDN", network, x, y, steps=100).items()}
    runs |= {f"FMN-100 {library}": run for library, run in peers("FMN", network, x, y, steps=100).items()}
    runs["ours DDN-100"] = ours(DDN(steps=100), network, x, y)
    runs["ours FMN-100"] = ours(FMN(steps=100), network, x, y)
    runs["ours Closest, FMN-50 and DDN-50"] = ours(Closest(), network, x, y)
    minimal_norm(bench, "DDN and FMN, cifar10_adv", runs, network, x, y)


def eot(bench: Bench) -> None:
    """Eight draws in one answer against eight single ones."""
    network, x, y = bench.load("cifar10_robustnet_adv", 128)
    network, k = network.to(memory_format=torch.channels_last), 8
    print(f"\nEOT, cifar10_robustnet_adv, {k} draws\n")
    print(f"| batch | cost / {k} single gradients (wanted: at most 1.1) |\n|---|---|")
    for batch in (16, 32, 64, 128):
        images = x[:batch].contiguous(memory_format=torch.channels_last)
        loss = partial(CrossEntropy(), goal=Goal(y[:batch]))
        shown = EOT(network, k)

        def single(images: Tensor = images, loss: partial[Tensor] = loss) -> Tensor:
            return [input_gradient(network, images, loss).gradient for _ in range(k)][-1]

        def many(images: Tensor = images, loss: partial[Tensor] = loss, shown: EOT = shown) -> Tensor:
            return input_gradient(shown, images, loss).gradient

        with undisturbed(network):
            seconds, _ = bench.time({"single": single, "EOT": many})
        print(f"| {batch} | {seconds['EOT'] / seconds['single']:.2f} |")


PARTS = {"pgd": pgd, "cw": cw, "norm": norm, "eot": eot}


def main() -> None:
    """Time the parts that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path)
    parser.add_argument("data")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {arguments.rounds} rounds, medians")
    for part in arguments.parts:
        PARTS[part](Bench(arguments.weights, arguments.data, arguments.rounds))


if __name__ == "__main__":
    main()
