"""What an evaluation costs beside attacks and passes: time, memory, and the report.

    python benchmarks/evaluation.py [--n N] [--threads N]

Random images of CIFAR-10's shape, ResNet-20 with random weights, PGD-20 without early exit. Overhead: the share of the
whole test loop (data, transfer, counting, rows, files) that neither attacks nor the judge's passes took. Memory:
the peak of a process that runs this loop over N images, and of one that does over 4 N; with one judge draw, and without
what comes after the loop: numbers, checks and report, which need the whole table at once. Report: seconds and size for
10,000 images under 8 attacks with 100 judge draws, made up. Leave the machine alone meanwhile.
"""

import argparse
import importlib
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import TensorDataset

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from analysis.report import write_report
from attacks import PGD, Adversary, Attack, Linf
from cli.evaluator import Evaluator, Work
from cli.processes import trainer_of
from cli.quiet import hush
from evaluation import Batch, Records, numbers_of, setting_of, write_results
from models import ResNet20

BATCH, IMAGES, DRAWS, ATTACKS = 100, 10000, 100, 8
judging: Any = importlib.import_module("evaluation.judge")  # the package's attribute of this name is the function


class Clock:
    """Adds up the time that some functions take."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed."""

        def timed(*arguments: Any, **options: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                self.seconds += time.perf_counter() - started

        return timed


def evaluate(n: int, clock: Clock) -> float:
    """Evaluate n images; returns the seconds of the whole test loop."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, 3, 32, 32), dtype=torch.uint8, generator=generator)
    split: Any = TensorDataset(images, torch.randint(10, (n,), generator=generator))
    attacks: dict[str, Attack] = {"pgd20": Adversary(PGD(Linf(8 / 255), 2 / 255, 20))}
    work = Work(n, BATCH, seed=0, draws=1, early_exit=False, keep=8, seconds={"clean": 1.0, "pgd20": 1.0})
    with tempfile.TemporaryDirectory() as folder:
        records = Records(Path(folder), {"adversaries": ["clean", *attacks]})
        evaluator = Evaluator(ResNet20(), split, attacks, records, work)
        trainer = trainer_of({"accelerator": "cpu", "logger": False, "enable_checkpointing": False,
                              "enable_progress_bar": False, "enable_model_summary": False})  # fmt: skip
        Adversary.run = clock.around(Adversary.run)  # type: ignore[method-assign]
        judging.judge = clock.around(judging.judge)
        started = time.perf_counter()
        trainer.test(evaluator, verbose=False)
        records.finish()
        return time.perf_counter() - started


def peak(n: int, threads: int) -> float:
    """Peak memory in MB of a process that runs the test loop over n images, and ends there."""
    words = [sys.executable, __file__, "--alone", "--n", str(n), "--threads", str(threads)]
    return float(subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()[-1])


def report() -> tuple[float, float]:
    """Seconds and MB of the report of a large evaluation."""
    rng = np.random.default_rng(0)
    names = ["clean", *(f"attack{i}" for i in range(ATTACKS))]
    manifest = {
        "adversaries": names, "attacks": {}, "batch_size": 500, "data": {"class_path": "datamodules.CIFAR10"},
        "draws": DRAWS, "keep": 0, "n": IMAGES, "radii": {}, "random": True, "recipe": "made up", "seed": 0,
        "shared": False, "split": "test", "votes": 1, "bounded": names[1:], "weights_sha256": "0" * 64,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        records = Records(Path(folder), manifest)
        label, right = rng.integers(10, size=IMAGES), rng.beta(0.3, 0.3, size=IMAGES)
        for place, name in enumerate(names):
            wrong = rng.uniform(size=(IMAGES, DRAWS)) > right[:, None] ** (1 + place)
            answers = (label[:, None] + wrong * rng.integers(1, 10, size=(IMAGES, DRAWS))) % 10
            for number, rows in enumerate(np.split(np.arange(IMAGES), IMAGES // 500)):
                records.write(name, number, made_up(rows, label[rows], answers[rows], rng))
        records.finish()
        numbers = numbers_of(records.table(), setting_of(manifest))
        write_results(Path(folder), numbers, manifest)
        started = time.perf_counter()
        page = write_report(Path(folder))
        return time.perf_counter() - started, page.stat().st_size / 1e6


def made_up(index: Any, label: Any, answers: Any, rng: np.random.Generator) -> Batch:
    """A batch of rows."""
    n = len(index)
    return Batch(
        index=index,
        label=label,
        answers=answers,
        probs=rng.dirichlet(np.ones(10), size=n),
        l2=rng.uniform(size=n),
        linf=np.full(n, 8 / 255),
        queries=np.full(n, 100),
        zero_gradient=np.zeros(n, bool),
        erred=np.ones(n, bool),
        loss=np.sort(rng.normal(size=(n, 33)), axis=1),
        unfinished=np.zeros(n),
    )


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--alone", action="store_true", help="run the loop, print the peak memory in MB, nothing else")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    hush()
    clock = Clock()
    whole = evaluate(arguments.n, clock)
    if arguments.alone:
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return
    small, large = peak(arguments.n, arguments.threads), peak(4 * arguments.n, arguments.threads)
    seconds, size = report()
    print(f"torch {torch.__version__}, {arguments.threads} threads, n = {arguments.n}\n")
    print("| what | measured | wanted |\n|---|---|---|")
    print(f"| time beside attacks and passes | {100 * (1 - clock.seconds / whole):.1f} % | at most 3 % |")
    # The images themselves, 3 KB each in memory, are no part of the engine's.
    print(f"| peak memory of the loop, {4 * arguments.n} images / {arguments.n} images | {large / small:.3f} | 1 |")
    print(f"| report of {IMAGES} images x {DRAWS} draws x {ATTACKS + 1} adversaries | "
          f"{seconds:.1f} s, {size:.2f} MB | under 10 s, under 5 MB |")  # fmt: skip


if __name__ == "__main__":
    main()
