"""Are our attacks as strong as the best other library's? Paired on the same images, with as many gradients.

    make bench-install
    .venv-bench/bin/python benchmarks/strength.py WEIGHTS_DIR DATA_DIR [--kinds ...] [--models ...] [--libraries ...]

CIFAR-10 test images from the first on, ResNet-20 with and without adversarial training, Linf 8/255 or L2. Robust
accuracy is a mean over three seeds; minimal-norm attacks here have no random part. Each result is written when it is
there, so the command goes on where it was stopped.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from attacks import APGD, DDN, DLR, FMN, PGD, Attack, AutoAttack, CarliniWagner, Closest, Linf
from benchmarks.peers import PEERS
from cli.names import resolve
from cli.targets import from_weights
from defenses import Stream, drawing_from
from models import folded_batchnorm

EPS, STEP, BATCH = 8 / 255, 2 / 255, 250
MODELS = {"cifar10_adv": "adv", "cifar10_plain": "plain"}


@dataclass(frozen=True)
class Kind:
    """One comparison: our attack, the peers' of this name with these settings, and on how many images and seeds."""

    ours: Attack
    peers: str
    settings: dict[str, object]
    n: int
    seeds: int = 3
    first_success: bool = False
    minimal_norm: bool = False


_APGD = {"eps": EPS, "steps": 100}
KINDS = {
    "PGD-40": Kind(PGD(Linf(EPS), STEP, 40), "PGD", {"eps": EPS, "step_size": STEP, "steps": 40}, 1000),
    "APGD-CE-100": Kind(APGD(Linf(EPS)), "APGD", {**_APGD, "loss": "ce"}, 500, first_success=True),
    "APGD-DLR-100": Kind(APGD(Linf(EPS), DLR()), "APGD", {**_APGD, "loss": "dlr"}, 500, first_success=True),
    "AutoAttack": Kind(AutoAttack(Linf(EPS)), "AutoAttack", {"eps": EPS}, 128, first_success=True),
    "C&W 5 x 100": Kind(CarliniWagner(), "C&W", {"steps": 100, "search_steps": 5}, 200, 1, minimal_norm=True),
    "DDN-100": Kind(DDN(), "DDN", {"steps": 100}, 200, 1, minimal_norm=True),
    "FMN-100": Kind(FMN(), "FMN", {"steps": 100}, 200, 1, minimal_norm=True),
    "FMN-100, ours: FMN-50 and DDN-50": Kind(Closest(), "FMN", {"steps": 100}, 200, 1, minimal_norm=True),
}


LIBRARIES = sorted({library for peers in PEERS.values() for library in peers})


def key_of(model: str, name: str, library: str, seed: int) -> tuple[object, ...]:
    """What a result is kept under: ours with all settings, a peer's under the first kind that asks the same of it."""
    kind = KINDS[name]
    if library == "ours":
        return model, name, library, seed, repr(kind.ours)
    same = (n for n, k in KINDS.items() if (k.peers, k.settings, k.n) == (kind.peers, kind.settings, kind.n))
    return model, next(same), library, seed, ""


def attack_of(kind: Kind, library: str, seed: int) -> Callable[[nn.Module, Tensor, Tensor], Tensor]:
    """(model, x, y) -> x_adv."""
    if library == "ours":
        return lambda model, x, y: kind.ours.run(model, x, y, first_success=kind.first_success).x_adv
    return partial(PEERS[kind.peers][library], seed=seed, **kind.settings)


def measure(
    network: nn.Module, images: DataLoader[tuple[Tensor, Tensor]], attack: Callable[..., Tensor], seed: int
) -> dict[str, list[float]]:
    """Per image: whether the network was right, errs when asked again, and the L2 norm of the perturbation."""
    right, wrong, l2 = [], [], []
    network.eval()
    for number, (pixels, y) in enumerate(images):
        x = (pixels.float() / 255).contiguous(memory_format=torch.channels_last)
        # Likewise the folded network, the same function, for everybody.
        with drawing_from(Stream.named(seed, "strength", index=number)), folded_batchnorm(network):
            x_adv = attack(network, x, y)
        with torch.no_grad():
            right += (network(x).argmax(1) == y).int().tolist()
            wrong += (network(x_adv).argmax(1) != y).int().tolist()
        l2 += (x_adv - x).flatten(1).norm(dim=1).tolist()
    return {"right": right, "wrong": wrong, "l2": l2}


def summary(kind: Kind, results: list[dict[str, list[float]]]) -> str:
    """Robust accuracy; or, of the images that were right, median L2 and success (a failure is infinitely far)."""
    wrong = np.array([result["wrong"] for result in results])
    if not kind.minimal_norm:
        each = ", ".join(f"{100 - 100 * share:.2f}" for share in wrong.mean(1))
        return f"{100 - 100 * wrong.mean():.2f} ({each})"
    right = np.array(results[0]["right"]) > 0
    l2 = np.where(wrong[0] > 0, results[0]["l2"], np.inf)[right]
    return f"{np.median(l2):.4f} ({100 * wrong[0][right].mean():.1f} %)"


def main() -> None:
    """Measure what is not known yet and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path)
    parser.add_argument("data")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--libraries", nargs="+", choices=LIBRARIES, default=LIBRARIES)
    parser.add_argument("--out", type=Path, default=Path("runs/strength.jsonl"))
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    lines = arguments.out.read_text().splitlines() if arguments.out.exists() else []
    known = {tuple(key): result for key, result in map(json.loads, lines)}
    for model in arguments.models:
        words = [f"--model={MODELS[model]}", f"--data.root={arguments.data}"]
        target = from_weights(arguments.weights / f"{model}.safetensors", resolve(words, take=()))
        # Nobody is timed: no gradients of weights, which some libraries compute, too.
        network = target.network.to(memory_format=torch.channels_last).requires_grad_(False)
        split = target.cli.datamodule.split("test")
        for name in arguments.kinds:
            kind = KINDS[name]
            images = DataLoader(Subset(split, range(kind.n)), BATCH)
            what = "median L2 (success)" if kind.minimal_norm else "robust accuracy % (seeds)"
            print(f"\n{model}, {name}, {kind.n} images: {what}", flush=True)
            for library in ["ours", *(peer for peer in PEERS[kind.peers] if peer in arguments.libraries)]:
                for seed in range(kind.seeds):
                    key = key_of(model, name, library, seed)
                    if key not in known:
                        known[key] = measure(network, images, attack_of(kind, library, seed), seed)
                        with arguments.out.open("a") as file:
                            file.write(json.dumps([key, known[key]]) + "\n")
                results = [known[key_of(model, name, library, seed)] for seed in range(kind.seeds)]
                print(f"| {library} | {summary(kind, results)} |", flush=True)


if __name__ == "__main__":
    main()
